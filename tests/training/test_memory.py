import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from regbench.training import memory
from regbench.training.single import Training
from regbench.trial import Recipe, Trial
torch.set_num_threads(1)
training = Training(Trial(Recipe("none", "", 100, 0), "none", 0.0, 0), 10, torch.device("cpu"))
images, labels = torch.ones(100, 3, 32, 32, dtype=torch.uint8), torch.arange(100) % 10
def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        training.step(images, labels)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for keep in (lambda: None, memory.keep_freed):
    keep()
    faults(5)
    print(faults(20) / 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it sets glibc")
def test_a_step_uses_the_memory_of_the_one_before(environment):
    """The page faults of a step of the notebook's network, whose tensors fill thousands of pages."""
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    given_back, kept = map(float, done.stdout.split())
    assert kept < 300
    assert given_back > 600
