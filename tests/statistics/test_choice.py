"""The choice of lam."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.statistics.choice import Choice, choose


def test_the_best_mean_is_taken_in_whatever_order_the_grid_comes():
    validation = {1e-4: [0.7, 0.7], 1e-3: [0.9, 0.6], 1e-2: [0.6, 0.6]}
    choice = choose(validation)
    assert choice.lam == 1e-3 and choice.means == pytest.approx({1e-4: 0.7, 1e-3: 0.75, 1e-2: 0.6})
    assert choose(dict(reversed(validation.items()))) == choice


def test_ties_go_to_the_smaller_lam_also_where_rounding_breaks_them():
    # The same three accuracies in another order sum to something else in binary.
    first, second = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    assert np.mean(first) != np.mean(second)
    assert choose({0.1: first, 0.01: second}).lam == choose({0.1: second, 0.01: first}).lam == 0.01


@pytest.mark.parametrize(
    ("means", "edge"), [([3, 2, 1], "lowest"), ([1, 3, 2], ""), ([1, 2, 3], "highest"), ([1], "only")]
)
def test_edge_of_the_grid(means, edge):
    choice = choose({10.0**place: [mean / 10] for place, mean in enumerate(means)})
    assert choice.edge == edge
    assert choice.at_edge == (edge in ("lowest", "highest"))


def test_a_single_lam_is_taken_whatever_is_known_of_it():
    assert choose({0.1: [math.nan, 0.5]}).lam == choose({0.1: []}).lam == 0.1
    assert math.isnan(choose({0.1: []}).means[0.1])


def test_without_any_lam_there_is_no_choice():
    assert choose({}) is None


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ({1: [0.1, 0.2], 2: [0.3]}, "same seeds"),
        ({1: [0.1], 2: [math.nan]}, "finite"),
        ({1: [0.1], 2: [math.inf]}, "finite"),
    ],
)
def test_grids_with_holes_are_refused(validation, message):
    with pytest.raises(ValueError, match=message):
        choose(validation)


@given(st.lists(st.lists(st.integers(0, 1000), min_size=3, max_size=3), min_size=1, max_size=6))
def test_no_other_lam_has_a_better_mean(counts):
    validation = {10.0**place: np.array(scores) / 1000 for place, scores in enumerate(counts)}
    choice = choose(validation)
    assert isinstance(choice, Choice)
    sums = [sum(scores) for scores in counts]
    assert choice.lam == 10.0 ** sums.index(max(sums))
