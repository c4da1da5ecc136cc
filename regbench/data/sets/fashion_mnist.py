"""Fashion-MNIST: torchvision's download, or IDX files that are already there."""

import gzip
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np

from regbench.data import cache
from regbench.data.images import Images, from_grey
from regbench.errors import UserError, one_line
from regbench.files import folder

# where Debian's package dataset-fashion-mnist puts the IDX files
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PARTS = ("train", "t10k")
NAMES = tuple(f"{part}-{kind}-ubyte" for part in PARTS for kind in ("images-idx3", "labels-idx1"))


def load(data_dir: Path) -> Images:
    """Return Fashion-MNIST, its 28x28 images padded by two black pixels on each side to 32x32.

    Looks for the four IDX files, plain or gzipped, in `data_dir`, in torchvision's layout below it, and where Debian's
    package puts them; else downloads them to `data_dir` (31 MB, checked by md5).
    Raises UserError if there is no data or a file is damaged. Source: Xiao et al., arXiv 1708.07747.
    """
    folders = (data_dir, data_dir / "FashionMNIST" / "raw", DEBIAN)
    found = next((folder for folder in folders if all(_find(folder, name) for name in NAMES)), None)
    if found is None:
        _download(data_dir, folders)
        found = folders[1]
    files = [_find(found, name).name for name in NAMES]
    try:
        key = cache.content_key("fashion_mnist", found, files)
    except OSError as error:
        raise UserError(f"fashion_mnist: {error.filename} cannot be read ({one_line(error)})") from error
    images = cache.read(key, "fashion_mnist")
    if images is None:
        from torchvision.datasets import FashionMNIST

        train, test = (_read_part(found, part) for part in PARTS)
        images = Images("fashion_mnist", tuple(FashionMNIST.classes), *train, *test)
        cache.write(key, images)
    return images


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _download(data_dir: Path, folders: tuple[Path, ...]) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        with folder(data_dir), tempfile.TemporaryDirectory(dir=data_dir) as partial:
            FashionMNIST(partial, download=True)
            shutil.copytree(partial, data_dir, dirs_exist_ok=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"fashion_mnist: looked for {NAMES[0]}[.gz] and its three companions in "
            f"{', '.join(str(folder) for folder in folders)}, and the download failed ({one_line(error)}): put the files "
            f"into {data_dir}, install Debian's package dataset-fashion-mnist, or take dataset=digits"
        ) from error


def _read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images = _read_idx(_find(folder, f"{part}-images-idx3-ubyte"), 3)
    labels = _read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels) or images.shape[1:] != (28, 28) or labels.max(initial=0) > 9:
        raise UserError(
            f"fashion_mnist: the {part} files in {folder} do not belong together (images {images.shape}, labels "
            f"{labels.shape}, largest label {labels.max(initial=0)}): put the original files there"
        )
    return from_grey(np.pad(images, ((0, 0), (2, 2), (2, 2)))), labels.astype(np.int64)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    try:
        with tempfile.TemporaryDirectory() as scratch:
            plain = path
            if path.suffix == ".gz":
                plain = Path(scratch) / path.stem
                plain.write_bytes(gzip.decompress(path.read_bytes()))
            array = read_sn3_pascalvincent_tensor(str(plain)).numpy()
        if array.ndim != dimensions or array.dtype != np.uint8:
            raise ValueError(f"{array.ndim} dimensions of {array.dtype}, expected {dimensions} of uint8")
    except (OSError, EOFError, zlib.error, ValueError, RuntimeError, AssertionError, LookupError) as error:
        raise UserError(
            f"fashion_mnist: {path} is damaged or cut short ({one_line(error)}): delete it and run again"
        ) from error
    return array
