import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from regbench import data
from regbench.data import cache
from regbench.data.folder_listing import Listing
from regbench.errors import UserError

CLASSES = ("cat", "dog")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six training and four test pictures of two classes, of several sizes, modes and formats."""
    root, random = tmp_path / "pets", np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for name in CLASSES:
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{i}.png")
    Image.new("RGB", (64, 20), (255, 0, 0)).save(root / "train" / "cat" / "0.png")
    Image.new("L", (8, 8), 77).save(root / "train" / "cat" / "1.jpg", quality=95)
    (root / "train" / "cat" / "1.png").unlink()
    (root / "train" / "cat" / "notes.txt").write_text("not an image, not looked at")
    return root


def load(root: Path):
    return data.load("folder", root)


def test_any_size_and_mode_becomes_rgb_32(pictures):
    found = load(pictures)
    assert found.name == "pets"
    assert found.classes == CLASSES
    assert found.train_images.shape == (6, 3, 32, 32)
    assert found.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.test_labels.tolist() == [0, 0, 1, 1]
    assert (found.train_images[0] == np.array([255, 0, 0], dtype=np.uint8)[:, None, None]).all()
    assert np.abs(found.train_images[1].astype(int) - 77).max() <= 2
    expected = np.asarray(Image.open(pictures / "train" / "cat" / "2.png")).transpose(2, 0, 1)
    assert np.array_equal(found.train_images[2], expected)


def test_the_second_time_nothing_is_decoded(pictures, monkeypatch):
    first = load(pictures)
    monkeypatch.setattr("regbench.data.sets.folder._decode", lambda *_: pytest.fail("decoded again"))
    assert load(pictures).fingerprint == first.fingerprint
    moved = pictures.rename(pictures.parent / "animals")
    assert load(moved).fingerprint == first.fingerprint


def test_a_changed_file_is_seen(pictures):
    first = load(pictures)
    shutil.copy(pictures / "train" / "dog" / "0.png", pictures / "train" / "dog" / "1.png")
    second = load(pictures)
    assert second.fingerprint != first.fingerprint
    assert np.array_equal(second.train_images[3], second.train_images[4])


@pytest.mark.parametrize("damage", [b"rubbish", b""])
def test_a_damaged_cache_is_built_again(pictures, damage, caplog):
    first = load(pictures)
    (stored,) = cache.path_of("x").parent.glob("*.safetensors")
    whole = stored.read_bytes()
    stored.write_bytes(damage)
    assert load(pictures).fingerprint == first.fingerprint
    assert "damaged" in caplog.text
    assert stored.read_bytes() == whole


def test_an_altered_cache_is_noticed(pictures, caplog):
    first = load(pictures)
    (stored,) = cache.path_of("x").parent.glob("*.safetensors")
    content = bytearray(stored.read_bytes())
    content[-5] ^= 1
    stored.write_bytes(content)
    assert load(pictures).fingerprint == first.fingerprint
    assert "checksum" in caplog.text


def test_any_flipped_byte_of_a_cache_is_noticed(pictures):
    """In its header, labels or pixels: read as it was, or built again; never taken as it is."""
    first = load(pictures)
    (stored,) = cache.path_of("x").parent.glob("*.safetensors")
    whole = stored.read_bytes()
    for place in range(0, len(whole), 997):
        content = bytearray(whole)
        content[place] ^= 1
        stored.write_bytes(content)
        assert load(pictures).fingerprint == first.fingerprint, place
    for length in (7, 8, 100, len(whole) // 2, len(whole) - 1):
        stored.write_bytes(whole[:length])
        assert load(pictures).fingerprint == first.fingerprint, length
        assert stored.read_bytes() == whole


def test_a_cache_cut_off_while_it_was_written_is_not_looked_at(pictures):
    """A process that was killed leaves its temporary file, whose name no cache has."""
    first = load(pictures)
    (stored,) = cache.path_of("x").parent.glob("*.safetensors")
    half = stored.with_name(f".{stored.name}.abc123")
    half.write_bytes(stored.read_bytes()[:1000])
    stored.unlink()
    assert load(pictures).fingerprint == first.fingerprint
    assert stored.exists()


def test_a_cache_that_cannot_be_written_is_done_without(pictures, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "file" / "below"))
    assert len(load(pictures).train_labels) == 6
    assert "not cached" in caplog.text


def remove_test(root):
    shutil.rmtree(root / "test")


def remove_class(root):
    shutil.rmtree(root / "test" / "dog")


def empty_class(root):
    for file in (root / "train" / "dog").iterdir():
        file.unlink()


def rubbish(root):
    (root / "train" / "dog" / "1.png").write_bytes(b"rubbish")


def cut_short(root):
    file = root / "test" / "dog" / "1.png"
    file.write_bytes(file.read_bytes()[:900])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_test, "found no folder .*test"),
        (remove_class, "must have the same classes; only train/ has 'dog'; add"),
        (empty_class, "dog"),
        (rubbish, r"train/dog/1\.png is not a readable image .*replace or remove"),
        (cut_short, r"test/dog/1\.png is not a readable image"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_cached(pictures, damage, message):
    damage(pictures)
    with pytest.raises(UserError, match=message):
        load(pictures)
    assert not cache.path_of("x").parent.exists()


def test_classes_and_files_are_found_as_torchvision_finds_them(pictures):
    deep = pictures / "train" / "cat" / "a" / "B"
    deep.mkdir(parents=True)
    for name in ("z.PNG", "10.png", "9.png", "x.gif"):
        shutil.copy(pictures / "train" / "dog" / "0.png", deep / name)
    (deep.parent / "linked").symlink_to(pictures / "test" / "dog")
    theirs = ImageFolder(pictures / "train")
    ours = Listing(pictures, "train").images
    assert list(ours) == theirs.classes
    files = [(pictures / file, label) for label, found in enumerate(ours.values()) for file in found]
    assert files == [(Path(file), label) for file, label in theirs.samples]


@pytest.mark.parametrize("dataset", ["digits", "folder"])
def test_what_is_cached_is_read_without_the_slow_imports(dataset, pictures, environment):
    first = data.load(dataset, pictures)
    code = (
        "import sys; from pathlib import Path; from regbench import data;"
        f"print(data.load({dataset!r}, Path({str(pictures)!r})).fingerprint);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'sklearn')))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, first.fingerprint)
