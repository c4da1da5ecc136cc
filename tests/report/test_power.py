"""The power table that a dry run quotes."""

import math
import subprocess
import sys

import pytest

from regbench.report.power import MINIMUM_PAIRS, expected_power, power_table, seeds_needed


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9), (12, 9), (13, 10)])
def test_seeds_needed(comparisons, seeds):
    assert seeds_needed(comparisons) == seeds
    assert comparisons * 2 / 2**seeds <= 0.05
    assert seeds == MINIMUM_PAIRS or comparisons * 2 / 2 ** (seeds - 1) > 0.05


def test_seeds_needed_refuses_nonsense():
    with pytest.raises(ValueError, match="comparisons"):
        seeds_needed(0)
    for alpha in (0, 1):
        with pytest.raises(ValueError, match="alpha"):
            seeds_needed(1, alpha)


def test_the_table_holds_the_families_seeds_and_gains_that_are_quoted():
    cells = {(row.regularizers, row.seeds, row.difference_pp) for row in power_table()}
    assert {(m, n, d) for m in (3, 8) for n in (5, 10, 20) for d in (0.5, 1.0, 2.0)} <= cells
    for row in power_table():
        assert 0 <= row.better <= 1 and 0 <= row.equivalent <= 1 and math.isfinite(row.half_width_pp)


def test_more_seeds_and_larger_differences_never_look_worse():
    table = {(row.regularizers, row.seeds, row.difference_pp): row.better for row in power_table()}
    for (family, seeds, difference), better in table.items():
        for (other_family, other_seeds, other_difference), other in table.items():
            if other_family == family and other_seeds >= seeds and other_difference >= difference:
                assert other >= better


def test_tabulated_cells_are_quoted_as_they_are():
    for row in power_table():
        possible = row.seeds >= seeds_needed(row.regularizers)
        assert expected_power(row.seeds, row.difference_pp, row.regularizers) == (row.better if possible else 0)


def test_between_cells_the_less_flattering_one_is_quoted():
    assert expected_power(14, 1.0) == expected_power(10, 1.0) < expected_power(15, 1.0)
    assert expected_power(10, 1.9) == expected_power(10, 1.0)
    assert expected_power(10, 1 - 1e-12) == expected_power(10, 1.0)
    assert expected_power(10, 9.0) == expected_power(10, 2.0)
    assert expected_power(10, 0.5, 2) == expected_power(10, 0.5, 3) > expected_power(10, 0.5, 4)
    assert expected_power(10, 0.5, 4) == expected_power(10, 0.5, 8) == expected_power(10, 0.5, 12)
    assert expected_power(1000, 0.5) == expected_power(20, 0.5)


def test_too_few_seeds_have_no_power():
    assert expected_power(5, 2.0) == expected_power(6, 2.0) == expected_power(8, 2.0, 8) == 0
    assert expected_power(7, 2.0) > 0.9


def test_no_answer_outside_the_table():
    for arguments in [(0, 1.0), (10, 0.4), (10, 0.0), (10, 1.0, 0), (10, math.nan)]:
        with pytest.raises(ValueError):
            expected_power(*arguments)


def test_a_plan_can_quote_it_without_the_scientific_stack():
    code = "import sys; from regbench.report import power; power.expected_power(10, 1.0); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "regbench.report.power" in loaded
    assert {"numpy", "scipy", "statsmodels", "pandas", "torch"}.isdisjoint(loaded)
