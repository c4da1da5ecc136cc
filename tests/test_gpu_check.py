"""The checks of a GPU, as far as a CPU can make them: that they pass here, and that they find what is wrong."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu import memory, networks, numerics, speed, sweeps
from benchmarks.gpu.setting import SIZES, Setting, Wrong, synthetic
from benchmarks.speed import Ceilings
from regbench import regularizers
from regbench.commands import sweep
from regbench.training import convolutions, stack


@pytest.fixture
def setting(tmp_path, monkeypatch) -> Setting:
    """The smallest that there is."""
    monkeypatch.setitem(SIZES, "cpu", replace(SIZES["cpu"], few=20, tested=10, timed_batch=2, budget=0.2))
    folder = tmp_path / "scratch"
    folder.mkdir()
    return Setting(torch.device("cpu"), "fashion_mnist", synthetic(folder, 200, 40), folder)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_for_each_check_and_what_needs_a_gpu_is_skipped(run_here, elsewhere):
    code, text = run_here(gpu_check.main, device="cpu", only="convolutions,device,replay,waiting,peak", out="found")
    assert code == 0
    assert (elsewhere / "found" / "checks.jsonl").read_text() == text
    found = {line["name"]: line for line in lines(text)}
    expected = {name: "skipped" for name in ("replay", "waiting", "peak")} | {
        "device": "passed",
        "convolutions": "passed",
    }
    assert {name: line["status"] for name, line in found.items()} == expected
    assert list(found) == [name for name in gpu_check.CHECKS if name in expected]
    assert found["device"]["details"]["torch"] == torch.__version__
    assert found["peak"]["details"] == {"reason": "needs CUDA, this is cpu"}


@pytest.mark.parametrize(("keep_going", "made"), [("false", 1), ("true", 2)])
def test_the_first_that_fails_is_the_last_unless_it_is_to_go_on(run_here, monkeypatch, keep_going, made):
    right = convolutions.CONVOLUTIONS["unfolded"]
    monkeypatch.setitem(convolutions.CONVOLUTIONS, "unfolded", lambda *given: right(*given) * 1.001)
    code, text = run_here(gpu_check.main, device="cpu", only="convolutions,replay", keep_going=keep_going)
    assert code == 1
    first, *rest = lines(text)
    assert first["status"] == "failed" and 1 + len(rest) == made
    assert "K=1 3->16 float32 unfolded is off by 1.0e-03" in first["details"]["reason"]


def test_what_a_device_raises_is_a_failure_and_not_the_end(setting, monkeypatch, capsys):
    def broken(setting, found):
        found["so far"] = float("nan")
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(gpu_check, "CHECKS", {"broken": broken, "after": lambda setting, found: None})
    first, second = gpu_check.run(("broken", "after"), setting, keep_going=True)
    assert json.loads(gpu_check._line(first))["details"] == {
        "reason": "RuntimeError: CUDA error: unspecified launch failure",
        "so far": "nan",
    }
    assert second["status"] == "passed"
    assert "in broken" in capsys.readouterr().err


def test_an_unknown_check_is_refused(run_here, capsys):
    code, _ = run_here(gpu_check.main, only="nothing")
    assert code == 2


def test_engines_that_differ_are_found(setting, monkeypatch):
    for name in set(regularizers.REGISTRY) - {"none", "dropout", "imp"}:
        monkeypatch.delitem(regularizers.REGISTRY, name)
    monkeypatch.setattr(numerics, "OTHERS", {"nesterov": numerics.OTHERS["nesterov"]})
    monkeypatch.setattr(numerics, "PLAIN", ("none",))
    found = {}
    numerics.engines(setting, found)
    assert len(found) == 1 + 3 + 1
    alone = numerics.alone
    monkeypatch.setattr(
        numerics, "alone", lambda trial, data: alone(replace(trial, recipe=replace(trial.recipe, lr=0.0101)), data)
    )
    with pytest.raises(Wrong, match=r"sgd none seed=0: stacked differs by .*; nesterov none"):
        numerics.engines(setting, {})


def test_memory_that_is_not_given_back_is_found(setting, monkeypatch):
    found = {}
    memory.out_of_memory(setting, found)
    assert found["forward"] == found["backward"]
    assert found["forward"] == {"ends": {"Trained": 4}, "stacks": [2], "left alive": 0, "bytes left": 0}
    kept, begin = [], stack.Training.__init__
    monkeypatch.setattr(stack.Training, "__init__", lambda self, *given: (kept.append(self), begin(self, *given))[1])
    with pytest.raises(Wrong, match="forward: 3 stacks and 0 bytes are left"):
        memory.out_of_memory(setting, {})


class TwiceInStacks(networks.Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (2 if torch._C._functorch.is_batchedtensor(x) else 1)


def test_networks_train_as_they_do_alone_or_end_with_a_reason(setting, monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", (networks.Reads, networks.Counts, networks.Normalized))
    found = {}
    networks.networks(setting, found)
    ((reason, count),) = found["Reads"]["stacked"].items()
    assert "vmap" in reason and count == 4
    assert found["Counts"]["stacked"] == found["Normalized"]["stacked"] == {"trained": 4}
    monkeypatch.setattr(networks, "NETWORKS", (TwiceInStacks,))
    with pytest.raises(Wrong, match=r"TwiceInStacks differs by .* from what the sequential engine trains"):
        networks.networks(setting, {})


def test_the_sweeps_commands_are_accepted(setting, run_here, monkeypatch):
    commands = []
    monkeypatch.setattr(sweeps, "_finish", lambda command, folder: commands.append(command))
    monkeypatch.setattr(sweeps.faults, "start", lambda command, folder: sys.exit())
    for check, end in ((sweeps.sweep, Wrong), (sweeps.repeated, SystemExit)):  # nothing is trained
        with pytest.raises(end):
            check(setting, {})
    assert len(commands) == 2
    for command in commands:
        options = dict(part.removeprefix("--").split("=") for part in command[4:])
        code, text = run_here(sweep.main, **options, dry_run="true")
        assert code == 0 and "to train" in text


def test_steps_are_timed(setting, monkeypatch):
    monkeypatch.setattr(speed.speed, "ceilings", lambda device, kinds: Ceilings(dict.fromkeys(kinds, 1e12), 1e10))
    monkeypatch.setattr(
        speed, "ProcessPoolExecutor", lambda count, context, begin, given: ThreadPoolExecutor(count, "", begin, given)
    )
    found = {}
    speed.steps(setting, found)
    assert set(found["notebook's loop, ms"]) == {"none", "l1"}
    ((first, (eager, recorded, share)), *_) = found[
        "K, precision, regularizers: ms a step, recorded; share of products"
    ].items()
    assert first == "1, float32, none" and eager > 0 and recorded is None and 0 < share < 1
    assert found["left out"][-1] == "2, bf16, dropout: TimeoutError"


def test_a_stack_is_of_all_its_regularizers_side_by_side(setting):
    count = len(speed.STACKS["mixed"]) + 2
    some = speed._stack(setting.recipe(), speed.STACKS["mixed"], count)
    names = [trial.regularizer for trial in some]
    assert len({trial.seed for trial in some}) == count and names == sorted(names)
    assert set(names) == set(speed.STACKS["mixed"])
