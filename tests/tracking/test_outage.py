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

from regbench import planning, runner
from regbench.engine.choice import Engine
from regbench.sweep import Recipe, grid
from regbench.tracking import outage, schema, writer
from regbench.tracking.delivery import deliver_first
from regbench.tracking.store import Store
from tests.conftest import TINY, arguments
from tests.tracking.servers import Proxy, Server

SWEEP = {"dataset": "digits", "model": TINY, "reg": "l1,l2", "lam": "1e-3", "seeds": "0-1", "batch_size": 50, "jobs": 1}
TRIALS = 6
FILES = {"weights/model.safetensors", "weights/layers.csv", "weights/histograms.png", "weights/out.png"}
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
    monkeypatch.setattr(outage, "SOON", 0.05)
    monkeypatch.setattr(outage, "LATE", 0.2)
    yield made
    made.close()


@pytest.fixture
def sweep(images):
    recipe = Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=40)
    return grid(recipe, ["l1"], [1e-3], [0, 1])


def train(sweep, images, experiment: str, told: list[str] | None = None):
    """What the commands do: bring what waits, plan, train; return how many trials were planned."""
    store, console = Store(experiment), Console(quiet=True)
    deliver_first(store, (told if told is not None else []).append)
    plan = planning.plan(sweep, store, rerun=False)
    runner.run(plan, images, store, Engine("sequential", "cpu"), console, "a sweep")
    return len(plan.todo)


def test_a_server_killed_twice_in_mid_sweep_has_everything_once(tmp_path, empty_database, environment):
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    server, epochs = Server(folder).start(), 40
    process = subprocess.Popen(
        arguments("benchmarks.sweep", **SWEEP, epochs=epochs),
        env=environment | {"MLFLOW_TRACKING_URI": server.uri}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    away = []  # how many trials ended while the server was away
    try:
        lines: list[str] = []
        kills = itertools.cycle([r"\(2/6\) .* epoch 5/", r"\(5/6\) .* epoch 5/"])
        pattern = next(kills)
        for line in process.stdout:
            lines.append(line)
            if len(away) < 2 and re.match(pattern, line):
                server.kill()
                pattern = next(kills)
                for line in process.stdout:  # a trial at least ends meanwhile
                    lines.append(line)
                    if "test accuracy" in line:
                        away.append(line)
                        break
                server.start()
        errors = process.stderr.read()
        assert process.wait(timeout=120) == 0, errors
        text = "".join(lines)
        assert "Traceback" not in errors
        assert len(away) == 2, text
        seen = check(MlflowClient(server.uri), "regbench", TRIALS, epochs)
        assert (seen["runs"], seen["files"]) == (TRIALS, 4 * TRIALS)
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
    proxy, server, environment, command, elsewhere
):
    """Results wait on disk while the rest is trained, and nothing is trained again."""
    options = SWEEP | {"epochs": 2, "experiment": "away at the end"}
    impatient = (
        "import sys; from regbench.tracking import outage; outage.PATIENCE = 3.0;"
        "from benchmarks import sweep; from regbench import cli; cli.run(sweep.main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", impatient, *arguments("", **options)[3:]],
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
    assert (
        "7 result(s) of an earlier start wait on disk" in command("benchmarks.sweep", **options, dry_run="true").stdout
    )
    done = command("benchmarks.sweep", **options)
    assert done.returncode == 0, done.stderr
    assert "7 results of an earlier start brought to the tracking store" in done.stdout
    assert "6 finished already, 0 to train" in done.stdout
    check(MlflowClient(server.uri), "away at the end", TRIALS, 2)
    assert not list((elsewhere.parent / "cache" / "waiting").rglob("record.json"))


def test_results_that_wait_survive_sigkill(proxy, server, environment, command):
    options = SWEEP | {"epochs": 3, "experiment": "killed"}
    process = subprocess.Popen(
        arguments("benchmarks.sweep", **options), env=environment, stdout=subprocess.PIPE, text=True
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
    done = command("benchmarks.sweep", **options)
    assert done.returncode == 0, done.stderr
    (brought,) = re.findall(r"(\d) results? of an earlier start brought", done.stdout)
    assert int(brought) >= 3  # the last may not have been on disk
    assert f"{brought} finished already" in done.stdout
    client = MlflowClient(server.uri)
    runs = runs_of(client, "killed")
    finished = Counter(run.data.tags[schema.KEY] for run in runs if run.info.status == "FINISHED")
    assert len(finished) == TRIALS and set(finished.values()) == {1}
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def test_training_does_not_wait_for_a_server_that_is_away(proxy, sweep, images, monkeypatch):
    """More results than memory is to hold, and none of them in memory."""
    monkeypatch.setattr(writer, "MAX_WAITING", 1)
    monkeypatch.setattr(outage, "PATIENCE", 1.0)
    began, told = time.monotonic(), []
    many = grid(sweep.recipes[0], ["l1"], [1e-3], range(5))
    parents = itertools.count()

    def fail(method: str, path: str) -> str:
        return "500" if path.endswith("runs/create") and next(parents) > 0 else ""

    proxy.fail = fail
    with pytest.raises(outage.TrackingError, match="11 results wait"):
        train(many, images, "no waiting")
    assert time.monotonic() - began < 60
    proxy.fail = lambda method, path: ""
    assert train(many, images, "no waiting", told) == 0
    assert told == ["11 results of an earlier start brought to the tracking store"]


def test_patience_is_counted_from_the_first_failure(monkeypatch):
    monkeypatch.setattr(outage, "PATIENCE", 1.0)
    monkeypatch.setattr(outage, "SOON", 0.05)
    clock = itertools.count()  # of a call that takes longer than the patience before it fails
    monkeypatch.setattr(time, "monotonic", lambda: 10.0 * next(clock))
    failures = iter([ConnectionError("503")])

    def upload() -> str:
        time.monotonic()
        for failure in failures:
            raise failure
        return "there"

    monkeypatch.setattr(outage, "PATIENCE", 15.0)
    assert outage.patiently(upload, [].append) == "there"


def test_an_upload_that_takes_longer_than_the_patience_is_no_failure(proxy, server, sweep, images, monkeypatch):
    monkeypatch.setattr(outage, "PATIENCE", 0.5)
    proxy.delay = 0.6
    one = grid(sweep.recipes[0], ["none"], None, [0])
    train(one, images, "long uploads")
    check(MlflowClient(server.uri), "long uploads", 1, 2)
