"""Which files are taken as images, and what is said of the others."""

import os
from pathlib import Path

import pytest
from PIL import Image

from regbench import data
from regbench.data.folder_listing import Listing
from regbench.errors import UserError

NFC, NFD = "caf\u00e9", "cafe\u0301"


def folder_of(root: Path, *classes: str, parts: tuple[str, ...] = ("train", "test")) -> Path:
    for part in parts:
        for shade, name in enumerate(classes or ("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (32, 32), 100 * shade + 10 * (part == "test") + i).save(root / part / name / f"{i}.png")
    return root


def copy(image: Path, *places: Path) -> None:
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image.read_bytes())


def test_hidden_and_system_files_and_folders_are_no_images_and_no_classes(tmp_path):
    clean = data.load("folder", folder_of(tmp_path / "pets"))
    assert clean.notes == []
    train = tmp_path / "pets" / "train"
    copy(
        train / "cat" / "0.png",
        train / ".ipynb_checkpoints" / "0-checkpoint.png",
        train / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png",
        train / "cat" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg",
        train / "__MACOSX" / "cat" / "0.png",
        train / "cat" / ".hidden.PNG",
        train / "$RECYCLE.BIN" / "1.png",
    )
    for name in ("cat/._0.png", "cat/.DS_Store", "cat/Thumbs.db", ".DS_Store", "._cat"):
        (train / name).write_bytes(b"not an image")
    found = data.load("folder", tmp_path / "pets")
    assert (found.classes, found.fingerprint) == (clean.classes, clean.fingerprint)
    (note,) = found.notes
    assert note.startswith("skipped: 7 hidden or the system's: train/$RECYCLE.BIN, train/.ipynb_checkpoints, train/__M")
    assert note.endswith(" and 4 more")


def test_other_files_are_told_with_their_number_and_the_first_few(tmp_path):
    root = folder_of(tmp_path / "pets")
    image = root / "train" / "cat" / "0.png"
    copy(
        image,
        *(root / part / "dog" / f"{i}.heic" for part in ("train", "test") for i in range(2)),
        root / "train/x.png",
    )
    copy(image, root / "train" / "dog" / "without")
    found = data.load("folder", root)
    assert len(found.train_labels) == len(found.test_labels) == 4
    (note,) = found.notes
    assert note.startswith("skipped: 1 beside the classes' folders: train/x.png; 5 of other endings than .jpg, .jpeg")
    assert note.endswith(".webp: train/dog/0.heic, train/dog/1.heic, train/dog/without and 2 more")
    for path in (root / "train" / "dog").glob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match=r"no image for class dog \(skipped: .*train/dog/0\.heic.*\); put some there"):
        data.load("folder", root)


def test_each_folder_is_read_once_whatever_links_lead_to_it(tmp_path):
    elsewhere, root = folder_of(tmp_path / "elsewhere"), tmp_path / "pets"
    for part in ("train", "test"):
        (root / part).mkdir(parents=True)
        for name in ("cat", "dog"):
            (root / part / name).symlink_to(elsewhere / part / name)
            (elsewhere / part / name / name).symlink_to(elsewhere / part / name)  # `ln -s` made twice
            (elsewhere / part / name / "again").symlink_to(".")
        (root / part / "all").symlink_to(".")
        (elsewhere / part / "cat" / "up").symlink_to("..")
    (elsewhere / "train" / "cat" / "z").mkdir()
    copy(elsewhere / "train" / "cat" / "0.png", elsewhere / "train" / "cat" / "z" / "7.png")
    (elsewhere / "train" / "cat" / "a").symlink_to("z")  # comes before the folder itself in any order
    (elsewhere / "train" / "cat" / "linked.png").symlink_to("0.png")  # a file: another image by a name of its own
    found = Listing(root, "train")
    assert found.images == {
        "cat": [f"train/cat/{name}" for name in ("0.png", "1.png", "linked.png", "z/7.png")],
        "dog": [f"train/dog/{name}" for name in ("0.png", "1.png")],
    }
    assert found.skipped["links back to what they are in"] == ["train/all"]
    assert sorted(found.skipped["links to folders that are read already"]) == [
        *(f"train/cat/{name}" for name in ("a", "again", "cat", "up")),
        *(f"train/dog/{name}" for name in ("again", "dog")),
    ]
    assert len(data.load("folder", root).train_labels) == 6


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    """What it led to would be missing in silence: images, a folder of them, or a class."""
    root = folder_of(tmp_path / "pets")
    (root / "train" / "cat" / "more").symlink_to("/no/such/folder")
    with pytest.raises(
        UserError, match=r"train/cat/more cannot be read \(No such file or directory\): replace or remove"
    ):
        data.load("folder", root)
    (root / "train" / "bird").symlink_to("/no/such/folder")
    with pytest.raises(UserError, match=r"train/bird is a link that leads nowhere: repair or remove it"):
        data.load("folder", root)


def test_a_class_is_one_however_its_letters_are_written(tmp_path):
    composed = data.load("folder", folder_of(tmp_path / "a", NFC, "cafz"))
    mixed = folder_of(folder_of(tmp_path / "b", NFC, "cafz", parts=("train",)), NFD, "cafz", parts=("test",))
    assert data.load("folder", mixed).fingerprint == composed.fingerprint
    assert data.load("folder", folder_of(tmp_path / "c", NFD, "cafz")).fingerprint == composed.fingerprint
    (mixed / "train" / NFD).mkdir()
    with pytest.raises(
        UserError, match=f"has two folders for class {NFC}, whose names are written differently .*: put"
    ):
        data.load("folder", mixed)


def test_names_of_any_bytes_are_taken_and_told_on_one_line(tmp_path):
    root, odd = tmp_path / "p\n\udce9\u00e9", ("a\nb", "b\udcffc", " d", "D", "\u72ac")
    found = data.load("folder", folder_of(root, *odd))
    assert found.name == "p\\n\\xe9\u00e9"
    assert found.classes == (" d", "D", "a\nb", "b\\xffc", "\u72ac")
    assert found.train_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert data.load("folder", root).fingerprint == found.fingerprint  # from the cache
    os.rename(root / "test" / "b\udcffc", root / "test" / "\x1b[31m")
    with pytest.raises(UserError, match=r"classes; only train/ has 'b\\\\xffc', only test/ has '\\x1b\[31m'; add"):
        data.load("folder", root)


def test_one_class_alone_is_refused(tmp_path):
    root = folder_of(tmp_path / "pets", "all/cat", "all/dog")
    with pytest.raises(UserError, match=r"train has one class only, 'all', .*give two or more; .* one level up$"):
        data.load("folder", root)


def test_test_images_that_are_trained_on_are_told(tmp_path):
    root = folder_of(tmp_path / "pets")
    copy(root / "train" / "cat" / "1.png", root / "test" / "cat" / "copy.png")
    for _ in range(2):  # decoded, and from the cache
        (note,) = data.load("folder", root).notes
        assert note.startswith("1 of the 5 test images are training images too") and note.endswith(
            ": test/cat/copy.png"
        )


def test_a_part_that_is_called_differently_is_named(tmp_path):
    root = folder_of(tmp_path / "pets")
    (root / "test").rename(root / "valid")
    with pytest.raises(UserError, match=r"found no folder \S+/test \(there is train/, valid/\): give data_dir="):
        data.load("folder", root)
