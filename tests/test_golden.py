"""What trials come to, against committed numbers: whoever changes a result has to say so by RESULT_VERSION."""

import json

import numpy as np
import pytest

from regbench import identity
from tests import golden

ADVICE = "results changed: raise RESULT_VERSION in regbench/identity.py, then python -m tests.golden"


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, list[float]]]:
    stored = json.loads(golden.PLACE.read_text())
    assert stored["version"] == identity.RESULT_VERSION, "RESULT_VERSION was raised: python -m tests.golden"
    return stored["results"]


@pytest.mark.parametrize("engine", golden.ENGINES)
def test_results_are_those_of_this_version(known, engine):
    """Weights and measures of every regularizer, both networks' ways, on both engines."""
    data = golden.images()
    found = golden.results(engine, golden.trials(data), data)
    assert found.keys() == known.keys(), ADVICE
    for trial, numbers in known.items():
        assert found[trial].keys() == numbers.keys(), f"{ADVICE}: {trial}"
        for name, expected in numbers.items():
            np.testing.assert_allclose(
                found[trial][name],
                expected,
                rtol=golden.TOLERANCE,
                atol=golden.TOLERANCE,
                err_msg=f"{ADVICE}: {trial}, {name}",
            )


def test_every_regularizer_is_seen_to_act(known):
    """Numbers that are those of `none` would not notice a change of a regularizer."""
    ends = {trial: [numbers[name] for name in numbers if name.endswith(".weight")] for trial, numbers in known.items()}
    for network in ("tests.golden:Net", "notebook"):
        baseline = next(weights for trial, weights in ends.items() if trial.startswith(f"{network} none"))
        others = [weights for trial, weights in ends.items() if trial.startswith(network) and " none" not in trial]
        assert len(others) >= 2
        assert all(weights != baseline for weights in others)
