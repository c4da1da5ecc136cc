"""regbench beside what people would use instead, on the same question: lines, trainings, minutes, and what is answered."""

from benchmarks.comparison.command import main
