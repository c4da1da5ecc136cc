"""The trained network of a run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from regbench import edited
from regbench.api import keywords
from regbench.errors import UserError, one_line
from regbench.tracking import schema
from regbench.tracking.store import Store

if TYPE_CHECKING:  # they take seconds to import
    from mlflow.entities import Run
    from torch import nn


def load(run_id: str) -> nn.Module:
    """Return the trained network of a trial, by the id of its run: on the CPU, in evaluation mode.

    run_ids are in the column run_id of a sweep's `trials`, and on MLflow's pages; the store is that of MLflow's settings,
    as for regbench.sweep. On the network are also

    classes: the names of what its logits are of, a tuple; "0", "1", ... for runs that have no names on record.
    preprocess: a function that makes what the network takes, float [1, 3, 32, 32] in [0, 1], of a picture: the path of a
        file, an image of Pillow's, or uint8 as an array or tensor [H, W], [H, W, 3 or 4] or [3, H, W]. It becomes what
        the images of a data set become: see regbench.data.image_decoding.

    So net.classes[net(net.preprocess("cat.png")).argmax()] is what the network sees in cat.png.

    Raises UserError if there is no such run, or it is no finished trial, if its weights are not there, or if its network
    is a class of yours that cannot be imported, or is not as it was.
    """
    with keywords.plainly():
        store = Store(write=False)
        run = _find(store, str(run_id))
        model = run.data.params.get("model", "")
        edited.forget([model.partition(":")[0]] if ":" in model else [])
        return _build(run, _weights(store, run))


def _find(store: Store, run_id: str) -> Run:
    from mlflow.exceptions import MlflowException

    run = None
    with store.reporting():
        try:
            run = None if store.empty else store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    ids = "the id of a trial's run, as in the column run_id of a sweep's trials"
    if run is None or run.info.lifecycle_stage != "active":
        gone = "is deleted in" if run else "is no run of"
        raise UserError(f"run_id={run_id!r} {gone} the store {store.uri} (MLFLOW_TRACKING_URI); accepted: {ids}")
    kind = run.data.tags.get(schema.KIND, "")
    if kind != "trial":
        raise UserError(f"run_id={run_id!r} is {f'of kind {kind!r}' if kind else 'not of regbench'}; accepted: {ids}")
    if run.info.status != "FINISHED":
        raise UserError(f"run_id={run_id!r} is {run.info.status} and has no trained network; take one that is FINISHED")
    return run


def _weights(store: Store, run: Run) -> Path:
    from regbench.report.load import artifact

    missing: list[str] = []
    path = artifact(store, run.info.artifact_uri, f"{schema.WEIGHTS}/{schema.MODEL}", missing)
    if path is None:
        left_out = run.data.tags.get(schema.KEPT) == schema.LEFT_OUT
        why = "they were left out, by the sweep's option weights" if left_out else f"{missing[0]} is not there"
        raise UserError(f"run_id={run.info.run_id!r} has no weights: {why}; train it with rerun=true and weights=all")
    return path


def _build(run: Run, path: Path) -> nn.Module:
    from safetensors import SafetensorError, safe_open

    from regbench.api.preprocessing import preprocess
    from regbench.training import precision
    from regbench.training.restored import restored

    params, name = run.data.params, f"run_id={run.info.run_id!r}"
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            classes = json.loads((file.metadata() or {}).get(schema.CLASSES, "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{name}: its weights in {path} are damaged ({one_line(error)}); train it with rerun=true"
        ) from error
    classes = tuple(classes or map(str, range(_count(run))))
    kind = params.get("precision", "float32")
    try:
        model = restored(params["model"], len(classes), int(params["seed"]), kind, tensors)
    except UserError:
        raise
    except Exception as error:  # of the user's own code
        raise UserError(
            f"{name}: model={params['model']!r} does not take the weights of this run ({one_line(error)[:200]}): its class "
            "has changed since; give it back what it had"
        ) from error
    if hasattr(model, "classes") or hasattr(model, "preprocess"):
        raise UserError(f"{name}: its network has something else called classes or preprocess; rename that")
    model.classes, model.preprocess = classes, partial(preprocess, dtype=precision.dtype(kind))
    return model


def _count(run: Run) -> int:
    """Return how many classes the data set of a run has that is from before their names were recorded."""
    for item in run.inputs.dataset_inputs if run.inputs else ():
        return int(json.loads(item.dataset.profile)["classes"])
    raise UserError(f"run_id={run.info.run_id!r} does not say how many classes its network tells apart; train it again")
