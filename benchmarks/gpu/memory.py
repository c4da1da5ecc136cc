"""Does a stack that does not fit end well, and is a stack as large as it is said to be."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import torch

from benchmarks.gpu.setting import Setting, Wrong, require, trials
from regbench.engines import stacked
from regbench.training import precision, stack
from regbench.training.events import Failed, Trained
from regbench.training.stacked_networks import NotebookStack, Stack
from regbench.trial import Trial

# trials in a stack that is too large, and the largest that is not; on a GPU more than are trained to see whether recorded
# steps are faithful
COUNT, FITTING = {"cuda": 16, "cpu": 4}, 2
# the most bytes that may be left: a network's weights are more
LEFT = 4 << 20


def out_of_memory(setting: Setting, found: dict) -> None:
    """Have memory run out in forward, backward, in a recording and wherever it does: each trial ends, nothing is left."""
    count = COUNT[setting.device.type]
    some = trials(setting.recipe(epochs=1), ["l1"], range(count))
    cuda = setting.device.type == "cuda"
    if cuda:  # what cuBLAS keeps for itself is there after the first
        _train(setting, some)
    base = _allocated(setting)
    stacked.bytes_per_trial(some[0], setting.data)  # a sweep asks for it first
    if (more := _allocated(setting) - base) > LEFT:
        raise Wrong(f"bytes_per_trial leaves {more:,} bytes")
    faults: dict[str, AbstractContextManager] = {"forward": _in_forward(), "backward": _in_backward()}
    if cuda:
        faults |= {"recording": _in_recording(), "anywhere": _limited(setting, lambda: _train(setting, some[:FITTING]))}
    problems = []
    for where, fault in faults.items():
        with fault:
            ends, sizes = _train(setting, some)
        alive, more = _trainings(), _allocated(setting) - base
        found[where] = {"ends": ends, "stacks": sizes, "left alive": alive, "bytes left": more}
        if ends != {"Trained": count}:
            problems.append(f"{where}: the trials ended as {ends}")
        # one whose recording fails goes on without
        if max(sizes, default=0) == count and where != "recording":
            problems.append(f"{where}: a stack of {count} was trained, so that memory did not run out")
        if alive or more > LEFT:
            problems.append(f"{where}: {alive} stacks and {more:,} bytes are left")
    if not cuda:
        found["left out"] = ["recording", "anywhere"]
    require(problems)


def _train(setting: Setting, some: list[Trial]) -> tuple[dict[str, int], list[int]]:
    """Train trials in one stack; return how many ended how, and the sizes of the stacks whose trials were trained."""
    ends = {
        event.trial: (type(event).__name__, getattr(event, "together", 0))
        for event in stacked.train(some, setting.data, len(some), resume=False)
        if isinstance(event, Trained | Failed)
    }
    return dict(Counter(name for name, _ in ends.values())), sorted({size for _, size in ends.values() if size})


def _allocated(setting: Setting) -> int:
    gc.collect()
    return torch.cuda.memory_allocated(setting.device) if setting.device.type == "cuda" else 0


def _trainings() -> int:
    """Return how many stacks in training are alive."""
    gc.collect()
    return sum(type(one) is stack.Training for one in gc.get_objects())


def _full() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("as if memory had run out")


def _in_forward() -> AbstractContextManager:
    forward = Stack.forward

    def limited(self: Stack, x: torch.Tensor, training: bool) -> torch.Tensor:
        logits = forward(self, x, training)
        if training and self.count > FITTING:
            raise _full()
        return logits

    return patch.object(Stack, "forward", limited)


def _in_backward() -> AbstractContextManager:
    convolutions = NotebookStack._convolutions

    def stop(_: torch.Tensor) -> None:
        raise _full()

    def limited(self: NotebookStack, x: torch.Tensor) -> torch.Tensor:
        y = convolutions(self, x)
        if y.requires_grad and self.count > FITTING:
            y.register_hook(stop)  # the gradients of the dense layers are there by then
        return y

    return patch.object(NotebookStack, "_convolutions", limited)


def _in_recording() -> AbstractContextManager:
    batch = stack.Training.batch

    def limited(self: stack.Training, chosen: torch.Tensor) -> None:
        batch(self, chosen)
        if torch.cuda.is_current_stream_capturing():
            raise _full()

    return patch.object(stack.Training, "batch", limited)


@contextmanager
def _limited(setting: Setting, train: Callable[[], object]) -> Iterator[None]:
    """Leave for the block only as much memory as `train` takes, and a quarter more."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setting.device)
    train()
    most = 1.25 * torch.cuda.max_memory_reserved(setting.device)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        most / torch.cuda.get_device_properties(setting.device).total_memory, setting.device
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setting.device)


def peak(setting: Setting, found: dict) -> None:
    """Compare the memory that stacks take at most with what `bytes_per_trial` says, by which their size is chosen."""
    setting.need_gpu()
    problems = []
    cases = {"sgd": {}, "adam, ema": {"optimizer": "adam", "lr": 1e-3, "average": "ema"}, "bf16": {"precision": "bf16"}}
    for what, options in cases.items():
        recipe = setting.recipe(
            batch_size=setting.sizes.timed_batch, train_size=10 * setting.sizes.timed_batch, **options
        )
        if recipe.precision not in setting.precisions:
            continue
        for count in (8, 64):
            some = trials(recipe, ["l1"], range(count))
            said = count * stacked.bytes_per_trial(some[0], setting.data)
            gc.collect()
            torch.cuda.empty_cache()
            before = torch.cuda.memory_reserved(setting.device)
            for record in (False, True) if stack.recordable(some, setting.data) else (False,):
                torch.cuda.reset_peak_memory_stats(setting.device)
                with precision.settings(recipe.precision, setting.device):
                    stack.Training(some, setting.data, record).epoch(1)
                taken = torch.cuda.max_memory_reserved(setting.device) - before
                name = f"{what} K={count}{' recorded' if record else ''}"
                found[name] = {"said": said, "taken": taken, "ratio": taken / said}
                # beyond it the largest stack would not fit into the memory
                if taken > said / stacked.SHARE:
                    problems.append(f"{name} takes {taken / said:.2f} times what is said")
                gc.collect()
                torch.cuda.empty_cache()
    require(problems)
