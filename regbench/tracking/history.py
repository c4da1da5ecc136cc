"""A metric's history of many runs, read with as few calls as the store allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.tracking.rest_store import RestStore

PAGE = 1000
MAX_POINTS = 10**9  # of one query to a database: all
# what a server answers at most (mlflow.server.handlers): runs in a request, points of a run, which it samples beyond
SERVER_RUNS = 100
SERVER_POINTS = 2500


def points(client: MlflowClient, run_ids: Sequence[str], name: str) -> Iterator[tuple[str, int, float]]:
    """Give (run id, step, value) for every point of the metric `name` of these runs; raises what MLflow raises."""
    from mlflow.store.tracking.rest_store import RestStore

    store = client._tracking_client.store
    # the client's own call, one per run, takes twenty times as long
    if hasattr(store, "get_metric_history_bulk"):  # a database
        for part in _parts(run_ids, PAGE):
            for metric in store.get_metric_history_bulk(part, name, MAX_POINTS):
                yield metric.run_id, metric.step, metric.value
    elif isinstance(store, RestStore):
        for part in _parts(run_ids, SERVER_RUNS):
            found = _ask(store, part, name)
            for run_id in part:
                of_run = [(run_id, step, value) for owner, step, value in found if owner == run_id]
                yield from of_run if len(of_run) < SERVER_POINTS else _of_run(client, run_id, name)
    else:
        for run_id in run_ids:
            yield from _of_run(client, run_id, name)


def _of_run(client: MlflowClient, run_id: str, name: str) -> Iterator[tuple[str, int, float]]:
    for metric in client.get_metric_history(run_id, name):
        yield run_id, metric.step, metric.value


def _ask(store: RestStore, run_ids: Sequence[str], name: str) -> list[tuple[str, int, float]]:
    """Ask a server for the points of at most SERVER_RUNS runs: what its UI asks, which the client has no method for."""
    from mlflow.protos.service_pb2 import GetMetricHistoryBulkInterval
    from mlflow.utils.proto_json_utils import message_to_json

    request = GetMetricHistoryBulkInterval(run_ids=run_ids, metric_key=name, max_results=SERVER_POINTS)
    answer = store._call_endpoint(GetMetricHistoryBulkInterval, message_to_json(request))
    return [(metric.run_id, metric.step, metric.value) for metric in answer.metrics]


def _parts(run_ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (run_ids[first : first + size] for first in range(0, len(run_ids), size))
