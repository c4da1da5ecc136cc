"""A trained network again, from the tensors that its run has saved."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regbench import networks
from regbench.training import precision
from regbench.training.randomness import initial_model


def restored(model: str, num_classes: int, seed: int, kind: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the network of a trial, by its recipe's `model`, seed and precision, on the CPU in evaluation mode.

    Raises what the user's own code raises, and what torch does where the network does not take these tensors.
    """
    network = initial_model(model, num_classes, seed)  # tensors that are not saved are those of the seed
    networks.move(network, torch.device("cpu"), precision.dtype(kind))
    networks.set_mode(network, False)  # first: some hold other weights in evaluation, in which these were saved
    # what a module saves by get_extra_state is no tensor, and not among them
    own = {key: value for key, value in network.state_dict().items() if not isinstance(value, Tensor)}
    network.load_state_dict(own | dict(tensors))
    return network
