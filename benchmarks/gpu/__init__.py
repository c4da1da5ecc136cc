"""The checks of benchmarks.gpu_check, a module for each part of the GPU's way."""
