"""A tracking server that is killed, fails, is slow or stays away: nothing is lost, nothing is there twice."""

import itertools
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from rich.console import Console
from safetensors.torch import load_file

from regbench import plan as planning
from regbench.commands import sweep as command
from regbench.engines import select
from regbench.regularizers import cells
from regbench.run import run_plan
from regbench.tracking import retry, schema, writer
from regbench.tracking.delivery import flush
from regbench.tracking.store import Store
from regbench.trial import Recipe, grid
from tests.conftest import TINY, arguments
from tests.tracking.servers import Proxy, Server

SWEEP = {
    "dataset": "digits", "model": TINY, "reg": "l1,l2", "lam": "1e-3", "seeds": "0-1", "batch_size": 50,
    "train_size": 300, "jobs": 1,
}  # fmt: skip
TRIALS = 6
FILES = {
    "weights/model.safetensors",
    "weights/epochs.csv",
    "weights/layers.csv",
    "weights/histograms.csv",
    "weights/histograms.png",
    "weights/output.safetensors",
    "weights/out.png",
}
PER_EPOCH = {"train/loss", "train/objective", "train/accuracy", "val/loss", "val/accuracy", "time/epoch"}


def runs_of(client: MlflowClient, experiment: str, kind: str = "trial") -> list[Run]:
    where = [client.get_experiment_by_name(experiment).experiment_id]
    return list(client.search_runs(where, f"tags.`{schema.KIND}` = '{kind}'", ViewType.ACTIVE_ONLY))


def check(client: MlflowClient, experiment: str, trials: int, epochs: int) -> Counter:
    """Every trial is there once, its run FINISHED, with each point of each metric once and all files whole."""
    runs = runs_of(client, experiment)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == len({run.data.tags[schema.KEY] for run in runs}) == trials
    (parent,) = runs_of(client, experiment, "sweep")
    assert parent.info.status == "FINISHED"
    assert schema.NOTE in parent.data.tags
    seen: Counter = Counter(runs=len(runs))
    for run in runs:
        assert run.data.tags[schema.PARENT] == parent.info.run_id
        assert len(run.inputs.dataset_inputs) == 1
        assert set(run.data.metrics) > PER_EPOCH
        for name in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
            assert steps == (list(range(1, epochs + 1)) if name in PER_EPOCH else [epochs]), (run.info.run_name, name)
            seen["points"] += len(steps)
        assert {file.path for file in client.list_artifacts(run.info.run_id, "weights")} == FILES
        weights = load_file(client.download_artifacts(run.info.run_id, "weights/model.safetensors"))
        matrices = [w.double().square().sum().item() for w in weights.values() if w.ndim > 1]
        assert run.data.metrics["norm/l2"] == pytest.approx(sum(matrices) ** 0.5, rel=1e-6)
        seen["files"] += len(FILES)
    return seen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path):
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    started = Server(folder).start()
    yield started
    started.kill()


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch):
    made = Proxy(server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.2)
    yield made
    made.close()


@pytest.fixture
def sweep(images):
    recipe = Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=40)
    return grid(recipe, cells(["l1"], [1e-3]), [0, 1])


def train(sweep, images, experiment: str, reported: list[str] | None = None):
    """What the commands do: bring what waits, plan, train; return how many trials were planned."""
    store, console = Store(experiment), Console(quiet=True)
    flush(store, (reported if reported is not None else []).append)
    plan = planning.make(sweep, store, rerun=False)
    run_plan(plan, images, store, select.sequential("cpu"), console, "a sweep")
    return len(plan.todo)


def test_a_server_killed_twice_in_mid_sweep_has_everything_once(tmp_path, empty_database, environment):
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    held = tmp_path / "held"
    held.mkdir()
    options = SWEEP | {
        "reg": "tests.plugins:Held",
        "lam": "0.001,0.002,0.003,0.004,0.005",
        "seeds": "0",
        "epochs": 3,
        "verbose": "true",
    }
    server = Server(folder).start()
    process = subprocess.Popen(
        arguments("sweep", **options),
        env=environment | {"MLFLOW_TRACKING_URI": server.uri, "HELD_IN": str(held)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines: list[str] = []

    def read_until(pattern: str) -> None:
        for line in process.stdout:
            lines.append(line)
            if re.match(pattern, line):
                return
        pytest.fail(f"it ended before {pattern}: {''.join(lines)}")

    try:
        for number in range(2, TRIALS + 1):
            read_until(rf"\({number}/6\) .* epoch 1/")  # it goes no further than the second without its file
            if number in (2, 5):
                server.kill()
            if number in (3, 6):
                server.start()
            (held / f"goes-0.00{number - 1}").touch()
            read_until(rf"\({number}/6\) .* test accuracy")  # of the second and fifth while the server is away
        text = "".join([*lines, *process.stdout])
        errors = process.stderr.read()
        assert process.wait(timeout=120) == 0, errors
        assert "Traceback" not in errors
        assert text.count("test accuracy") == TRIALS
        seen = check(MlflowClient(server.uri), "regbench", TRIALS, 3)
        assert (seen["runs"], seen["files"]) == (TRIALS, len(FILES) * TRIALS)
    finally:
        process.kill()
        process.wait(timeout=60)
        server.kill()


@pytest.mark.parametrize("fault", ["500", "lost"])
def test_a_server_that_fails_at_every_third_request_has_everything_once(fault, proxy, server, sweep, images):
    """Also where it did what it was asked, and only its answer did not arrive."""
    count = itertools.count(1)
    proxy.fail = lambda method, path: fault if method != "GET" and next(count) % 3 == 0 else ""
    experiment = f"every third {fault}"
    assert train(sweep, images, experiment) == 4
    assert proxy.failed > 10
    check(MlflowClient(server.uri), experiment, 4, 2)


def test_a_slow_server_gets_everything_once(proxy, server, sweep, images):
    proxy.delay = 0.15
    train(sweep, images, "slow")
    check(MlflowClient(server.uri), "slow", 4, 2)


def test_what_a_server_misses_at_the_end_is_delivered_by_the_same_command(
    proxy, server, environment, run_here, elsewhere
):
    """Results wait on disk while the rest is trained, and nothing is trained again."""
    options = SWEEP | {"epochs": 2, "experiment": "away at the end"}
    impatient = (
        "from regbench.tracking import retry; retry.PATIENCE = 3.0;"
        "from regbench.commands import exit_code, sweep; exit_code.run(sweep.main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", impatient, *arguments("sweep", **options, verbose="true")[4:]],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        text = ""
        for line in process.stdout:
            text += line
            if re.match(r"\(1/6\) .* epoch 1/", line):
                proxy.fail = lambda method, path: "500"
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 1
    finally:
        process.kill()
        process.wait(timeout=60)
    assert text.count("test accuracy") == TRIALS
    assert "waiting for the tracking store, up to 3 s" in text
    last = errors.strip().splitlines()[-1]
    assert re.search(r"^error: the tracking store failed: .*500.* 7 results wait in \S+: the same command brings", last)
    assert "Traceback" not in errors
    proxy.fail = lambda method, path: ""
    assert "7 result(s) of an earlier start wait on disk" in run_here(command.main, **options, dry_run="true")[1]
    code, text = run_here(command.main, **options)
    assert code == 0, text
    assert "7 results of an earlier start brought to the tracking store" in text
    assert "6 finished already, 0 to train" in text
    check(MlflowClient(server.uri), "away at the end", TRIALS, 2)
    assert not list((elsewhere.parent / "cache" / "waiting").rglob("record.json"))


def test_results_that_wait_survive_sigkill(proxy, server, environment, run_here):
    options = SWEEP | {"epochs": 3, "experiment": "killed"}
    process = subprocess.Popen(
        arguments("sweep", **options, verbose="true"), env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if re.match(r"\(1/6\) .* epoch 1/", line):
                proxy.fail = lambda method, path: "500"
            if re.match(r"\(5/6\) .* epoch 2/", line):
                break
    finally:
        process.kill()
        process.wait(timeout=60)
    proxy.fail = lambda method, path: ""
    code, text = run_here(command.main, **options)
    assert code == 0, text
    (brought,) = re.findall(r"(\d) results? of an earlier start brought", text)
    assert int(brought) >= 3  # the last may not have been on disk
    assert f"{brought} finished already" in text
    client = MlflowClient(server.uri)
    runs = runs_of(client, "killed")
    finished = Counter(run.data.tags[schema.KEY] for run in runs if run.info.status == "FINISHED")
    assert len(finished) == TRIALS and set(finished.values()) == {1}
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def test_training_does_not_wait_for_a_server_that_is_away(proxy, sweep, images, monkeypatch):
    """More results than memory is to hold, and none of them in memory."""
    monkeypatch.setattr(writer, "MAX_WAITING", 1)
    monkeypatch.setattr(retry, "PATIENCE", 1.0)
    began, reported = time.monotonic(), []
    many = grid(sweep.recipes[0], cells(["l1"], [1e-3]), range(5))
    parents = itertools.count()

    def fail(method: str, path: str) -> str:
        return "500" if path.endswith("runs/create") and next(parents) > 0 else ""

    proxy.fail = fail
    with pytest.raises(retry.TrackingError, match="11 results wait"):
        train(many, images, "no waiting")
    assert time.monotonic() - began < 60
    proxy.fail = lambda method, path: ""
    assert train(many, images, "no waiting", reported) == 0
    assert reported == ["11 results of an earlier start brought to the tracking store"]


def test_patience_is_counted_from_the_first_failure(monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE", 1.0)
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.05)
    clock = itertools.count()  # of a call that takes longer than the patience before it fails
    monkeypatch.setattr(time, "monotonic", lambda: 10.0 * next(clock))
    failures = iter([ConnectionError("503")])

    def upload() -> str:
        time.monotonic()
        for failure in failures:
            raise failure
        return "there"

    monkeypatch.setattr(retry, "PATIENCE", 15.0)
    assert retry.retry(upload, [].append) == "there"


def test_an_upload_that_takes_longer_than_the_patience_is_no_failure(proxy, server, sweep, images, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE", 0.5)
    proxy.delay = 0.6
    one = grid(sweep.recipes[0], cells(["none"], None), [0])
    train(one, images, "long uploads")
    check(MlflowClient(server.uri), "long uploads", 1, 2)
