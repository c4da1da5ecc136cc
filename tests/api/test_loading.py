"""The trained network of a run predicts as it did when it was measured."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import regbench
from regbench import data
from regbench.api.preprocessing import preprocess
from regbench.data.image_decoding import decode
from regbench.measures.logits import classification
from regbench.tracking import schema
from regbench.tracking.store import Store
from regbench.training import precision
from tests.conftest import TINY

OPTIONS = {"dataset": "digits", "reg": "l2", "lam": 1e-3, "seeds": 0, "confirm": 0, "epochs": 1, "batch_size": 50}
OPTIONS |= {"train_size": 200}


@pytest.fixture(autouse=True)
def _database(database):
    """The tests' store."""


@pytest.fixture
def run_id() -> str:
    return regbench.sweep(**OPTIONS, model=TINY, baseline=False).trials["run_id"].item()


def weights(run_id: str) -> Path:
    return Path(Store().client.get_run(run_id).info.artifact_uri) / "weights" / "model.safetensors"


@pytest.mark.parametrize(
    ("model", "kind"),
    [(TINY, "float32"), (TINY, "float64"), ("tests.networks:Noisy", "float32"), ("tests.networks:Merges", "float32"),
     ("notebook", "float32")],
)  # fmt: skip
def test_it_has_the_accuracy_and_loss_that_were_logged(model, kind, elsewhere):
    found = regbench.sweep(**OPTIONS, model=model, precision=kind)
    digits = data.load("digits", Path(".data"))
    labels = torch.from_numpy(digits.test_labels)
    random = torch.get_rng_state()
    for trial in found.trials.to_dict("records"):
        net = regbench.load(trial["run_id"])
        assert not net.training and net.classes == digits.classes
        images = torch.cat([net.preprocess(image) for image in digits.test_images])
        assert images.dtype == precision.dtype(kind) and images.min() >= 0 and images.max() <= 1
        with torch.no_grad(), precision.settings(kind, torch.device("cpu")):
            logits = torch.cat([net(part) for part in images.split(OPTIONS["batch_size"])])
        logged = {name: trial[f"test/{name}"] for name in ("accuracy", "loss")}
        assert classification(logits, labels) == logged
    assert torch.equal(torch.get_rng_state(), random)


def test_a_picture_becomes_what_the_data_sets_images_become(tmp_path):
    random = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(random).save(path)
    expected = torch.from_numpy(np.array(decode(path).pixels))[None] / 255
    opened = Image.open(path)
    for picture in (path, str(path), opened, random, torch.from_numpy(random), random.transpose(2, 0, 1), random[None]):
        assert torch.equal(preprocess(picture), expected)
    assert opened.size == (50, 40)
    assert preprocess(random[:, :, 0]).shape == preprocess(random[:, :, :1]).shape == expected.shape
    grey = preprocess(random[:32, :32, 0])
    assert torch.equal(grey[0, 2], torch.from_numpy(random[:32, :32, 0]) / 255)
    assert preprocess(random, torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("nowhere.png", "nowhere.png cannot be read (No such file"),
        (np.zeros((32, 32)), "the picture is of type float64; give uint8, as by (255 * x).round(); accepted: a path"),
        (torch.rand(3, 32, 32), "the picture is of type torch.float32; give uint8"),
        (torch.rand(3, 32, 32).bfloat16(), "the picture is of type torch.bfloat16; give uint8"),
        (np.zeros((2, 3, 32, 32), np.uint8), "the picture has the shape [2, 3, 32, 32]; accepted: .*, one at a time"),
        (np.zeros((0, 5), np.uint8), "the picture has the shape [0, 5]"),
        (np.zeros((5, 6, 7), np.uint8), "the picture has the shape [5, 6, 7]"),
        (None, "the picture is of type object"),
    ],
)
def test_what_is_no_picture_is_told(picture, told):
    with pytest.raises(regbench.UserError) as error:
        preprocess(picture)
    for part in told.split(".*"):
        assert part in str(error.value)


def test_of_older_runs_classes_are_numbers(run_id):
    path = weights(run_id)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()[schema.CLASSES]) == [str(digit) for digit in range(10)]
    save_file({f"{name}": w for name, w in load_file(path).items()}, path)
    assert regbench.load(run_id).classes == tuple("0123456789")


def test_it_is_told_what_cannot_be_loaded(run_id, elsewhere):
    (parent,) = Store().search(schema.where(schema.KIND, "sweep"))
    client, path = Store().client, weights(run_id)
    with pytest.raises(
        regbench.UserError, match=r"'nonsense' is no run of the store sqlite:.*accepted: the id of a trial"
    ):
        regbench.load("nonsense")
    with pytest.raises(
        regbench.UserError, match="is of kind 'sweep'; accepted: the id of a trial's run, as in the column"
    ):
        regbench.load(parent.info.run_id)
    foreign = client.create_run(parent.info.experiment_id).info.run_id
    with pytest.raises(regbench.UserError, match="is not of regbench; accepted"):
        regbench.load(foreign)
    shutil.copy(path, "kept")
    path.write_bytes(b"nonsense")
    with pytest.raises(regbench.UserError, match=r"its weights in .* are damaged .*; train it with rerun=true"):
        regbench.load(run_id)
    save_file({"body.0.weight": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(regbench.UserError, match=r"model='tests.networks:Tiny' does not take the weights of this run"):
        regbench.load(run_id)
    path.unlink()
    with pytest.raises(
        regbench.UserError, match=r"has no weights: .*model.safetensors is not there; train it with rerun=true"
    ):
        regbench.load(run_id)
    client.set_tag(run_id, schema.KIND, "trial")
    client.update_run(run_id, "FAILED")
    with pytest.raises(regbench.UserError, match="is FAILED and has no trained network; take one that is FINISHED"):
        regbench.load(run_id)
    client.delete_run(run_id)
    with pytest.raises(regbench.UserError, match="is deleted in the store"):
        regbench.load(run_id)


def test_a_class_that_is_gone_is_told(elsewhere, monkeypatch):
    source = "from tests.networks import Tiny\n\n\nclass Mine(Tiny):\n    pass\n"
    (elsewhere / "passing_net.py").write_text(source)
    monkeypatch.syspath_prepend(elsewhere)
    run_id = regbench.sweep(**OPTIONS, model="passing_net:Mine", baseline=False).trials["run_id"].item()
    (elsewhere / "passing_net.py").write_text(source.replace("Mine", "Yours"))
    with pytest.raises(regbench.UserError, match=r"model='passing_net:Mine' cannot be imported .* its classes: Yours"):
        regbench.load(run_id)


def test_without_a_store_there_is_no_run(elsewhere):
    (elsewhere / "mlflow.db").unlink()
    with pytest.raises(regbench.UserError, match="is no run of the store"):
        regbench.load("0123")
    assert not list(elsewhere.iterdir())


def test_it_is_told_why_weights_are_missing_and_whose_names_are_taken(elsewhere, monkeypatch):
    left_out = regbench.sweep(**OPTIONS, model=TINY, baseline=False, weights="none").trials["run_id"].item()
    with pytest.raises(regbench.UserError, match=r"they were left out, .*; train it with rerun=true and weights=all"):
        regbench.load(left_out)
    source = (
        "from tests.networks import Tiny\n\n\nclass Named(Tiny):\n    def __init__(self, num_classes):\n"
        "        super().__init__(num_classes)\n        self.classes = num_classes\n"
    )
    (elsewhere / "naming_net.py").write_text(source)
    monkeypatch.syspath_prepend(elsewhere)
    run_id = regbench.sweep(**OPTIONS, model="naming_net:Named", baseline=False).trials["run_id"].item()
    with pytest.raises(regbench.UserError, match="has something else called classes or preprocess; rename that"):
        regbench.load(run_id)
    (elsewhere / "naming_net.py").write_text(source.replace("num_classes):", "num_classes, width):"))
    with pytest.raises(
        regbench.UserError, match=r"does not take the weights of this run .*: its class has changed since"
    ):
        regbench.load(run_id)
