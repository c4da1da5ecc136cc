"""What is checked before anything is trained. Every function raises UserError, with the way out, for what is wrong.

torch and MLflow are imported where a check needs them, since they take seconds.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from regbench import networks, regularizers
from regbench.click_fields import AUTO
from regbench.data.images import Images
from regbench.data.split import check as check_split
from regbench.engines.base import RAY
from regbench.errors import UserError
from regbench.tracking.store import Store
from regbench.trial import BASELINE, SCOPES, Recipe, Sweep


def find_device(name: str, backend: str) -> str:
    """Return cpu or cuda:N of this machine for auto, cpu, cuda or cuda:N; cpu where a Ray cluster trains."""
    if backend == RAY:
        if importlib.util.find_spec("ray") is None:
            raise UserError("backend='ray' needs Ray, which is not installed; get it with: pip install 'regbench[ray]'")
        return "cpu"
    if name == "cpu" or (name == AUTO and not _may_have_gpu()):
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == AUTO:
        return "cuda:0" if count else "cpu"
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        has = f"this machine has {count} CUDA GPU{'s' if count != 1 else ''} that torch {torch.__version__} can use"
        raise UserError(f"device={name!r} is not there: {has}; take device=auto or device=cpu")
    return f"cuda:{index}"


def _may_have_gpu() -> bool:
    """Return whether torch is to be asked for a GPU, which takes seconds: on Linux every driver has a device file."""
    files = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")  # NVIDIA, its Jetsons, Windows' WSL, AMD
    return sys.platform != "linux" or any(True for file in files for _ in Path("/dev").glob(file))


def check_classes(regs: Sequence[str], model: str, device: str) -> None:
    """Check the user's own regularizers and network, as far as that takes no data."""
    for reg in filter(regularizers.is_plugin, regs):
        from regbench.regularizers.contract import rules

        rules.require(reg, device)
    if model not in networks.PACKAGED:
        networks.find(model)


def check_sweep(sweep: Sweep, data: Images, device: str) -> None:
    """Check the sizes of a sweep's recipes, its optimizer, and that a network of the user's can be trained."""
    for recipe in sweep.recipes:
        _check_optimizer(recipe, tuple(dict.fromkeys(trial.regularizer for trial in sweep.trials)))
        check_split(data.train_labels, recipe.train_size, recipe.val_size, sweep.trials[0].seed)
        count = recipe.train_size - recipe.val_size
        if recipe.batch_size > count:
            raise UserError(
                f"batch_size={recipe.batch_size} is out of range: only {count} images are trained on; "
                "give a smaller batch_size or a larger train_size"
            )
        if recipe.warmup >= recipe.epochs:
            give = f"at most {recipe.epochs - 1}" if recipe.epochs > 1 else "0"
            raise UserError(
                f"warmup={recipe.warmup} is out of range: epochs={recipe.epochs}; give {give}, or more epochs"
            )
        if not _is_sound(recipe):
            import torch

            from regbench.training import dense, network_check

            network_check.check(recipe, data, torch.device(device))
            for reg in dict.fromkeys(trial.regularizer for trial in sweep.trials):
                if regularizers.find(reg).has("dense_input"):
                    dense.check(recipe, data, reg)
        _check_scopes(recipe, tuple(dict.fromkeys(t.scope for t in sweep.trials if t.regularizer != BASELINE)), data)


def _is_sound(recipe: Recipe) -> bool:
    """Return whether a recipe's network is known to be trainable: a packaged one, unless it is to train on one image."""
    count = recipe.train_size - recipe.val_size
    return recipe.model in networks.PACKAGED and 1 not in (recipe.batch_size, count % recipe.batch_size)


def _check_scopes(recipe: Recipe, scopes: Sequence[str], data: Images) -> None:
    """Check that each scope has something of the recipe's network, and that no two have the same of it."""
    if len(scopes) == 1 and scopes[0] in SCOPES:
        return
    from regbench.training import scope

    found: dict[tuple[str, ...], str] = {}
    for text in scopes:
        other = found.setdefault(scope.check(text, recipe.model, len(data.classes)), text)
        if other != text:
            raise UserError(
                f"scope={','.join(scopes)!r}: {other} and {text} are the same parameters of model={recipe.model!r}, which "
                "would be trained twice; leave one out"
            )


def _check_optimizer(recipe: Recipe, regs: Sequence[str]) -> None:
    """Check that a recipe's optimizer goes with its momentum and with each regularizer."""
    if recipe.optimizer == "nesterov" and not recipe.momentum:
        raise UserError(
            "momentum=0 is out of range: optimizer='nesterov' is a kind of momentum; give a number above 0, or take "
            "optimizer=sgd"
        )
    if recipe.optimizer != "adam":
        return
    for reg in regs:
        if not regularizers.find(reg).goes_with_adam():
            own = ", or write projection = True in its class if it does not go by tau"
            raise UserError(
                f"reg={reg!r} does not go with optimizer='adam': that has another step for each weight, and what is done "
                "after it to several weights at once has no closed form then; take l1_prox, or optimizer=sgd or nesterov"
                f"{own if regularizers.is_plugin(reg) else ''}"
            )
        if regularizers.is_plugin(reg):
            from regbench.regularizers.contract import rules

            rules.require(reg, rules=rules.WITH_ADAM)


def deliver_pending(store: Store, dry_run: bool, say: Callable[[str], None]) -> None:
    """Bring the results that an earlier start has left on disk to the store, before it is asked what is finished."""
    pending = store.outbox.pending()
    if pending and dry_run:
        say(f"{pending} result(s) of an earlier start wait on disk; a start without dry_run brings them first")
    elif pending:
        from regbench.tracking.delivery import flush

        store.check_files()
        with store.outbox.starting():
            flush(store, say)
