"""The program's two names, `python -m regbench` and the console script `regbench`."""

import subprocess
import sys
from pathlib import Path

SCRIPT = str(Path(sys.executable).with_name("regbench"))


def test_the_console_script_finds_modules_in_the_folder_in_which_it_is_started(elsewhere):
    (elsewhere / "mine.py").write_text("from regbench.regularizers import L1\n\n\nclass Mine(L1):\n    pass\n")
    done = subprocess.run([SCRIPT, "check", "mine:Mine"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok ")


def test_both_list_the_commands_without_torch_and_mlflow(elsewhere):
    code = (
        "import sys; from regbench import __main__ as m; "
        "print(sorted(m.main.commands), {'torch', 'mlflow', 'pandas'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert printed.stdout == "['check', 'export', 'import', 'notebook', 'report', 'sweep'] set()\n"
