"""regbench: weight regularizers compared on image classification, tracked in MLflow."""

__version__ = "0.1.0"
