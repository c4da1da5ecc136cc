"""Whether a user's own network can be stacked, and is trained there as it is alone."""

from dataclasses import replace

import torch

from regbench import networks
from regbench.data.images import Images
from regbench.errors import UserError
from regbench.training import network_check, single, stack
from regbench.training.device_data import DeviceData
from regbench.training.randomness import noise
from regbench.trial import BASELINE, Recipe, Trial


def check(recipe: Recipe, data: Images) -> None:
    """Raise UserError unless a user's own network can be stacked, and is trained there as it is alone.

    torch.func.vmap must be able to run it, without random numbers. What it does not see is found by some steps of both
    engines: memory that the network assigns to, tensors and numbers that are not parameters and differ between seeds.
    """
    if recipe.model in networks.PACKAGED:
        return
    refused = f"engine='stacked' cannot train model={recipe.model!r}"
    reason = ""
    # in the first rounding plays no part; not every network takes it
    for kind in ("float64", "float32"):
        try:
            # by SGD: Adam makes whole steps of gradients that are only rounding
            same = _trains_alike(replace(recipe, precision=kind, lr=min(recipe.lr, 0.01), optimizer="sgd"), data)
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
    """Return whether two seeds train and predict alike together and alone, on two batches as they will come."""
    device, trials = torch.device("cpu"), [Trial(recipe, BASELINE, 0.0, seed) for seed in (0, 1)]
    device_data = DeviceData(data, device)
    together = stack.Training(trials, device_data)
    alone = [single.Training(trial, device_data.num_classes, device) for trial in trials]
    before = [network_check.state(training.model) for training in alone]
    count = recipe.train_size - recipe.val_size
    few = min(network_check.batch_sizes(count, recipe.batch_size))
    for training in (together, *alone):
        training.optimizer.begin_epoch(1)
    for _ in range(2):
        chosen = together.train_part[:, :few]
        together.batch(chosen)
        for row, training in enumerate(alone):
            with noise(row, 1, device):
                training.step(device_data.train_images[chosen[row]], device_data.train_labels[chosen[row]])
    for row, training in enumerate(alone):
        found = {name: w[row].detach() for name, w in together.stack.state.items()}
        expected = network_check.state(training.model)
        if found.keys() != expected.keys() or not network_check.changed_alike(found, expected, before[row]):
            return False
    predicted = together.predict(device_data.train_images, chosen)
    for row, training in enumerate(alone):
        if not network_check.close(predicted[row], training.predict(device_data.train_images, chosen[row])):
            return False
        if networks.saved(training.model).keys() != together.stack.weights(row).keys():
            return False
    return True
