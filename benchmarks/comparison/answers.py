"""What a contender says in the end, in its own words: from a folder in which it has run."""

from pathlib import Path

import pandas as pd

OUTPUT = "output.txt"  # all that its commands print


def last_lines(count: int, folder: Path) -> str:
    """Return the last lines that it printed."""
    return "\n".join((folder / OUTPUT).read_text(encoding="utf-8").strip().splitlines()[-count:])


def of_benchopt(folder: Path) -> str:
    """Return what the table of benchopt's page has: of each solver the median over its repetitions."""
    found = pd.read_parquet(folder / "outputs" / "result.parquet")
    return found.groupby("solver_name", sort=False)["objective_value"].median().map("{:.4f}".format).to_string()


def of_regbench(folder: Path) -> str:
    """Return the first paragraph of the report."""
    return (folder / "report" / "report.md").read_text(encoding="utf-8").split("\n\n")[1]
