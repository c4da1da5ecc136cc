"""Pruning: which weights are zeroed, when, and that they stay so."""

import pytest
import torch

from regbench.engine.step import Update
from regbench.sweep import Recipe, Trial

EPOCHS = 6
SHAPES = [(4, 3, 3, 3), (4,), (20, 10)]
SIZE = 4 * 3 * 3 * 3 + 20 * 10


def trial(name: str, lam: float, seed: int = 0, scope: str = "weights") -> Trial:
    return Trial(Recipe("none", "", 16, 0, epochs=EPOCHS, lr=0.1), name, lam, seed, scope)


def made(*trials: Trial) -> Update:
    generators = [torch.Generator().manual_seed(trial.seed) for trial in trials]
    return Update([torch.stack([torch.randn(shape, generator=g) for g in generators]) for shape in SHAPES], trials)


def step(update: Update, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    update([torch.randn(w.shape[1:], generator=generator).expand(w.shape).clone() for w in update.weights])


def zeros(update: Update, row: int = 0) -> int:
    return sum(int((w[row] == 0).sum()) for w in update.weights)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("one_shot", [0, 0, 0.9, 0.9, 0.9, 0.9]),
        ("random_pruning", [0, 0, 0.9, 0.9, 0.9, 0.9]),
        ("imp", [*(1 - 0.1 ** (e / 4) for e in (1, 2, 3)), 0.9, 0.9, 0.9]),
    ],
)
def test_the_share_of_zeros_follows_the_schedule_and_stays(name, after):
    update = made(trial(name, 0.9))
    before = [w.clone() for w in update.weights]
    for epoch, share in enumerate(after, 1):
        for number in range(3):
            step(update, number)
        update.end(epoch)
        assert zeros(update) == round(share * SIZE), epoch
        for w, m, old in zip(update.weights, update.momenta, before, strict=True):
            assert not m[w == 0].any()
            assert ((w == 0) | (old != 0)).all()  # none comes back
        before = [w.clone() for w in update.weights]
    for number in range(3):
        step(update, number)
    assert zeros(update) == round(0.9 * SIZE)
    assert (update.weights[1] != 0).all()  # biases are not in scope


def test_the_smallest_of_all_layers_go():
    update = made(trial("one_shot", 0.5))
    sizes = torch.cat([update.weights[place].flatten().abs() for place in (0, 2)])
    update.end(EPOCHS)
    kept = torch.cat([update.weights[place].flatten() for place in (0, 2)]) != 0
    assert sizes[kept].min() > sizes[~kept].max()


def test_random_pruning_goes_by_the_seed_and_not_by_size():
    update = made(trial("random_pruning", 0.5, 0), trial("random_pruning", 0.5, 1), trial("random_pruning", 0.5, 0))
    sizes = update.weights[2][0].abs().clone()
    update.end(3)
    first, second, again = (w != 0 for w in update.weights[2])
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert sizes[~first].max() > sizes[first].min()


def test_trials_in_a_stack_are_pruned_as_alone():
    trials = [trial("one_shot", 0.5, 3), trial("one_shot", 0.8, 4), trial("l2", 0.1, 5), trial("imp", 0.9, 6)]
    together, alone = made(*trials), [made(one) for one in trials]
    for epoch in range(1, EPOCHS + 1):
        for update in (together, *alone):
            step(update)
            update.end(epoch)
    for row, one in enumerate(alone):
        assert zeros(together, row) == zeros(one)
        for w, expected in zip(together.weights, one.weights, strict=True):
            torch.testing.assert_close(w[row], expected[0])


def test_scope_all_prunes_biases_too():
    update = made(trial("one_shot", 0.75, scope="all"))
    update.end(EPOCHS)
    assert zeros(update) == round(0.75 * (SIZE + 4))
    assert (update.weights[1] == 0).any()


def test_one_epoch_ends_with_the_zeros():
    recipe = Recipe("none", "", 16, 0, epochs=1)
    for name in ("one_shot", "random_pruning", "imp"):
        update = Update([torch.randn(1, 10, 10)], [Trial(recipe, name, 0.8, 0)])
        update.end(1)
        assert zeros(update) == 80


def test_as_many_go_as_asked_for_where_scores_are_equal():
    for name in ("one_shot", "imp"):
        update = Update([torch.ones(1, 4, 5), torch.ones(1, 30, 2)], [trial(name, 0.7)])
        update.end(EPOCHS)
        assert zeros(update) == 56


def test_a_trial_that_has_diverged_stays_so():
    """Zeroed, its weights would be finite again, and the trial would be taken for one that has collapsed."""
    update = made(trial("one_shot", 0.5, scope="all"), trial("one_shot", 0.5, scope="all"))
    for w in update.weights:
        w[0] = torch.nan
    update.weights[2][1, 0, :3] = torch.nan
    update.end(3)
    assert any(w[0].isnan().any() for w in update.weights)
    assert update.weights[2][1].isnan().sum() == 3 and zeros(update, 1) == (SIZE + 4) // 2


def test_what_is_pruned_stays_zero_whatever_is_done_after_a_step():
    update = made(trial("tests.plugins:PrunesAndMoves", 0.5))
    update.end(EPOCHS)
    before = [w != 0 for w in update.weights]
    step(update)
    assert zeros(update) == SIZE // 2
    assert all(torch.equal(w != 0, kept) for w, kept in zip(update.weights, before, strict=True))
