"""The command that makes pictures of MLflow's pages says what it needs; the pictures themselves need a browser."""

import pytest

from docs import screenshots
from regbench.commands import exit_code


def test_without_the_report_that_is_named_it_says_so_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        exit_code.run(screenshots.main, ["--report=nowhere.html"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: report='nowhere.html' is not there: give the path of a report.html\n"


def test_without_a_server_it_says_so_in_one_line(capsys, elsewhere):
    with pytest.raises(SystemExit) as stop:
        exit_code.run(screenshots.main, [])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert (
        told == f"error: MLFLOW_TRACKING_URI='sqlite:///{elsewhere}/mlflow.db' is not a server: give its http address\n"
    )
