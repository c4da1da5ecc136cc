"""A small residual network."""

import torch
from torch import nn
from torch.nn import functional as F


class ResNet8(nn.Module):
    """The CIFAR ResNet of depth 6n + 2 at n = 1: stages of 16, 32 and 64 filters, one block each; 75,290 parameters.

    Input float [N, 3, 32, 32] in [0, 1], output logits [N, num_classes]. Source: He et al., Deep Residual Learning for
    Image Recognition, CVPR 2016, section 4.2; its initialization is that of He et al., ICCV 2015.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(3, 16), nn.BatchNorm2d(16)
        self.stage1, self.stage2, self.stage3 = _Block(16, 16), _Block(16, 32), _Block(32, 64)
        self.fc = nn.Linear(64, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":  # its convolutions are a fifth faster with channels last
            x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(x.mean((2, 3)))


class _Block(nn.Module):
    """Two convolutions and a shortcut without parameters: with more filters, every other pixel and channels of zeros."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.stride, self.added = 1 if filters == channels else 2, filters - channels
        self.conv1, self.bn1 = _convolution(channels, filters, self.stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = _convolution(filters, filters), nn.BatchNorm2d(filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        """Return x [..., C, H, W] with the size of what is added to it."""
        return F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))


def _convolution(channels: int, filters: int, stride: int = 1) -> nn.Conv2d:
    # what is normalized needs no bias
    return nn.Conv2d(channels, filters, kernel_size=3, stride=stride, padding=1, bias=False)


NETWORK = ResNet8
