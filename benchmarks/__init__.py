"""The commands, and what measures them."""

import sys

try:
    from regbench import __version__
except ImportError as failed:
    print(f"error: {failed}; is regbench installed, and no file of yours called regbench.py?", file=sys.stderr)
    raise SystemExit(2) from failed

__all__ = ["__version__"]
