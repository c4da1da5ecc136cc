"""The content of runs in MLflow: names and values of tags, parameters, the data set and sweep.json.

Metrics are composed by `regbench.measures`, files by `regbench.tracking.artifacts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from regbench import __version__, provenance
from regbench.data.images import Images
from regbench.tracking import writer_process
from regbench.trial import Sweep, Trial, format_lam, format_seeds

if TYPE_CHECKING:  # MLflow takes two seconds to import
    from mlflow.entities import Run

KIND = "regbench.kind"  # sweep, trial, launcher, dry_run or report; on a logged model MODEL_KIND
MODEL_KIND = "model"
SWEEP = "regbench.sweep"  # on a sweep's run: its id; with ".<id>" on a trial of that sweep: its stage there
KEY = "regbench.key"
RECIPE = "regbench.recipe"
STAGE = "regbench.stage"  # on a trial, also as the value of its sweeps' tags
GRID, CONFIRMATION = "grid", "confirm"  # a trial's stage
CONFIRM = "regbench.confirm"  # on a sweep: its fresh seeds, as in 3-42
LOOKS = "regbench.looks"  # on a sweep: after how many of them it is judged, as in 12,24,40
RATES = "regbench.rates"  # on a sweep of several learning rates: these, as in 0.01,0.1
CHOICE = "regbench.choice"  # on a sweep: regularizer -> chosen lam, as JSON; of several recipes, recipe's id -> that
CHOSEN_BY = "regbench.chosen_by"  # on a sweep that goes on with the choice of an earlier start: that one's run
DATASET = "regbench.dataset"
FINGERPRINT = "regbench.fingerprint"
DEVICE = "regbench.device"
ENGINE = "regbench.engine"
VERSION = "regbench.version"
STATUS = "regbench.status"  # ok, diverged, collapsed, failed or interrupted
REASON = "regbench.reason"
NODE = "regbench.node"  # on a trial that was trained on a cluster: the machine, and Ray's id of the node
TOGETHER = "regbench.together"  # on a trial that was trained in a stack: of how many, which decides how it is rounded
OWNER = "regbench.owner"  # the process that writes the run
TOKEN = "regbench.token"  # identifies a run, also before a store has given it an id, and in another store
HEARTBEAT = "regbench.heartbeat"  # on a sweep: when its process was last alive, in ms
SUPERSEDED = "regbench.superseded_by"  # on a finished trial that was trained again on request
CONTINUED = "regbench.continued_by"  # on a sweep that was interrupted
KEPT = "regbench.weights"  # on a sweep: whose weights are kept, one of KEEP; on a trial whose are not: LEFT_OUT
KEEP = ALL, CHOSEN, NONE = "all", "chosen", "none"
LEFT_OUT = "left out"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
SOURCE = "mlflow.source.name"
USER = "mlflow.user"
DATA_CONTEXT = ("mlflow.data.context", "training")  # tag of a run's data set
SWEEP_FILE = "sweep.json"  # artifact of a sweep's run: its trials
CHOICE_FILE = "choice.json"  # artifact of the sweep's run that has chosen: the mean validation accuracies of all lams
WEIGHTS = "weights"  # folder of a trial's artifacts, which are these and the bar plot of its output layer
MODEL, EPOCHS, LAYERS = "model.safetensors", "epochs.csv", "layers.csv"
COUNTS, HISTOGRAMS = "histograms.csv", "histograms.png"  # of the same weights
OUTPUT = "output.safetensors"  # the output layer's weights: a report shows them where the networks are not kept
ALL_LAYERS = ""  # in histograms.csv: of all the layers together
CLASSES = "classes"  # in the header of model.safetensors: the classes' names, as JSON; a tag has no room for hundreds


@dataclass(frozen=True)
class SweepContext:
    """The part that the run of a sweep and the runs of its trials have in common.

    `device` and `engine` are their names; `weights`, one of KEEP, says of which trials they are kept.
    """

    sweep: Sweep
    data: Images
    device: str
    engine: str
    weights: str = ALL

    def sweep_tags(self) -> dict[str, str]:
        """Return the tags of the sweep's own run."""
        tags = {KIND: "sweep", SWEEP: self.sweep.id, DATASET: self.data.name, FINGERPRINT: self.data.fingerprint}
        tags[KEPT] = self.weights
        if self.sweep.confirm:
            tags |= {CONFIRM: format_seeds(self.sweep.confirm), LOOKS: ",".join(map(str, self.sweep.looks))}
        if len(self.sweep.rates) > 1:
            tags[RATES] = ",".join(map(str, self.sweep.rates))
        return self._shared_tags() | tags | {VERSION: __version__} | provenance.tags()

    def trial_tags(self, trial: Trial, parent: str) -> dict[str, str]:
        """Return the tags of a trial's run from its start; `parent` is the id of the sweep's run."""
        stage = self.stage(trial)
        tags = {KIND: "trial", PARENT: parent, KEY: trial.key, RECIPE: trial.recipe.id, STAGE: stage}
        return self._shared_tags() | tags | membership(self.sweep.id, stage)

    def keeps_weights(self, trial: Trial) -> bool:
        """Return whether the trial's weights are kept.

        The chosen ones are those of fresh seeds, which are trained only where lam is chosen: nothing is kept to be
        deleted later. A grid alone has chosen when all is trained, and keeps all.
        """
        fresh = self.sweep.is_fresh(trial) or not self.sweep.confirm
        return self.weights == ALL or (self.weights == CHOSEN and fresh)

    def stage(self, trial: Trial) -> str:
        """Return the stage of the sweep to which a trial belongs: grid or confirm."""
        return CONFIRMATION if self.sweep.is_fresh(trial) else GRID

    def _shared_tags(self) -> dict[str, str]:
        owner, user = writer_process.current(), writer_process.user()
        return {SOURCE: "regbench", OWNER: owner, USER: user, DEVICE: self.device, ENGINE: self.engine}

    def sweep_file(self) -> dict[str, object]:
        """Return the content of sweep.json."""
        return {
            "sweep": self.sweep.id,
            "dataset": {"name": self.data.name, "fingerprint": self.data.fingerprint},
            "confirm": {"seeds": list(self.sweep.confirm), "looks": list(self.sweep.looks)},
            "recipes": {recipe.id: asdict(recipe) for recipe in self.sweep.recipes},
            "trials": [
                {"key": trial.key, "recipe": trial.recipe.id}
                | {name: getattr(trial, name) for name in ("regularizer", "lam", "scope", "seed")}
                for trial in self.sweep.trials
            ],
        }

    def dataset(self) -> dict[str, str]:
        """Return the data set as the arguments of MLflow's Dataset."""
        name, train = self.data.name, self.data.train_images
        features, targets = (
            json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}])
            for dtype, shape in (("uint8", train.shape[1:]), ("int64", ()))
        )
        sizes = {"train_images": len(train), "test_images": len(self.data.test_images)}
        return {
            "name": name,
            "digest": self.data.fingerprint[:16],
            "source_type": "local",
            "source": json.dumps({"name": name}),
            "schema": json.dumps({"mlflow_tensorspec": {"features": features, "targets": targets}}),
            "profile": json.dumps({"classes": len(self.data.classes)} | sizes),
        }


def trial_params(trial: Trial) -> dict[str, str]:
    """Return every field of the trial but the data's fingerprint, as text that the UI shows, filters and compares."""
    fields = asdict(trial)
    recipe = fields.pop("recipe")
    recipe.pop("fingerprint")
    fields["lam"] = format_lam(trial.lam)
    return {name: str(value) for name, value in (fields | recipe).items()}


def choice(sweep: Sweep, lams: Mapping[str, float]) -> str:
    """Return the text of the tag CHOICE for the chosen lams by method of the sweep."""
    found: dict[str, dict[str, float]] = {}
    for method, lam in lams.items():
        arm = sweep.arms[method]
        found.setdefault(arm.recipe.id, {})[arm.method] = lam
    return json.dumps(found if len(sweep.recipes) > 1 else next(iter(found.values()), {}))


def chosen(sweep: Sweep, text: str) -> dict[str, float]:
    """Return the lams by method of the sweep from the text of its tag CHOICE."""
    found = json.loads(text)
    if len(sweep.recipes) == 1:
        return found
    return {
        method: found[arm.recipe.id][arm.method]
        for method, arm in sweep.arms.items()
        if arm.method in found.get(arm.recipe.id, {})
    }


def outcome_tags(status: str, reason: str = "", node: str = "", together: int = 1) -> dict[str, str]:
    """Return the tags of a trial that has ended, finished or failed.

    `node` is the machine of a cluster, `together` the size of its stack.
    """
    tags = {STATUS: status, REASON: reason, NODE: node, TOGETHER: str(together) if together > 1 else ""}
    return {name: value for name, value in tags.items() if value}


def launcher_tags(sweep_run: str, experiment: str) -> dict[str, str]:
    """Return the tags of `mlflow run`'s own run where the sweep's run is in another experiment."""
    return {KIND: "launcher", NOTE: f"The sweep is run `{sweep_run}` of the experiment `{experiment}`."}


def membership(sweep_id: str, stage: str) -> dict[str, str]:
    """Return the tag of a trial of this sweep: one tag for each sweep, so that concurrent sweeps keep each other's."""
    return {f"{SWEEP}.{sweep_id}": stage}


def stages(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the id of each sweep to which a trial with these tags belongs -> its stage there, grid or confirm."""
    # trials of earlier versions have "true", or the ids of all their sweeps in one tag
    older = dict.fromkeys(tags.get(SWEEP, "").split(), GRID)
    named = {name.removeprefix(f"{SWEEP}."): value for name, value in tags.items() if name.startswith(f"{SWEEP}.")}
    return older | {name: CONFIRMATION if value == CONFIRMATION else GRID for name, value in named.items()}


def token(run: Run) -> str:
    """Return what identifies a run in every store: of `mlflow run`'s own, which has no token, its id."""
    return run.data.tags.get(TOKEN, run.info.run_id)


def where(tag: str, value: str) -> str:
    """Return the MLflow filter for runs with this value of a tag."""
    return f"tags.`{tag}` = '{value}'"


def in_sweep(sweep_id: str) -> str:
    """Return the MLflow filter for a sweep's trials, including those trained for an earlier sweep."""
    return f"{where(KIND, 'trial')} and tags.`{SWEEP}.{sweep_id}` LIKE '%'"
