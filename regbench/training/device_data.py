"""The data set on the device: what trials take their batches from, without a data loader."""

import numpy as np
import torch

from regbench.data.images import Images
from regbench.errors import UserError, one_line


class DeviceData:
    """The data set as tensors on the device: images uint8 [N, 3, 32, 32], labels int64 [N].

    Raises UserError if the device has no room for it.
    """

    def __init__(self, data: Images, device: torch.device) -> None:
        self.device = device
        self.num_classes = len(data.classes)
        self.labels = data.train_labels
        arrays = (data.train_images, data.train_labels, data.test_images, data.test_labels)
        try:
            self.train_images, self.train_labels, self.test_images, self.test_labels = (
                torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays
            )
        except RuntimeError as error:
            raise UserError(
                f"device={str(device)!r} cannot take the data ({one_line(error)}); free it or take device=cpu"
            ) from error

    def index(self, positions: np.ndarray) -> torch.Tensor:
        """Return positions on the device."""
        return torch.from_numpy(positions).to(self.device, non_blocking=True)


def pixels(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return uint8 images as numbers in [0, 1]."""
    return images.to(dtype).div_(255)
