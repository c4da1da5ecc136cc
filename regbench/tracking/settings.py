"""MLflow's settings, which it reads from the environment at each call."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def during(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
