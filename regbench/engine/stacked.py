"""The fast engine for a GPU: K trials of one recipe, of any regularizers, lams and seeds, trained as one network."""

import gc
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version

import numpy as np
import psutil
import torch
from torch.nn import functional as F

from regbench import metrics, models, regularizers
from regbench.data.images import Images
from regbench.data.split import split
from regbench.engine import checkpoint, network_check, networks, precision, pruning, remembered, replay, sequential
from regbench.engine.checkpoint import Checkpoint, Keeper
from regbench.engine.events import Epoch, Event, Failed, Started, Trained
from regbench.engine.randomness import batches, noise
from regbench.engine.resident import Resident
from regbench.engine.step import Update
from regbench.errors import UserError, one_line
from regbench.sweep import BASELINE, NOTEBOOK, Recipe, Trial

# a crash loses a stack, so it is no larger than what fills the device
LARGEST = {"cuda": 128, "cpu": 8}
# steps before one is recorded: the first ones set up what must not be set up while recording
WARM_UP = 3
ENGINE = "stacked"
# of the free memory: the rest is for the results and for what torch keeps for itself
SHARE = 0.6


@dataclass(frozen=True)
class Part:
    """The trials of one stack, in the order of its rows; `open` are those whose results are wanted.

    The others were over before the stack was cut off, and are there again so that the rest is rounded as before.
    """

    trials: tuple[Trial, ...]
    open: frozenset[Trial]


class Training:
    """K trials in training: networks, update, and the images that each is trained on and held out, [K, n] positions.

    With `record`, a GPU's steps are recorded and replayed.
    """

    def __init__(self, trials: Sequence[Trial], data: Resident, record: bool = False) -> None:
        recipe = trials[0].recipe
        self.trials, self.recipe, self.data = trials, recipe, data
        self.stack = networks.build(trials, data.num_classes, data.device)
        self.stack.conv = networks.CONVOLUTIONS[fastest_convolution(recipe, len(trials), data.device)]
        self.update = Update([p.detach() for p in self.stack.parameters.values()], trials)
        if self.update.hides:
            self.stack.hide(self.update.hide)
        parts = [split(data.labels, recipe.train_size, recipe.val_size, trial.seed) for trial in trials]
        self.train_part, self.val_part = (data.index(np.stack(part)) for part in zip(*parts, strict=True))
        # of losses, penalties and correct answers, kept on the device: waiting for it at each step would idle a GPU
        self.sums = torch.zeros(3, len(trials), dtype=torch.float64, device=data.device)
        self.record, self.recording, self.steps = record, None, 0

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """All that a step changes, by name."""
        return {f"weights.{name}": w for name, w in self.stack.state.items()} | self.update.state

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Train on a batch [K, N, ...]; return cross-entropies [K], logits [K, N, C], penalties [K], before the update.

        Nothing is read back from the device.
        """
        logits = self.stack.logits(images, training=True)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
        added = self.update.added_loss(logits, labels)
        penalties = self.update(self.stack.gradients((losses if added is None else losses + added).sum()))
        return losses.detach(), logits.detach(), penalties if added is None else penalties + added.detach()

    def epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train for an epoch; return each trial's metrics. The device is waited for once, at the end."""
        start, count = time.perf_counter(), self.train_part.shape[1]
        size = self.recipe.batch_size
        orders = [np.concatenate(batches(count, size, trial.seed, epoch)) for trial in self.trials]
        order = self.train_part.gather(1, self.data.index(np.stack(orders)))
        self.sums.zero_()
        self.update.begin(epoch)
        for chosen in order.split(size, dim=1):
            self.advance(chosen)
        self.update.end(epoch)
        means = (self.sums / count).T.tolist()
        seconds = (time.perf_counter() - start) / len(self.trials)
        return [
            {
                "train/loss": loss,
                "train/accuracy": accuracy,
                "train/objective": loss + penalty,
                "time/epoch": seconds,
            }
            for loss, penalty, accuracy in means
        ]

    def advance(self, chosen: torch.Tensor) -> None:
        """Train on the images at `chosen` [K, N] and add to `sums`, by a recorded step where there is one."""
        if (
            self.record
            and self.recording is None
            and self.steps >= WARM_UP
            and chosen.shape[1] == self.recipe.batch_size
        ):
            self.recording = replay.Recording(self.batch, chosen)
        work = self.recording if self.recording is not None and self.recording.fits(chosen) else self.batch
        work(chosen)
        self.steps += 1

    def batch(self, chosen: torch.Tensor) -> None:
        """Train on the images at `chosen` [K, N] and add to `sums`."""
        labels = self.data.train_labels[chosen]
        losses, logits, penalties = self.step(self.data.train_images[chosen], labels)
        correct = (logits.argmax(2) == labels).sum(1)
        self.sums += torch.stack([losses.double() * chosen.shape[1], penalties.double() * chosen.shape[1], correct])

    def predict(self, images: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return logits [K, N, C] of the images at `positions` [K, N] in evaluation mode, a batch at a time."""
        with torch.no_grad():
            parts = positions.split(self.recipe.batch_size, dim=1)
            return torch.cat([self.stack.logits(images[part], training=False) for part in parts], dim=1)

    def result(
        self, row: int, logits: Sequence[torch.Tensor], pruned: dict[float, float], seconds: float, diverged: str = ""
    ) -> Trained:
        """Return a trial's result; `logits` [n, C] of its training and of the test images; see Trained for `pruned`."""
        return Trained(
            self.trials[row],
            weights=self.stack.weights(row),
            parameters=tuple(self.stack.parameters),
            train_logits=logits[0],
            train_labels=self.data.train_labels[self.train_part[row]],
            test_logits=logits[1],
            test_labels=self.data.test_labels,
            seconds=seconds / len(self.trials),
            diverged=diverged,
            pruned=pruned,
        )


def train(trials: Sequence[Trial], data: Resident, size: int | None = None, resume: bool = True) -> Iterator[Event]:
    """Train `trials` in stacks of up to `size` (None: as many as the free memory takes), with the events of `sequential`.

    A trial's time is its share of the stack's. A stack that does not fit, or raises, is trained again in two halves, so
    that in the end only the trial that is to blame is Failed; epochs that were told already are not told twice. Stacks
    that were cut off in an earlier process go on first, whatever else is in them, or with `resume` False begin again.
    """
    told: dict[Trial, int] = {}
    ended: set[Trial] = set()
    for recipe in dict.fromkeys(trial.recipe for trial in trials):
        members = [trial for trial in trials if trial.recipe == recipe]
        record = recordable(members, data)
        if not resume:
            checkpoint.forget(ENGINE, members, data.device)
        cut_off = _cut_off(members, data)
        resumed = {trial for part in cut_off for trial in part.open}
        left = [trial for trial in members if trial not in resumed]
        pending = deque([*cut_off, *_parts(left, size or capacity(members[0], data))])
        while pending:
            part = pending.popleft()
            try:
                for event in _train_stack(part, data, record):
                    if isinstance(event, Started) and event.trial in told:
                        continue
                    if isinstance(event, Epoch) and event.epoch <= told[event.trial]:
                        continue
                    told[event.trial] = event.epoch if isinstance(event, Epoch) else told.get(event.trial, 0)
                    if isinstance(event, Trained | Failed):
                        ended.add(event.trial)
                    yield event
                continue
            except Exception as error:  # a failure is a result of the sweep, not its end
                reason, full = f"{type(error).__name__}: {one_line(error)}", _out_of_memory(error)
            # outside the handler, whose traceback would keep the stack's tensors alive
            gc.collect()
            if data.device.type == "cuda":
                torch.cuda.empty_cache()
            left = [trial for trial in part.trials if trial in part.open - ended]
            if len(left) == 1 and len(part.trials) == 1:
                ended.add(left[0])
                yield Failed(left[0], reason)
            elif full:  # what waits would not fit either
                half = max(1, len(part.trials) // 2)
                waiting = [trial for other in pending for trial in other.trials if trial in other.open]
                pending = deque(_parts([*left, *waiting], half))
            else:
                half = max(1, -(-len(left) // 2))
                pending.extendleft(reversed(_parts(left, half)))


def capacity(trial: Trial, data: Resident) -> int:
    """Return how many trials like this one the device's free memory takes, at least 1.

    Counted are weights, momentum, gradients and a temporary of the same size, and twice what the forward pass keeps.
    """
    cpu = data.device.type == "cpu"
    free = psutil.virtual_memory().available if cpu else torch.cuda.mem_get_info(data.device)[0]
    return max(1, min(LARGEST[data.device.type], int(SHARE * free / bytes_per_trial(trial, data))))


def bytes_per_trial(trial: Trial, data: Resident) -> int:
    """Return the memory that a trial in a stack takes in training, measured on a forward pass."""
    stack = networks.build([trial], data.num_classes, data.device)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images = data.train_images[: trial.recipe.batch_size][None]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        stack.logits(images, training=True)
    return 2 * sum(kept.values()) + 4 * sum(w.nbytes for w in stack.state.values())


def check(recipe: Recipe, data: Images) -> None:
    """Raise UserError unless a user's own network can be stacked, and is trained there as it is alone.

    torch.func.vmap must be able to run it, without random numbers. What it does not see is found by some steps of both
    engines: memory that the network assigns to, tensors and numbers that are no parameters and differ between seeds.
    """
    if recipe.model == NOTEBOOK:
        return
    refused = f"engine='stacked' cannot train model={recipe.model!r}"
    reason = ""
    # in the first rounding plays no part; not every network takes it
    for kind in ("float64", "float32"):
        try:
            same = _trains_alike(replace(recipe, precision=kind, lr=min(recipe.lr, 0.01)), data)
        except Exception as error:  # running it runs the user's own code
            reason = network_check.reason(error)
            continue
        if same:
            return
        reason = (
            "alone it trains to other weights, by what is no parameter and no buffer, or by memory it assigns to one"
        )
        break
    raise UserError(f"{refused} ({reason}); take engine=sequential")


def _trains_alike(recipe: Recipe, data: Images) -> bool:
    """Tell whether two seeds train and predict alike together and alone, on two batches as they will come."""
    device, trials = torch.device("cpu"), [Trial(recipe, BASELINE, 0.0, seed) for seed in (0, 1)]
    resident = Resident(data, device)
    together = Training(trials, resident)
    alone = [sequential.Training(trial, resident.num_classes, device) for trial in trials]
    before = [network_check.state(training.model) for training in alone]
    count = recipe.train_size - recipe.val_size
    few = min(network_check.batch_sizes(count, recipe.batch_size))
    for training in (together, *alone):
        training.update.begin(1)
    for _ in range(2):
        chosen = together.train_part[:, :few]
        together.batch(chosen)
        for row, training in enumerate(alone):
            with noise(row, 1, device):
                training.step(resident.train_images[chosen[row]], resident.train_labels[chosen[row]])
    for row, training in enumerate(alone):
        found = {name: w[row].detach() for name, w in together.stack.state.items()}
        expected = network_check.state(training.model)
        if found.keys() != expected.keys() or not network_check.changed_alike(found, expected, before[row]):
            return False
    predicted = together.predict(resident.train_images, chosen)
    for row, training in enumerate(alone):
        if not network_check.close(predicted[row], training.predict(resident.train_images, chosen[row])):
            return False
        if models.saved(training.model).keys() != together.stack.weights(row).keys():
            return False
    return True


def seconds_per_step(trials: Sequence[Trial], data: Images, device: torch.device, budget: float = 0.5) -> float:
    """Return the seconds that a training step takes per trial of a stack, measured within about `budget` s."""
    size, recipe = trials[0].recipe.batch_size, trials[0].recipe
    resident = Resident(data, device)
    with precision.settings(recipe.precision, device):
        training = Training(trials, resident, recordable(trials, resident))
        training.update.begin(1)
        chosen = training.train_part[:, :size]
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < WARM_UP + 3 or time.perf_counter() - begin < budget:
            start = time.perf_counter()
            training.advance(chosen)
            training.sums.sum().item()  # waits for the device
            times.append(time.perf_counter() - start)
    return float(np.median(times[WARM_UP + 1 :])) / len(trials)


def recordable(trials: Sequence[Trial], data: Resident) -> bool:
    """Tell whether the steps of stacks of such trials, of one recipe, are to be recorded.

    They are on a GPU where that is seen to give the same weights, but not with a plug-in, which may do on the host what a
    recording would not do again, nor with random numbers, which it would repeat.
    """
    if data.device.type != "cuda":
        return False
    names = {trial.regularizer for trial in trials}
    if any(regularizers.is_plugin(name) or regularizers.find(name).has("hidden") for name in names):
        return False
    return faithful(trials[0].recipe, data)


def faithful(recipe: Recipe, data: Resident) -> bool:
    """Tell whether four steps of two trials of this recipe, two of them replayed, are what they are without."""
    recipe = replace(recipe, train_size=len(data.labels), val_size=0)
    size = min(recipe.batch_size, len(data.labels) // 4)

    def make():
        training = Training([Trial(recipe, name, lam, 0) for name, lam in (("none", 0.0), ("l1", 1e-5))], data)
        return training.batch, [*training.update.weights, *training.update.momenta, training.sums]

    positions = torch.arange(4 * size, device=data.device).expand(2, -1)
    return replay.faithful(make, list(positions.split(size, dim=1)))


def fastest_convolution(recipe: Recipe, count: int, device: torch.device) -> str:
    """Return the name of the convolution that this device computes fastest for a stack of `count`.

    It is measured on a GPU, once: a stack that goes on in a later process is rounded as before. On a CPU it is fixed,
    so that the same trial is rounded in the same way in every run.
    """
    return "grouped" if device.type == "cpu" else _measured(recipe.precision, recipe.batch_size, count, device)


@cache
def _measured(kind: str, batch: int, count: int, device: torch.device) -> str:
    circumstances = {
        "precision": kind,
        "batch_size": batch,
        "count": count,
        "device": torch.cuda.get_device_name(device),
        "torch": version("torch"),
        "cudnn": torch.backends.cudnn.version(),
    }
    known = remembered.recall("convolution", **circumstances)
    if isinstance(known, str) and known in networks.CONVOLUTIONS:
        return known
    seconds: dict[str, float] = {}
    for name, convolution in networks.CONVOLUTIONS.items():
        layers = [(3, 16, 32), (16, 32, 16)]
        try:
            seconds[name] = sum(_seconds(convolution, *layer, kind, batch, count, device) for layer in layers)
        except RuntimeError:  # too large for the device, or not there for this precision
            continue
    fastest = min(seconds, key=seconds.__getitem__, default="grouped")
    remembered.remember("convolution", fastest, **circumstances)
    return fastest


def _seconds(convolution, channels, out, side, kind, batch, count, device, repetitions: int = 5) -> float:
    dtype = precision.dtype(kind)
    x = torch.rand(count, batch, channels, side, side, device=device, dtype=dtype, requires_grad=channels > 3)
    weight = torch.rand(count, out, channels, 3, 3, device=device, dtype=dtype, requires_grad=True)
    bias = torch.rand(count, out, device=device, dtype=dtype)
    times = []
    for _ in range(repetitions):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        with precision.autocast(kind, device):
            y = convolution(x, weight, bias)
        torch.autograd.grad(y.sum(), [weight, x] if channels > 3 else [weight])
        torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _train_stack(part: Part, data: Resident, record: bool) -> Iterator[Event]:
    trials = part.trials
    for trial in trials:
        if trial in part.open:
            yield Started(trial)
    recipe, begin = trials[0].recipe, time.perf_counter()
    with precision.settings(recipe.precision, data.device):
        training = Training(trials, data, record)
    open_rows = {row for row, trial in enumerate(trials) if trial in part.open}
    keeper, history = Keeper(ENGINE, trials, data.device), tuple([] for _ in trials)
    try:
        done, kept = 0, keeper.read()
        if kept and checkpoint.restore(training.state, kept):
            done, history, begin = kept.epoch, kept.history, begin - kept.seconds
            for row in sorted(open_rows):
                for epoch, results in enumerate(history[row], 1):
                    yield Epoch(trials[row], epoch, results)
        del kept  # as large as the training
        for epoch in range(done + 1, recipe.epochs + 1):
            with precision.settings(recipe.precision, data.device):
                results = training.epoch(epoch)
                if recipe.val_size:
                    logits = training.predict(data.train_images, training.val_part)
                    labels = data.train_labels[training.val_part]
                    for row in open_rows:
                        results[row] |= metrics.prefixed("val", metrics.classification(logits[row], labels[row]))
            for group in training.update.failed:
                for row in open_rows & set(range(group.rows.start, group.rows.stop)):
                    open_rows.remove(row)
                    yield Failed(trials[row], group.reason)
            for row in sorted(open_rows):
                history[row].append(results[row])
                yield Epoch(trials[row], epoch, results[row])
            lost = [row for row in open_rows if not np.isfinite(results[row]["train/loss"])]
            reasons = {r: f"the training loss is {results[r]['train/loss']} in epoch {epoch}" for r in lost}
            yield from _results(training, lost, begin, reasons)
            open_rows -= set(lost)
            if not open_rows:
                break
            if epoch < recipe.epochs:
                ended = frozenset(trial for row, trial in enumerate(trials) if row not in open_rows)
                seconds = time.perf_counter() - begin
                keeper.offer(Checkpoint(trials, epoch, seconds, history, training.state, ended))
        yield from _results(training, sorted(open_rows), begin, {})
    except Exception:  # what comes after it is made of fewer trials
        keeper.remove()
        raise
    keeper.remove()


def _results(training: Training, rows: Sequence[int], begin: float, diverged: dict[int, str]) -> Iterator[Event]:
    """Give the results of `rows` one by one: only one trial's weights are copied at a time."""
    if not rows:
        return
    data = training.data
    with precision.settings(training.recipe.precision, data.device):
        train_logits = training.predict(data.train_images, training.train_part)
        test = torch.arange(len(data.test_images), device=data.device).expand(len(training.trials), -1)
        test_logits = training.predict(data.test_images, test)
        # those that diverge are told before the others have ended, and have no curve
        pruned = [{}] * len(training.trials) if diverged else pruning.curves(
            training.stack.parameters, test_logits, lambda: training.predict(data.test_images, test), data.test_labels
        )  # fmt: skip
    seconds = time.perf_counter() - begin
    for row in rows:
        yield training.result(row, (train_logits[row], test_logits[row]), pruned[row], seconds, diverged.get(row, ""))


def _parts(trials: Sequence[Trial], size: int) -> list[Part]:
    parts = []
    for first in range(0, len(trials), size):
        some = trials[first : first + size]
        # one regularizer's trials side by side, so that its hooks are called once for all of them
        ordered = tuple(sorted(some, key=lambda trial: (trial.regularizer, trial.scope)))
        parts.append(Part(ordered, frozenset(some)))
    return parts


def _cut_off(trials: Sequence[Trial], data: Resident) -> list[Part]:
    """Return the stacks with checkpoints in which some of these trials, all of one recipe, were cut off."""
    left, parts = set(trials), []
    for found in checkpoint.stacks(ENGINE, trials[0].recipe, data.device):
        wanted = left.intersection(found.trials) - found.ended
        if wanted:
            parts.append(Part(found.trials, frozenset(wanted)))
            left -= wanted
    return parts


def _out_of_memory(error: Exception) -> bool:
    # on a CPU torch raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
