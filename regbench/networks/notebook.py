"""The lecture notebook's CNN."""

import torch
from torch import nn
from torch.nn import functional as F


class NotebookCNN(nn.Module):
    """The lecture notebook's network: two convolutions, three dense layers, no normalization; 3,163,114 parameters.

    Input float [N, 3, 32, 32] in [0, 1], output logits [N, num_classes]. Pooling goes before bias and ReLU, which is
    the same function, gradient included, at a quarter of the work.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.l1 = nn.Linear(32 * 8 * 8, 1024)
        self.l2 = nn.Linear(1024, 1024)
        self.l3 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":  # its convolutions and its pooling are a quarter faster with channels last
            x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(_convolve_and_pool(x, self.conv1))
        x = F.relu(_convolve_and_pool(x, self.conv2))
        x = F.relu(self.l1(x.flatten(1)))
        x = F.relu(self.l2(x))
        return self.l3(x)


def _convolve_and_pool(x: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
    return F.max_pool2d(F.conv2d(x, layer.weight, padding=1), 2) + layer.bias[:, None, None]


NETWORK = NotebookCNN
