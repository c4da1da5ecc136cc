"""python -m benchmarks.comparison"""

from benchmarks.comparison.command import main
from regbench.commands import exit_code

exit_code.run(main)
