"""What a store that holds nothing yet does not need."""

import subprocess
import sys

from regbench.tracking.store import Store


def test_a_new_store_is_seen_to_be_empty_without_mlflow(elsewhere, environment):
    code = (
        "import sys; from regbench.tracking.store import Store; store = Store();"
        "store.name_launcher('dry_run'); assert store.search('') == [];"
        "sys.exit('mlflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(elsewhere.iterdir())


def test_a_new_databases_set_up_is_quiet(elsewhere, environment):
    code = "from regbench.tracking.store import Store; Store('e').create()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    assert Store("e").experiment_id is not None
