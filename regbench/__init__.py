"""regbench: weight regularizers compared on image classification, tracked in MLflow."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # python -m has not come to the program itself, and so to none of its imports
    import regbench.shadowed_modules

    regbench.shadowed_modules.install_hook()
