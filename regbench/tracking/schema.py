"""Names in the tracking store: tags, and which parameters a trial's run has."""

from collections.abc import Mapping
from dataclasses import asdict

from regbench.sweep import Trial, format_lam

KIND = "regbench.kind"  # sweep, trial, launcher, dry_run or report
SWEEP = "regbench.sweep"  # on a sweep's run: its id; on trials of earlier versions those of all sweeps that hold them
KEY = "regbench.key"
RECIPE = "regbench.recipe"
DATASET = "regbench.dataset"
FINGERPRINT = "regbench.fingerprint"
STATUS = "regbench.status"  # ok, diverged, collapsed, failed or interrupted
REASON = "regbench.reason"
NODE = "regbench.node"  # on a trial that was trained on a cluster: the machine, and Ray's id of the node
OWNER = "regbench.owner"  # the process that writes the run
TOKEN = "regbench.token"  # names a run before the store has given it an id
HEARTBEAT = "regbench.heartbeat"  # on a sweep: when its process last said that it is alive, in ms
SUPERSEDED = "regbench.superseded_by"  # on a finished trial that was trained again on request
CONTINUED = "regbench.continued_by"  # on a sweep that was cut off
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
SOURCE = "mlflow.source.name"
USER = "mlflow.user"
SWEEP_FILE = "sweep.json"  # artifact of a sweep's run: its trials


def trial_params(trial: Trial) -> dict[str, str]:
    """Return every field of the trial but the data's fingerprint, as text that the UI shows, filters and compares."""
    fields = asdict(trial)
    recipe = fields.pop("recipe")
    recipe.pop("fingerprint")
    fields["lam"] = format_lam(trial.lam)
    return {name: str(value) for name, value in (fields | recipe).items()}


def membership(sweep_id: str) -> dict[str, str]:
    """Return the tag of a trial that a sweep holds: one for each sweep, so that two at once do not undo each other's."""
    return {f"{SWEEP}.{sweep_id}": "true"}


def sweeps(tags: Mapping[str, str]) -> frozenset[str]:
    """Return the ids of all sweeps that hold a trial with these tags."""
    named = {name.removeprefix(f"{SWEEP}.") for name in tags if name.startswith(f"{SWEEP}.")}
    return frozenset(named | set(tags.get(SWEEP, "").split()))


def in_sweep(sweep_id: str) -> str:
    """Return the filter that finds a sweep's trials, also those trained for an earlier sweep."""
    ((name, value),) = membership(sweep_id).items()
    return f"tags.`{KIND}` = 'trial' and tags.`{name}` = '{value}'"
