"""A sweep on a Ray cluster: real nodes on this machine, some of which are killed."""

import importlib.util
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from regbench.commands import exit_code, sweep
from regbench.engines import sequential, stacked
from regbench.errors import UserError
from regbench.regularizers import cells
from regbench.tracking import schema
from regbench.training.device_data import DeviceData
from regbench.training.events import Epoch, Failed, Started, Trained
from regbench.trial import Recipe, Trial, grid
from tests.conftest import PROJECT, TINY, arguments, cut_off
from tests.engines.test_processes import assert_same, by_trial, kinds
from tests.test_end_to_end import outcome, runs_of, weights_of

if importlib.util.find_spec("ray") is None:
    if os.environ.get("REGBENCH_TEST_ALL"):
        raise ModuleNotFoundError("REGBENCH_TEST_ALL is set, but Ray is not installed")
    pytest.skip("Ray is not installed: pip install 'regbench[ray]'", allow_module_level=True)

import ray
from ray.cluster_utils import Cluster

from regbench.engines import ray as ray_cluster

SWEEP = {
    "dataset": "digits", "model": TINY, "reg": "l1", "lam": "1e-3", "seeds": "0", "epochs": 3, "train_size": 200,
    "device": "cpu",
}  # fmt: skip
HELD = "tests.plugins:Held"
LAMS = ("0.001", "0.002", "0.003", "0.004", "0.005")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A node with one CPU core, and a GPU that is only said to be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(PROJECT))
        patch.setenv("REGBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("REGBENCH_CHECKPOINT_SECONDS", "0")
        patch.setenv("HELD_IN", str(tmp_path_factory.mktemp("held")))
        patch.delenv("RAY_ADDRESS", raising=False)
        started = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "num_gpus": 1,
                "include_dashboard": False,
                # a dead node is noticed within two seconds instead of twenty
                "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 3},
            },
        )
        patch.setenv("RAY_ADDRESS", started.address)
        yield started
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=32, lr=0.05)


def wait_for_two(folder: Path, before: set[str], sweep: subprocess.Popen) -> set[str]:
    """Return the lams of the two trials that are held, once they are."""
    deadline = time.monotonic() + 120
    while len(held := {path.name.removeprefix("waits-") for path in folder.glob("waits-*")} - before) < 2:
        assert sweep.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return held


def release(folder: Path, lams: Iterable[str]) -> None:
    for lam in lams:
        (folder / f"goes-{lam}").touch()


def test_a_node_is_killed_and_every_trial_finishes_once_as_on_one_machine(
    cluster, database, environment, run_here, elsewhere
):
    folder = Path(os.environ["HELD_IN"])
    (raylet,) = cluster.add_node(num_cpus=1).all_processes["raylet"]
    node = psutil.Process(raylet.process.pid)
    cluster.wait_for_nodes()
    options = SWEEP | {"reg": HELD, "lam": ",".join(LAMS), "baseline": "false"}
    process = subprocess.Popen(
        arguments("sweep", **options, backend="ray", verbose="true"),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        # each node, of one core, trains one to its end
        first = wait_for_two(folder, set(), process)
        release(folder, first)
        # and the next two are under way, one on each
        wait_for_two(folder, first, process)
        for part in (node, *node.children(recursive=True)):  # a raylet's workers outlive it by a second or so
            part.kill()
        release(folder, LAMS)
        told, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait(timeout=60)
    assert process.returncode == 0, told + errors

    runs = runs_of(elsewhere)
    assert [run.info.status for run in runs] == ["FINISHED"] * len(LAMS)
    assert len({run.data.tags[schema.KEY] for run in runs}) == len(LAMS)
    epochs = re.findall(r"^\(\d/5\) (.* seed=0) epoch (\d)/", told, re.MULTILINE)
    assert len(epochs) == len(set(epochs)) == len(LAMS) * SWEEP["epochs"]
    # of the two that were under way one was on the node that died, and ended on the other
    head = cluster.head_node.node_id[:8]
    nodes = {f"{float(run.data.params['lam']):g}": run.data.tags[schema.NODE].partition("/")[2] for run in runs}
    assert len({nodes[lam] for lam in first}) == 2
    assert {nodes[lam] for lam in nodes.keys() - first} == {head}

    assert run_here(sweep.main, **options, jobs=1, experiment="here")[0] == 0
    expected = {run.info.run_name: run for run in runs_of(elsewhere, experiment="here")}
    assert len(expected) == len(LAMS)
    for run in runs:
        assert outcome(run) == outcome(expected[run.info.run_name]), run.info.run_name
        assert weights_of(run) == weights_of(expected[run.info.run_name]), run.info.run_name


def test_sigterm_ends_the_tasks_and_closes_what_is_open(cluster, database, environment, elsewhere):
    options = SWEEP | {"epochs": 100_000, "backend": "ray"}
    code, errors = cut_off(".* epoch 2/", signal.SIGTERM, environment, **options)
    assert code == 130
    assert errors.strip().startswith("error: interrupted; what was finished is kept")
    assert len(errors.strip().splitlines()) == 1
    assert {run.info.status for run in runs_of(elsewhere) + runs_of(elsewhere, "sweep")} == {"KILLED"}
    ray_cluster.connect("cpu")
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources().get("CPU") == 1


def test_trials_are_what_they_are_alone_and_one_that_kills_its_workers_fails(cluster, recipe, images, monkeypatch):
    monkeypatch.setattr(ray_cluster, "LOSSES", 2)  # each takes as long as a worker's start
    ray_cluster.connect("cpu")
    dies = Recipe(**vars(recipe) | {"model": "tests.engines.test_processes:Dies"})
    bad = Trial(dies, "none", 0.0, 3)
    trials = [bad, *grid(recipe, cells(["l1"], [1e-3]), [0, 1]).trials]
    told = by_trial(ray_cluster.train(trials, images, "cpu"))
    alone = by_trial(sequential.train(trials[1:], DeviceData(images, torch.device("cpu"))))
    assert kinds(told[bad]) == [Started, Epoch, Failed]
    assert told[bad][-1].reason.startswith("its worker was lost 2 times, the last time: The worker died unexpectedly")
    for trial in trials[1:]:
        assert kinds(told[trial]) == [Started, Epoch, Epoch, Trained]
        assert_same(told[trial][-1], alone[trial][-1])


def test_a_stack_that_is_lost_is_trained_in_halves(cluster, recipe, images):
    ray_cluster.connect("cpu")
    trials = grid(recipe, cells(["tests.plugins:KillsStacks"], [1e-3], baseline=False), [0, 1]).trials
    told = by_trial(ray_cluster.train(trials, images, "cpu", stack=True))
    assert list(told) == list(trials)
    for trial in trials:
        assert kinds(told[trial]) == [Started, Epoch, Epoch, Trained]
        alone = by_trial(stacked.train([trial], DeviceData(images, torch.device("cpu"))))
        assert_same(told[trial][-1], alone[trial][-1])


def test_a_gpu_is_asked_for_each_stack(cluster):
    assert [ray_cluster.connect(device) for device in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    assert ray_cluster.slots("cuda") == 1
    assert ray_cluster.call(os.getenv, "cuda", "CUDA_VISIBLE_DEVICES") == "0"
    assert not ray_cluster.call(os.getenv, "cpu", "CUDA_VISIBLE_DEVICES")


def test_a_node_with_other_code_is_refused(cluster, recipe, images):
    ray_cluster.connect("cpu")
    trial = Trial(recipe, "l1", 1e-3, 0)
    vars(trial)["key"] = "that of other code"
    with pytest.raises(UserError, match="has other code for l1 lam=1e-3 seed=0"):
        list(ray_cluster.train([trial], images, "cpu"))


def refusal(options: dict[str, str], capsys) -> str:
    """Run a sweep that must be refused; return its one line."""
    with pytest.raises(SystemExit) as stop:
        exit_code.run(
            sweep.main, [f"--{name}={value}" for name, value in (SWEEP | {"backend": "ray"} | options).items()]
        )
    told = capsys.readouterr().err
    assert stop.value.code == 2, told
    assert told.startswith("error: ") and told.count("\n") == 1
    return told


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        (
            "127.0.0.1:1",
            {},
            "RAY_ADDRESS='127.0.0.1:1': no Ray cluster can be reached ([Errno 111] Connection refused)",
        ),
        ("nowhere", {}, "RAY_ADDRESS='nowhere': no Ray cluster can be reached (Invalid address format: nowhere)"),
        ("ray://127.0.0.1:1", {}, "RAY_ADDRESS='ray://127.0.0.1:1' is for Ray's client"),
        (None, {"device": "cuda:1"}, "device='cuda:1' is unknown with backend='ray'; accepted: auto, cpu, cuda"),
        (None, {"jobs": "2"}, "jobs=2 is for backend=local; leave it out"),
    ],
)
def test_a_mistake_is_one_line(cluster, address, options, message, monkeypatch, capsys):
    if address:
        ray.shutdown()
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert message in refusal(options, capsys)


def test_without_ray_the_fix_is_named(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refusal({}, capsys)
    assert "backend='ray' needs Ray, which is not installed; get it with: pip install 'regbench[ray]'" in message
