"""The benchmark of the lecture's four experiments."""

import pandas as pd
from click.testing import CliRunner

from benchmarks import lecture
from tests.conftest import save_pictures, striped


def trials() -> pd.DataFrame:
    rows = [
        {
            "regularizer": name,
            "seed": seed,
            "time/trial": 600.0,
            "test/accuracy": 0.7 + gain + 0.01 * seed,
        }
        | {metric: 0.5 for metric, *_ in lecture.COLUMNS.values() if metric != "test/accuracy"}
        for name, gain in (("none", 0.0), ("l1", 0.02), ("l2", -0.01), ("weight_decay", 0.0))
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


def test_the_page_tells_means_spreads_and_differences_on_the_same_seeds():
    none, l1, *_ = lecture.rows(trials())
    assert none[:5] == ("`none`", "", "30", "100", "71.00 (70.00 to 72.00)") and none[5] == "50.00"
    assert l1[1] == "1e-4" and l1[4] == "73.00 (72.00 to 74.00)"
    assert lecture.paired(trials())[:2] == [
        ("`l1`", "+2.00", "+2.00, +2.00, +2.00"),
        ("`l2`", "-1.00", "-1.00, -1.00, -1.00"),
    ]
    page = lecture.readme(trials(), "cifar10-jpeg", 50_000, None, "python -m benchmarks.lecture")
    assert "cifar10-jpeg: 50,000 training images, 3 seeds each" in page and "120 minutes of training" in page


def test_it_trains_the_four_and_writes_its_page(database, elsewhere):
    save_pictures(striped(train=120, test=20), elsewhere / "photos")
    words = ["--data_dir=photos", "--seeds=1", "--epochs=1", "--out=out"]
    for _ in range(2):  # what is trained is not trained again
        found = CliRunner().invoke(lecture.main, words, standalone_mode=False, catch_exceptions=False)
        assert "| `weight_decay` | 1e-4 | 1 | 64 |" in found.output
    assert "0 finished already, 4 to train" not in found.output
    page = (elsewhere / "out" / "README.md").read_text()
    assert "python -m benchmarks.lecture --data_dir=photos --seeds=1 --epochs=1" in page
    assert {path.name for path in (elsewhere / "out").iterdir()} == {
        "README.md",
        "trials.csv",
        "bars.png",
        "histograms.png",
    }
    assert len(pd.read_csv(elsewhere / "out" / "trials.csv")) == 4
