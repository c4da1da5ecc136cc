"""A saved view of an experiment's runs on MLflow's pages: the trials with the columns and charts that matter.

MLflow's pages keep such views as tags of the experiment; the format is that of MLflow 3.17, read from its pages.
"""

import json
import time
from urllib.parse import urlencode

from mlflow.exceptions import MlflowException

from regbench.tracking import retry, schema
from regbench.tracking.store import Store

KEY = "regbench"  # of the view in its address
TAG = f"mlflow.sharedViewState.{KEY}"
NAME = "regbench: trials"
COLUMNS = (
    "params.`regularizer`",
    "params.`lam`",
    "params.`seed`",
    f"tags.`{schema.STAGE}`",
    "metrics.`val/accuracy`",
    "metrics.`test/accuracy`",
    "metrics.`sparsity/exact`",
    "metrics.`sparsity_at_1pp`",
)
SECTION = "regbench"
CHARTS = (
    {
        "type": "PARALLEL",
        "selectedParams": ["regularizer", "lam"],
        "selectedMetrics": ["val/accuracy", "test/accuracy", "sparsity/exact"],
        "showAllRuns": True,
    },
    {
        "type": "SCATTER",
        "xaxis": {"key": "sparsity_at_1pp", "type": "METRIC"},
        "yaxis": {"key": "test/accuracy", "type": "METRIC"},
        "runsCountToCompare": 100,
    },
    {"type": "LINE", "metricKey": "val/accuracy", "selectedMetricKeys": ["val/accuracy"]},
)


def save(store: Store) -> str:
    """Have the experiment hold the view, unless it holds one already, and return the end of the address that shows it.

    Where that fails it is that of the page without the view, which is no result.
    """
    page = f"#/experiments/{store.experiment_id}/runs"
    try:
        with retry.single_attempt():
            if TAG not in store.client.get_experiment(store.experiment_id).tags:
                store.client.set_experiment_tag(store.experiment_id, TAG, _content())
    except (MlflowException, OSError):
        return page
    return f"{page}?{urlencode({'viewStateShareKey': KEY})}"


def _content() -> str:
    now = int(1000 * time.time())
    return json.dumps({"name": NAME, "createdAt": now, "updatedAt": now, "state": json.dumps(_state())})


def _state() -> dict[str, object]:
    """Return the state of the page: which runs, in which order, their columns, and the charts."""
    return {
        "searchFilter": f"{schema.where(schema.KIND, 'trial')} and attributes.status = 'FINISHED'",
        # sorted by time the page would hide the trials below their sweeps
        "orderByKey": "params.`regularizer`",
        "orderByAsc": True,
        "selectedColumns": COLUMNS,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [
            {
                "uuid": SECTION,
                "name": SECTION,
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
            }
        ],
        "compareRunCharts": [_chart(number, **chart) for number, chart in enumerate(CHARTS)],
        "isAccordionReordered": True,
    }


def _chart(number: int, **chart: object) -> dict[str, object]:
    shared = {"uuid": f"regbench-{number}", "metricSectionId": SECTION, "deleted": False, "isGenerated": False}
    return shared | {"runsCountToCompare": 10} | chart
