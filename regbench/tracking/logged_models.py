"""Networks as logged models of MLflow: `mlflow.pytorch.load_model` loads one without regbench and without pickle."""

import logging
import re
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from safetensors.torch import load_file
from torch import nn

from regbench.data.images import SIDE, Images
from regbench.errors import one_line
from regbench.tracking import schema, writer_process
from regbench.tracking.store import Store
from regbench.trial import Sweep, Trial, format_lam

Restored = Callable[[Trial, int, Mapping[str, torch.Tensor]], nn.Module]

TYPE = "image classifier"
INPUT = f"RGB images [N, 3, {SIDE}, {SIDE}], each pixel divided by 255, so that it is in [0, 1]"
OUTPUT = "logits [N, classes], in the order of the classes"
FOLDER = "model"
FORBIDDEN = r"[/:.%\"']"  # in a logged model's name
LONGEST_NAME, LONGEST_NOTE, LONGEST_REASON = 500, 5000, 200  # characters
# of what the exported network gives, to what the network gives
RELATIVE, ABSOLUTE = 1e-4, 1e-5


class NotLogged(Exception):
    """A network that cannot be logged; the message says why."""


def log(store: Store, sweep: Sweep, trial: Trial, run_id: str, data: Images, restored: Restored) -> str:
    """Return the id of the logged model of a finished trial, `run_id` its run; one is made if there is none.

    `restored` gives a trial's network for so many classes from its saved tensors, in evaluation mode on the CPU.

    Any failure leaves what the next call completes. Raises NotLogged, and what MLflow raises where the store fails.
    """
    client, experiment_id = store.client, store.create()
    model = find(client, experiment_id, run_id)
    if model is None or model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory(prefix="regbench-model-") as temporary:
            folder = Path(temporary)
            network, example = _network(client, run_id, trial, data, folder, restored)
            written = export(network, example, _metadata(trial, data), folder / FOLDER)
            model = model or _create(client, experiment_id, sweep, trial, run_id)
            # what it is loaded by says where it is from
            written.model_id, written.model_uuid, written.run_id = model.model_id, model.model_id, run_id
            written.artifact_path = model.artifact_location
            written.save(folder / FOLDER / "MLmodel")
            client.log_model_artifacts(model.model_id, str(folder / FOLDER))
        run = client.get_run(run_id)
        client.log_batch(run_id, metrics=_metrics(run, model.model_id))
        _add_output(client, run, model.model_id)
        client.set_logged_model_tags(model.model_id, {schema.NOTE: _note(model.model_id, data)})
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model.model_id


def find(client: MlflowClient, experiment_id: str, run_id: str) -> LoggedModel | None:
    """Return the logged model of a trial's run, the one that is ready if there are several; None if there is none."""
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    ours = [model for model in found if model.tags.get(schema.KIND) == schema.MODEL_KIND]
    return min(ours, key=lambda model: (model.status != LoggedModelStatus.READY, model.model_id), default=None)


def link(client: MlflowClient, sweep_run: str, sweep_id: str, model_id: str) -> None:
    """Have a sweep's own run list a logged model, and the model name the sweep."""
    client.set_logged_model_tags(model_id, {f"{schema.SWEEP}.{sweep_id}": sweep_run})
    _add_output(client, client.get_run(sweep_run), model_id)


def _add_output(client: MlflowClient, run: Run, model_id: str) -> None:
    # MLflow refuses one that the run has already
    if model_id not in {output.model_id for output in (run.outputs.model_outputs if run.outputs else ())}:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step=0)])


def _create(client: MlflowClient, experiment_id: str, sweep: Sweep, trial: Trial, run_id: str) -> LoggedModel:
    tags = {schema.KIND: schema.MODEL_KIND, schema.KEY: trial.key, schema.RECIPE: trial.recipe.id}
    tags[schema.USER] = writer_process.user()
    name = re.sub(FORBIDDEN, "_", sweep.cell(trial))[:LONGEST_NAME]
    return client.create_logged_model(experiment_id, name, run_id, tags, schema.trial_params(trial), TYPE)


def _metrics(run: Run, model_id: str) -> list[Metric]:
    """Return a run's last metrics as those of its model, on the run's data set, with their own times."""
    data = run.inputs.dataset_inputs[0].dataset if run.inputs and run.inputs.dataset_inputs else None
    name, digest = (data.name, data.digest) if data else (None, None)
    return [
        Metric(one.key, one.value, one.timestamp, one.step, model_id, name, digest, run.info.run_id)
        for one in run.to_proto().data.metrics
        if not np.isnan(one.value)  # of a logged model MLflow keeps it as 0
    ]


def _network(
    client: MlflowClient, run_id: str, trial: Trial, data: Images, folder: Path, restored: Restored
) -> tuple[nn.Module, torch.Tensor]:
    """Return a trial's network with the weights of its run, in evaluation mode on the CPU, and two images for it."""
    name = f"{schema.WEIGHTS}/{schema.MODEL}"
    if name not in {file.path for file in client.list_artifacts(run_id, schema.WEIGHTS)}:
        raise NotLogged(f"run {run_id} has no {name}")
    path = client.download_artifacts(run_id, name, str(folder))
    dtype = torch.float64 if trial.recipe.precision == "float64" else torch.float32
    try:
        network = restored(trial, len(data.classes), load_file(path))
    except Exception as error:  # a damaged file, or what the user's own code raises
        raise NotLogged(f"its weights cannot be loaded back ({_reason(error)})") from error
    return network, torch.from_numpy(data.test_images[:2]).to(dtype) / 255


def export(network: nn.Module, example: torch.Tensor, metadata: dict[str, object], folder: Path) -> Model:
    """Write a network into `folder` in MLflow's format, a graph of torch.export and the weights, and return its MLmodel.

    `example` is a batch [N, 3, 32, 32] of two images or more; the graph takes any number. The logits that the graph
    gives for it are compared with the network's. Raises NotLogged if there is no such graph.
    """
    flavor, written = _flavor(), Model()
    try:
        with torch.no_grad():
            expected = network(example)
        number = np.dtype(str(example.dtype).removeprefix("torch."))
        signature = ModelSignature(
            Schema([TensorSpec(number, (-1, *example.shape[1:]))]),
            Schema([TensorSpec(number, (-1, expected.shape[1]))]),
        )
        flavor.save_model(
            network,
            folder,
            mlflow_model=written,
            signature=signature,
            input_example=example.numpy(),
            serialization_format="pt2",
            # as given: MLflow would load the model in another process to find them out
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", "torch")],
            metadata=metadata,
        )
        with torch.no_grad():
            found = flavor.load_model(str(folder))(example)
    except Exception as error:  # torch.export raises whatever it runs into in the user's code
        raise NotLogged(f"torch.export cannot export it ({_reason(error)})") from error
    if not torch.allclose(found, expected, RELATIVE, ABSOLUTE * float(expected.abs().max())):
        raise NotLogged("what torch.export makes of it gives other logits than the network")
    return written


def _flavor() -> ModuleType:
    """Return mlflow.pytorch, whose import has the root logger drop warnings, everybody's: that is put back."""
    level, handlers = logging.root.level, list(logging.root.handlers)
    import mlflow.pytorch

    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers
    return mlflow.pytorch


def _metadata(trial: Trial, data: Images) -> dict[str, object]:
    return {
        "classes": list(data.classes),
        "input": INPUT,
        "output": OUTPUT,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "network": trial.recipe.model,
        "regularizer": trial.regularizer,
        "lam": format_lam(trial.lam),
        "seed": trial.seed,
        "trained_with_precision": trial.recipe.precision,
    }


def _note(model_id: str, data: Images) -> str:
    """Return a logged model's description in Markdown."""
    classes = ", ".join(data.classes)
    return (
        f'`mlflow.pytorch.load_model("models:/{model_id}")` takes {INPUT}, and returns {OUTPUT}. '
        f"The classes, also in the metadata of `mlflow.models.get_model_info`: {classes}"
    )[:LONGEST_NOTE]


def _reason(error: BaseException) -> str:
    text = f"{type(error).__name__}: {one_line(error)}"
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
