"""The lecture notebook's CNN with batch normalization."""

import torch
from torch import nn
from torch.nn import functional as F


class NotebookBN(nn.Module):
    """`notebook` with BatchNorm after each convolution and each hidden dense layer; 3,165,210 parameters.

    Input float [N, 3, 32, 32] in [0, 1], output logits [N, num_classes]. What is normalized has no bias, which the mean
    would take out again. Pooling goes before ReLU, which is the same function. A batch of one image cannot be trained
    on: a hidden neuron would have one number to be normalized by. Source: Ioffe and Szegedy, Batch Normalization, ICML
    2015.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.l1 = nn.Linear(32 * 8 * 8, 1024, bias=False)
        self.bn3 = nn.BatchNorm1d(1024)
        self.l2 = nn.Linear(1024, 1024, bias=False)
        self.bn4 = nn.BatchNorm1d(1024)
        self.l3 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":  # as in `notebook`
            x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 2))
        x = F.relu(F.max_pool2d(self.bn2(self.conv2(x)), 2))
        x = F.relu(self.bn3(self.l1(x.flatten(1))))
        x = F.relu(self.bn4(self.l2(x)))
        return self.l3(x)


NETWORK = NotebookBN
