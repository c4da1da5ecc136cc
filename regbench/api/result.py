"""What came of a sweep, for whoever called it in Python."""

from __future__ import annotations

from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING

from regbench.results import Result
from regbench.tracking.store import Store
from regbench.trial import Sweep

if TYPE_CHECKING:  # they take seconds to import
    import pandas as pd

    from regbench.api.reporting import Report
    from regbench.report.load import Runs


class SweepResult:
    """What came of a sweep: its trials and verdicts as tables, and its report.

    id: of the sweep, as plans and reports print it. experiment: the name of the MLflow experiment. failed: how many trials
    failed. The tables are read from the tracking store when they are first asked for.
    """

    def __init__(self, store: Store, sweep: Sweep, results: tuple[Result, ...] = ()) -> None:
        self.id, self.experiment, self.results = sweep.id, store.experiment, results
        self.failed = sum(result.status == "failed" for result in results)
        self._store = store

    def __repr__(self) -> str:
        trials = f"{len(self.results)} trials" if self.results else "not trained"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"<sweep {self.id} in MLflow experiment {self.experiment!r}: {trials}{failed}>"

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per finished trial: regularizer, lam, seed, scope, stage (grid or confirm), status (ok, diverged or
        collapsed), the accuracies and every other metric, and the run_id for `regbench.load` and MLflow.

        Recipes that the sweep compares, as of several learning rates, have a column for what differs.
        """
        from regbench.report import frames

        return frames.trials(self._runs)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """A row per regularizer, at its chosen lam, against none on fresh seeds: lam, the mean difference of the test
        accuracies, the bounds low and high of its interval, the verdict, and what else the report has of it.

        Accuracies and their differences are fractions: 0.005 is half a percentage point.
        """
        from regbench.report import frames

        return frames.verdicts(self._runs)

    def report(self, out: str | PathLike[str] | None = None, lang: str = "en") -> Report:
        """Write the report's files (report.md, figures, CSV) into the folder `out`, "report" if it is not given, and put
        them beside the sweep's run in MLflow. Return the report, which a notebook shows; its `path` is report.md.

        Raises UserError as the command `report` does.
        """
        from regbench.api import keywords, parsing, reporting

        with keywords.plainly():
            folder = parsing.report_folder("out")("report" if out is None else str(out))
            return reporting.write(self._store, folder, self.id, lang=lang)

    @cached_property
    def _runs(self) -> tuple[Runs, ...]:
        from regbench.api import keywords
        from regbench.report import load

        with keywords.plainly():
            self._store.refresh()
            return load.load(self._store, self.id)
