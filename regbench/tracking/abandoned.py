"""Runs whose process has died without ending them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regbench.errors import UserError
from regbench.tracking import schema, writer_process
from regbench.tracking.store import Store

if TYPE_CHECKING:  # MLflow takes two seconds to import
    from mlflow.entities import Run

SILENT = 600_000  # ms without a heartbeat, after which a process on another machine counts as dead


def close(store: Store, keys: Iterable[str], sweep_id: str) -> list[Run]:
    """Mark runs of dead processes as KILLED and return them; on another machine, runs that are silent for SILENT.

    A sweep that was only cut off from the store for that long still ends its runs properly.
    Raises UserError if a living process on this machine is training one of `keys`, or the same sweep, which may have
    come to its fresh seeds.
    """
    keys, mine = set(keys), writer_process.current()
    running = [run for run in store.search("attributes.status = 'RUNNING'") if schema.OWNER in run.data.tags]
    for run in running:
        owner = run.data.tags[schema.OWNER]
        if owner == mine or not writer_process.alive(owner):
            continue
        if run.data.tags.get(schema.SWEEP) == sweep_id or not keys.isdisjoint(_keys(store, run)):
            pid = owner.rsplit(":", 2)[1]
            raise UserError(
                f"process {pid} is training trials of this sweep at this moment ({run.info.run_name}): wait for "
                "it, or end it, then run the same command again; it continues where that one stopped"
            )
    abandoned = _abandoned(running)
    with store.reporting():
        for run in abandoned:
            store.client.set_tag(run.info.run_id, schema.STATUS, "interrupted")
            store.client.set_terminated(run.info.run_id, "KILLED")
    return abandoned


def _keys(store: Store, run: Run) -> set[str]:
    """Return the keys of the trials that a running process works on: a trial's own, or all of a sweep's."""
    from mlflow.exceptions import MlflowException

    if schema.KEY in run.data.tags:
        return {run.data.tags[schema.KEY]}
    try:
        path = store.client.download_artifacts(run.info.run_id, schema.SWEEP_FILE)
        return {trial["key"] for trial in json.loads(Path(path).read_text())["trials"]}
    except (MlflowException, OSError):  # it has only just started
        return set()


def _abandoned(running: Sequence[Run]) -> list[Run]:
    heard = {run.info.run_id: int(run.data.tags.get(schema.HEARTBEAT, run.info.start_time)) for run in running}

    def dead(run: Run) -> bool:
        alive = writer_process.alive(run.data.tags[schema.OWNER])
        last = max(heard[run.info.run_id], heard.get(run.data.tags.get(schema.PARENT, ""), 0))
        return 1000 * time.time() - last > SILENT if alive is None else not alive

    return [run for run in running if dead(run)]
