"""A sweep's grid and its fresh seeds, from the plan to the runs in MLflow; the trainings are made up."""

import io
import json
from dataclasses import replace

import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console

from regbench import plan as planning
from regbench.errors import UserError
from regbench.regularizers import cells
from regbench.run import run_plan
from regbench.tracking import artifacts, schema
from regbench.tracking.store import Store
from regbench.training.events import Epoch, Failed, Started, Trained
from regbench.trial import Recipe, grid, side_by_side
from tests.conftest import TINY

TESTED = 200  # images


class Invented:
    """An engine that trains in no time: every trial's accuracy on validation and test is `accuracy(trial)`.

    A trial in `failing` fails; after `most` trainings it is interrupted.
    """

    name, device_name = "invented", "cpu"

    def __init__(self, accuracy, failing=(), most=1_000) -> None:
        self.accuracy, self.failing, self.most = accuracy, failing, most
        self.trained: list[str] = []

    def train(self, trials, data, resume=True):
        labels = torch.zeros(TESTED, dtype=torch.int64)
        for trial in trials:
            if len(self.trained) == self.most:
                raise KeyboardInterrupt
            self.trained.append(trial.name)
            yield Started(trial)
            if trial.name in self.failing:
                yield Failed(trial, "no luck")
                continue
            accuracy = self.accuracy(trial)
            values = {"train/loss": 1.0, "train/objective": 1.0, "train/accuracy": 0.5, "val/accuracy": accuracy}
            yield Epoch(trial, 1, values)
            logits = torch.zeros(TESTED, 2)
            logits[:, 1] = torch.where(torch.arange(TESTED) < round(accuracy * TESTED), -1.0, 1.0)
            weights = {"out.weight": torch.ones(2, 4), "body.0.weight": torch.ones(4, 3, 3, 3)}
            yield Trained(trial, weights, tuple(weights), logits, labels, logits, labels, seconds=0.1)


def accuracy(trial) -> float:
    """l1 helps; l2 at its better lam differs from `none` by noise only."""
    gain = {"none": 0.0, "l1": 0.1, "l2": 1.5 * trial.lam + 0.03 * (-1) ** trial.seed}[trial.regularizer]
    return 0.6 + gain + 0.01 * (trial.seed % 5)


@pytest.fixture(autouse=True)
def without_files(monkeypatch, database):
    monkeypatch.setattr(artifacts, "write", lambda *_: None)


@pytest.fixture
def sweep(images):
    recipe = Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=1)
    both = [*cells(["l1"], [1e-3, 1e-4]), *cells(["l2"], [1e-3, 1e-4], baseline=False)]
    return grid(recipe, both, [0, 1], confirm=range(2, 22), looks=(8, 14, 20))


def train(sweep, images, engine, rerun=False) -> str:
    """Run a sweep as a command does; return what it printed."""
    console = Console(file=io.StringIO(), width=200)
    store = Store("e")
    run_plan(planning.make(sweep, store, rerun), images, store, engine, console, "a sweep")
    return console.file.getvalue()


def parents() -> list:
    return Store("e").search("tags.`regbench.kind` = 'sweep'")


def trials(sweep) -> dict:
    found = Store("e").search(f"{schema.in_sweep(sweep.id)} and attributes.status = 'FINISHED'")
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def test_the_grid_chooses_and_fresh_seeds_confirm(sweep, images):
    engine = Invented(accuracy)
    text = train(sweep, images, engine)
    # grid; l1 and l2 and none up to the first look; then l2 and none
    assert len(engine.trained) == 10 + 3 * 8 + 2 * 6 + 2 * 6
    assert "lam, chosen on validation: l1 1e-4 (validation 70.50%, the lowest of the grid), l2 1e-3" in text
    assert "after 8 fresh seeds: l1 +10.00 pp (+10.00 to +10.00): better" in text
    assert "after 14 fresh seeds: l2" in text and "not settled, goes on" in text
    assert "after 20 fresh seeds: l2" in text and "no difference shown" in text
    (parent,) = parents()
    tags = parent.data.tags
    assert (tags[schema.CONFIRM], tags[schema.LOOKS]) == ("2-21", "8,14,20")
    assert json.loads(tags[schema.CHOICE]) == {"l1": 1e-4, "l2": 1e-3}
    client = MlflowClient(Store("e").uri)
    with open(client.download_artifacts(parent.info.run_id, schema.CHOICE_FILE)) as file:
        found = json.load(file)
    assert found["lams"] == {"l1": 1e-4, "l2": 1e-3}
    assert found["validation"]["l2"] == pytest.approx({"1e-4": 0.60515, "1e-3": 0.6065})
    assert "| l1 lam=1e-4 | 8 |" in tags[schema.NOTE] and "Chosen on validation: l1 1e-4, l2 1e-3" in tags[schema.NOTE]
    assert parent.info.status == "FINISHED"
    runs = trials(sweep)
    assert set(runs) == set(engine.trained)
    for name, run in runs.items():
        stage = "grid" if int(run.data.params["seed"]) < 2 else "confirm"
        assert run.data.tags[schema.STAGE] == run.data.tags[f"{schema.SWEEP}.{sweep.id}"] == stage, name
        assert run.data.tags[schema.PARENT] == parent.info.run_id


@pytest.mark.parametrize("after", [3, 10, 20, 40, 57])
def test_an_interrupted_sweep_goes_on_to_the_same_end(sweep, images, after):
    """In the grid, between the stages, and in each look."""
    first, second = Invented(accuracy, most=after), Invented(accuracy)
    with pytest.raises(KeyboardInterrupt):
        train(sweep, images, first)
    text = train(sweep, images, second)
    trained = [*first.trained, *second.trained]
    assert len(trained) == len(set(trained)) == 58
    assert set(trials(sweep)) == set(trained)
    newest = parents()[-1]
    assert {run.data.tags[schema.PARENT] for run in trials(sweep).values()} == {newest.info.run_id}
    assert json.loads(newest.data.tags[schema.CHOICE]) == {"l1": 1e-4, "l2": 1e-3}
    if after > 10:
        assert "lam, an earlier start has chosen: l1 1e-4, l2 1e-3" in text
        assert newest.data.tags[schema.CHOSEN_BY] == parents()[0].info.run_id
    # and once more: all is there
    third = Invented(accuracy)
    assert "better" in train(sweep, images, third)
    assert not third.trained and len(parents()) == 2


@pytest.mark.parametrize("after", [15, 50, 1_000])
def test_learning_rates_are_compared_side_by_side(sweep, images, after):
    """In one sweep, under one run; with the larger lr the other lam of l1 is the better one."""

    def best(trial) -> float:
        return accuracy(trial) + (100 * trial.lam * (trial.regularizer == "l1") if trial.recipe.lr == 0.1 else 0)

    recipes = [replace(sweep.recipes[0], lr=lr) for lr in (0.01, 0.1)]
    both = side_by_side([replace(sweep, trials=tuple(replace(t, recipe=r) for t in sweep.trials)) for r in recipes])
    first = Invented(best, most=after)
    if after < 100:
        with pytest.raises(KeyboardInterrupt):
            train(both, images, first)
    text = train(both, images, Invented(best))
    who = (
        "an earlier start has chosen: l1 lr=0.01 1e-4, "
        if after == 50
        else "chosen on validation: l1 lr=0.01 1e-4 (validation"
    )
    assert f"lam, {who}" in text
    assert "after 8 fresh seeds: l1 lr=0.01 +10.00 pp" in text and "l1 lam=1e-3 lr=0.1" in text
    runs = trials(both)
    assert len(runs) == 2 * 58 and "l1 lam=1e-4 lr=0.01 seed=0" in runs and "none lr=0.1 seed=21" in runs
    newest = parents()[-1]
    assert {run.data.tags[schema.PARENT] for run in runs.values()} == {newest.info.run_id}
    assert json.loads(newest.data.tags[schema.CHOICE]) == {
        recipes[0].id: {"l1": 1e-4, "l2": 1e-3},
        recipes[1].id: {"l1": 1e-3, "l2": 1e-3},
    }
    # the trials are those of a sweep of one learning rate, which has nothing left to train
    engine = Invented(best)
    train(replace(sweep, trials=tuple(replace(t, recipe=recipes[1]) for t in sweep.trials)), images, engine)
    assert not engine.trained


def test_a_choice_is_never_made_again(sweep, images):
    """A trial of the grid that failed is trained later, and would have changed the choice."""
    lost = "l2 lam=1e-3 seed=1"
    first = Invented(accuracy, failing=[lost])
    assert "l2 1e-4 (validation" not in train(sweep, images, first)  # the only lam that was left
    chosen = json.loads(parents()[0].data.tags[schema.CHOICE])
    assert chosen == {"l1": 1e-4, "l2": 1e-4}
    second = Invented(accuracy)
    plan = planning.make(sweep, Store("e"), rerun=False)
    assert [trial.name for trial in plan.todo] == [lost]
    assert plan.lams == chosen and plan.chosen_by == parents()[0].info.run_id
    train(sweep, images, second)
    assert second.trained == [lost]
    assert json.loads(parents()[-1].data.tags[schema.CHOICE]) == chosen


def test_a_method_that_had_no_choice_gets_it_once_its_trials_are_there(sweep, images):
    """With one learning rate all of l2 fails at first; what was chosen for the others stays."""
    recipes = [replace(sweep.recipes[0], lr=lr) for lr in (0.01, 0.1)]
    both = side_by_side([replace(sweep, trials=tuple(replace(t, recipe=r) for t in sweep.trials)) for r in recipes])
    lost = [t for t in both.trials if t.recipe.lr == 0.1 and t.regularizer == "l2" and t.seed == 0]

    class Loses(Invented):
        def train(self, trials, data, resume=True):
            for event in super().train(trials, data, resume):
                yield Failed(event.trial, "no luck") if isinstance(event, Trained) and event.trial in lost else event

    text = train(both, images, Loses(accuracy))
    assert "no lam could be chosen for l2 lr=0.1: at each a trial failed or diverged" in text
    chosen = json.loads(parents()[-1].data.tags[schema.CHOICE])
    assert chosen == {recipes[0].id: {"l1": 1e-4, "l2": 1e-3}, recipes[1].id: {"l1": 1e-4}}
    engine = Invented(accuracy)
    text = train(both, images, engine)
    assert "chosen on validation: l1 lr=0.01 1e-4" in text and "l2 lr=0.1 1e-3 (validation" in text
    # what was lost, l2's own fresh seeds, and `none` on those of them on which l1 did not need it
    count = [sum(name.startswith(method) for name in engine.trained) for method in ("l2", "none", "l1")]
    assert count == [2 + 20, 12, 0]
    assert json.loads(parents()[-1].data.tags[schema.CHOICE])[recipes[1].id] == {"l1": 1e-4, "l2": 1e-3}


def test_where_no_lam_could_be_chosen_that_is_said(sweep, images):
    names = [t.name for t in sweep.trials if t.regularizer != "none"]
    text = train(sweep, images, Invented(accuracy, failing=names))
    assert "no lam could be chosen for l1, l2: at each a trial failed or diverged" in text


def test_rerun_trains_everything_again_and_chooses_anew(sweep, images):
    train(sweep, images, Invented(accuracy))
    engine = Invented(lambda trial: accuracy(trial) - (0.2 if trial.lam == 1e-3 else 0))
    train(sweep, images, engine, rerun=True)
    assert json.loads(parents()[-1].data.tags[schema.CHOICE]) == {"l1": 1e-4, "l2": 1e-4}
    assert schema.CHOSEN_BY not in parents()[-1].data.tags
    assert len(engine.trained) == len(set(engine.trained))
    superseded = [run for run in Store("e").search(schema.in_sweep(sweep.id)) if schema.SUPERSEDED in run.data.tags]
    # all that was trained again; l2 was at another lam before
    assert len(superseded) == len(engine.trained) - 20


def test_trials_of_another_sweep_serve_here(sweep, images):
    recipe = sweep.recipes[0]
    l1, l2 = (
        grid(recipe, cells([name], [1e-3, 1e-4]), [0, 1], confirm=range(2, 22), looks=(8, 14, 20))
        for name in ("l1", "l2")
    )
    train(l2, images, Invented(accuracy))
    engine = Invented(accuracy)
    train(l1, images, engine)
    assert not [name for name in engine.trained if name.startswith("none")]
    assert {run.data.tags[f"{schema.SWEEP}.{l1.id}"] for name, run in trials(l1).items() if "seed=2" in name} == {
        "confirm"
    }


def test_a_store_that_is_away_between_looks_stops_nothing(sweep, images, monkeypatch):
    def away(*_):
        raise UserError("the tracking store does not work")

    monkeypatch.setattr(planning.finished_trials, "search", away)
    monkeypatch.setattr(planning, "refresh", lambda plan, store: plan)
    engine = Invented(accuracy)
    train(sweep, images, engine)
    assert len(engine.trained) == 58


def test_a_trial_that_fails_on_a_fresh_seed_is_one_pair_less(sweep, images):
    text = train(sweep, images, Invented(accuracy, failing=["l1 lam=1e-4 seed=5"]))
    verdicts = text.rpartition("verdicts")[2].splitlines()
    (row,) = (line.split() for line in verdicts if line.startswith(" l1"))
    assert row[:3] == ["l1", "lam=1e-4", "13"]  # 7 pairs could not exclude anything
    assert parents()[0].info.status == "FAILED"
    engine = Invented(accuracy)
    train(sweep, images, engine)
    assert engine.trained == ["l1 lam=1e-4 seed=5"]
    assert parents()[-1].info.status == "FINISHED"
