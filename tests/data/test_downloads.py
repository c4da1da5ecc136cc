"""cifar10 and fashion_mnist through torchvision's own download, from a small archive served on loopback."""

import gzip
import hashlib
import http.server
import io
import pickle
import shutil
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
from regbench.data.sets import cifar10, fashion_mnist
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


class Trap:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return Path.touch, (self.place,)


def malicious(folder: Path, trap: Path) -> None:
    """Write an archive that has all names of CIFAR-10, pickles that run code, and members that leave the folder."""
    content = pickle.dumps(Trap(trap))
    names = [f"{CIFAR10.base_folder}/{name}" for name in cifar10.FILES]
    with tarfile.open(folder / CIFAR10.filename, "w:gz") as archive:
        for name in (*names, "../escaped", str(trap)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("how", ["served", "in place", "unpacked"])
def test_a_cifar10_that_is_not_the_known_one_is_neither_unpacked_nor_unpickled(cifar, tmp_path, monkeypatch, how):
    trap, place, other = tmp_path / "trap", tmp_path / "a" / "place", tmp_path / "other"
    place.mkdir(parents=True)
    other.mkdir()
    malicious(other, trap)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/")
    if how == "in place":
        shutil.copy(other / CIFAR10.filename, place)
    elif how == "unpacked":
        shutil.unpack_archive(cifar / CIFAR10.filename, place, filter="data")
        (place / CIFAR10.base_folder / "data_batch_3").write_bytes(pickle.dumps(Trap(trap)))
    before = sorted(tmp_path.rglob("*"))
    with served(other) as url:
        if how == "served":
            monkeypatch.setattr(CIFAR10, "url", url + CIFAR10.filename)
        told = (
            "found data_batch_3 damaged and no archive" if how == "unpacked" else "damaged|found neither, and .* failed"
        )
        with pytest.raises(UserError, match=told):
            data.load("cifar10", place)
    assert not trap.exists()
    assert sorted(tmp_path.rglob("*")) == before
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()  # it would have run


def test_damaged_batches_are_unpacked_again_and_a_damaged_list_of_names_is_named(cifar, tmp_path):
    shutil.copy(cifar / CIFAR10.filename, tmp_path)
    first, place = data.load("cifar10", tmp_path), tmp_path / CIFAR10.base_folder
    flip(place / "data_batch_3")
    assert data.load("cifar10", tmp_path).fingerprint == first.fingerprint
    flip(place / "batches.meta")
    with pytest.raises(UserError, match=r"batches\.meta is damaged or cut short: delete .* and run again"):
        data.load("cifar10", tmp_path)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


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


def test_an_altered_idx_file_is_seen(fashion):
    """gzip's own checksum tells of a changed archive; a plain file has none, and its change is another fingerprint."""
    first, file = data.load("fashion_mnist", fashion), fashion / "train-images-idx3-ubyte.gz"
    whole = gzip.decompress(file.read_bytes())
    flip(file)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is damaged or cut short"):
        data.load("fashion_mnist", fashion)
    file.unlink()
    plain = file.with_suffix("")
    plain.write_bytes(whole)
    assert data.load("fashion_mnist", fashion).fingerprint == first.fingerprint
    flip(plain)
    assert data.load("fashion_mnist", fashion).fingerprint != first.fingerprint


def test_files_that_do_not_belong_together_are_named(fashion):
    (fashion / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    with pytest.raises(UserError, match="do not belong together"):
        data.load("fashion_mnist", fashion)
