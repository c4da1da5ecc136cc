"""Pruning: which weights are zeroed, when, and that they stay so."""

import pytest
import torch

from regbench.training.optimizer import Optimizer
from regbench.trial import Recipe, Trial

EPOCHS = 6
SHAPES = [(4, 3, 3, 3), (4,), (20, 10)]
SIZE = 4 * 3 * 3 * 3 + 20 * 10


def trial(name: str, lam: float, seed: int = 0, scope: str = "weights") -> Trial:
    return Trial(Recipe("none", "", 16, 0, epochs=EPOCHS, lr=0.1), name, lam, seed, scope)


def made(*trials: Trial) -> Optimizer:
    generators = [torch.Generator().manual_seed(trial.seed) for trial in trials]
    return Optimizer([torch.stack([torch.randn(shape, generator=g) for g in generators]) for shape in SHAPES], trials)


def step(optimizer: Optimizer, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer.step([torch.randn(w.shape[1:], generator=generator).expand(w.shape).clone() for w in optimizer.weights])


def zeros(optimizer: Optimizer, row: int = 0) -> int:
    return sum(int((w[row] == 0).sum()) for w in optimizer.weights)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("one_shot", [0, 0, 0.9, 0.9, 0.9, 0.9]),
        ("random_pruning", [0, 0, 0.9, 0.9, 0.9, 0.9]),
        ("random_at_init", [0.9] * EPOCHS),
        ("imp", [*(1 - 0.1 ** (e / 4) for e in (1, 2, 3)), 0.9, 0.9, 0.9]),
    ],
)
def test_the_share_of_zeros_follows_the_schedule_and_stays(name, after):
    optimizer = made(trial(name, 0.9))
    before = [w.clone() for w in optimizer.weights]
    for epoch, share in enumerate(after, 1):
        optimizer.begin_epoch(epoch)
        for number in range(3):
            step(optimizer, number)
        optimizer.end_epoch(epoch)
        assert zeros(optimizer) == round(share * SIZE), epoch
        for w, m, old in zip(optimizer.weights, optimizer.rule.momenta, before, strict=True):
            assert not m[w == 0].any()
            assert ((w == 0) | (old != 0)).all()  # none comes back
        before = [w.clone() for w in optimizer.weights]
    for number in range(3):
        step(optimizer, number)
    assert zeros(optimizer) == round(0.9 * SIZE)
    assert (optimizer.weights[1] != 0).all()  # biases are not in scope


def test_the_smallest_of_all_layers_go():
    optimizer = made(trial("one_shot", 0.5))
    sizes = torch.cat([optimizer.weights[place].flatten().abs() for place in (0, 2)])
    optimizer.end_epoch(EPOCHS)
    kept = torch.cat([optimizer.weights[place].flatten() for place in (0, 2)]) != 0
    assert sizes[kept].min() > sizes[~kept].max()


def test_random_pruning_goes_by_the_seed_and_not_by_size():
    optimizer = made(trial("random_pruning", 0.5, 0), trial("random_pruning", 0.5, 1), trial("random_pruning", 0.5, 0))
    sizes = optimizer.weights[2][0].abs().clone()
    optimizer.end_epoch(3)
    first, second, again = (w != 0 for w in optimizer.weights[2])
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert sizes[~first].max() > sizes[first].min()


def test_at_initialization_it_acts_before_the_first_step_and_leaves_the_rest_as_it_is():
    optimizer = made(*(trial("random_at_init", 0.75, seed) for seed in (0, 1, 0)), trial("random_pruning", 0.75))
    before = [w.clone() for w in optimizer.weights]
    optimizer.begin_epoch(1)
    kept = [w != 0 for w in optimizer.weights]
    assert all(torch.equal(w, old * mask) for w, old, mask in zip(optimizer.weights, before, kept, strict=True))
    assert [zeros(optimizer, row) for row in range(4)] == [round(0.75 * SIZE)] * 3 + [0]
    first, second, again, _ = kept[2]
    assert torch.equal(first, again) and not torch.equal(first, second)  # by the seed
    sizes = before[2][0].abs()
    assert sizes[~first].max() > sizes[first].min()  # and not by size
    for epoch in (2, 3, 4):
        step(optimizer)
        optimizer.begin_epoch(epoch)
    assert all(torch.equal(w[:3] != 0, mask[:3]) for w, mask in zip(optimizer.weights, kept, strict=True))


def test_trials_in_a_stack_are_pruned_as_alone():
    trials = [trial("one_shot", 0.5, 3), trial("one_shot", 0.8, 4), trial("l2", 0.1, 5), trial("imp", 0.9, 6)]
    trials += [trial("random_at_init", 0.3, 7), trial("random_at_init+l2@0.1", 0.6, 8)]
    together, alone = made(*trials), [made(one) for one in trials]
    for epoch in range(1, EPOCHS + 1):
        for optimizer in (together, *alone):
            optimizer.begin_epoch(epoch)
            step(optimizer)
            optimizer.end_epoch(epoch)
    for row, one in enumerate(alone):
        assert zeros(together, row) == zeros(one)
        for w, expected in zip(together.weights, one.weights, strict=True):
            torch.testing.assert_close(w[row], expected[0])


def test_scope_all_prunes_biases_too():
    optimizer = made(trial("one_shot", 0.75, scope="all"))
    optimizer.end_epoch(EPOCHS)
    assert zeros(optimizer) == round(0.75 * (SIZE + 4))
    assert (optimizer.weights[1] == 0).any()


def test_one_epoch_ends_with_the_zeros():
    recipe = Recipe("none", "", 16, 0, epochs=1)
    for name in ("one_shot", "random_pruning", "random_at_init", "imp"):
        optimizer = Optimizer([torch.randn(1, 10, 10)], [Trial(recipe, name, 0.8, 0)])
        optimizer.begin_epoch(1)
        optimizer.end_epoch(1)
        assert zeros(optimizer) == 80


def test_as_many_go_as_asked_for_where_scores_are_equal():
    for name in ("one_shot", "imp"):
        optimizer = Optimizer([torch.ones(1, 4, 5), torch.ones(1, 30, 2)], [trial(name, 0.7)])
        optimizer.end_epoch(EPOCHS)
        assert zeros(optimizer) == 56


def test_a_trial_that_has_diverged_stays_so():
    """Zeroed, its weights would be finite again, and the trial would be taken for one that has collapsed."""
    optimizer = made(trial("one_shot", 0.5, scope="all"), trial("one_shot", 0.5, scope="all"))
    for w in optimizer.weights:
        w[0] = torch.nan
    optimizer.weights[2][1, 0, :3] = torch.nan
    optimizer.end_epoch(3)
    assert any(w[0].isnan().any() for w in optimizer.weights)
    assert optimizer.weights[2][1].isnan().sum() == 3 and zeros(optimizer, 1) == (SIZE + 4) // 2


def test_what_is_pruned_stays_zero_whatever_is_done_after_a_step():
    optimizer = made(trial("tests.plugins:PrunesAndMoves", 0.5))
    optimizer.end_epoch(EPOCHS)
    before = [w != 0 for w in optimizer.weights]
    step(optimizer)
    assert zeros(optimizer) == SIZE // 2
    assert all(torch.equal(w != 0, kept) for w, kept in zip(optimizer.weights, before, strict=True))
