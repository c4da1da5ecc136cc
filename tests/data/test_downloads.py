"""cifar10 and fashion_mnist through torchvision's own download, from a small archive served on loopback."""

import gzip
import hashlib
import http.server
import pickle
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, FashionMNIST

from regbench import data
from regbench.data import fashion_mnist
from regbench.errors import UserError


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class CutShort(Quiet):
    """Promises the whole file and hangs up half-way."""

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        outputfile.write(content[: len(content) // 2])


@contextmanager
def served(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> Path:
    """A folder with a CIFAR-10 archive of 60 images; torchvision's checksums are set to it."""
    random, source = np.random.default_rng(0), tmp_path / "source"
    base = source / CIFAR10.base_folder
    base.mkdir(parents=True)
    sums = {}
    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
        pixels = random.integers(0, 256, (10, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": pixels, "labels": list(range(10))})
        (base / name).write_bytes(content)
        sums[name] = md5(content)
    meta = pickle.dumps({"label_names": [f"thing{i}" for i in range(10)]})
    (base / CIFAR10.meta["filename"]).write_bytes(meta)
    served_folder = tmp_path / "served"
    served_folder.mkdir()
    with tarfile.open(served_folder / CIFAR10.filename, "w:gz") as archive:
        archive.add(base, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, sums[name]] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(meta)})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5((served_folder / CIFAR10.filename).read_bytes()))
    return served_folder


def test_cifar10_is_downloaded_once_and_read(cifar, tmp_path, monkeypatch):
    place = tmp_path / "new" / "data"
    with served(cifar) as url:
        monkeypatch.setattr(CIFAR10, "url", url + CIFAR10.filename)
        first = data.load("cifar10", place)
    assert first.train_images.shape == (50, 3, 32, 32)
    assert first.classes[3] == "thing3"
    batch = pickle.loads((place / CIFAR10.base_folder / "data_batch_2").read_bytes())
    assert np.array_equal(first.train_images[10], batch["data"][0].reshape(3, 32, 32))
    # the server is gone: what is there is enough, with the archive alone too
    assert data.load("cifar10", place).fingerprint == first.fingerprint
    for file in (place / CIFAR10.base_folder).iterdir():
        file.unlink()
    assert data.load("cifar10", place).fingerprint == first.fingerprint
    assert sorted(path.name for path in place.iterdir()) == sorted([CIFAR10.base_folder, CIFAR10.filename])


@pytest.mark.parametrize("handler", [CutShort, None])
def test_a_cifar10_download_that_fails_leaves_nothing(cifar, tmp_path, monkeypatch, handler):
    place = tmp_path / "new" / "data"
    with served(cifar, handler or Quiet) as url:
        monkeypatch.setattr(CIFAR10, "url", url + (CIFAR10.filename if handler else "not-there.tar.gz"))
        with pytest.raises(UserError, match=r"cifar10: looked for .* download from .* failed .* dataset=digits"):
            data.load("cifar10", place)
    assert not place.parent.exists()


def test_a_truncated_cifar10_archive_is_named(cifar, tmp_path):
    archive = tmp_path / CIFAR10.filename
    archive.write_bytes((cifar / CIFAR10.filename).read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{CIFAR10.filename} is damaged or cut short .*delete it"):
        data.load("cifar10", tmp_path)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch) -> Path:
    """A folder with the four gzipped IDX files of a Fashion-MNIST of 30 images."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "not-installed")
    random, place = np.random.default_rng(0), tmp_path / "idx"
    place.mkdir()
    for part, count in (("train", 20), ("t10k", 10)):
        pictures = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (place / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
        (place / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return place


def test_idx_files_are_read_where_they_are(fashion):
    found = data.load("fashion_mnist", fashion)
    assert found.train_images.shape == (20, 3, 32, 32)
    raw = np.frombuffer(gzip.decompress((fashion / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    assert np.array_equal(found.train_images[:, 1, 2:-2, 2:-2], raw.reshape(20, 28, 28))
    assert (found.train_images[:, :, :2] == 0).all()
    assert sorted(path.suffix for path in fashion.iterdir()) == [".gz"] * 4


def test_fashion_mnist_is_downloaded(fashion, tmp_path, monkeypatch):
    sums = [(name, md5((fashion / name).read_bytes())) for name, _ in FashionMNIST.resources]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    place = tmp_path / "new"
    with served(fashion) as url:
        monkeypatch.setattr(FashionMNIST, "mirrors", [url])
        first = data.load("fashion_mnist", place)
    assert first.fingerprint == data.load("fashion_mnist", fashion).fingerprint
    assert data.load("fashion_mnist", place).fingerprint == first.fingerprint


def test_no_fashion_mnist_names_all_places(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "not-installed")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError, match=r"not-installed.* dataset-fashion-mnist"):
        data.load("fashion_mnist", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_truncated_idx_file_is_named(fashion):
    file = fashion / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\.gz is damaged or cut short"):
        data.load("fashion_mnist", fashion)


def test_files_that_do_not_belong_together_are_named(fashion):
    (fashion / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    with pytest.raises(UserError, match="do not belong together"):
        data.load("fashion_mnist", fashion)
