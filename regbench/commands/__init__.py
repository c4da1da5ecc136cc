"""The commands: `python -m regbench <name>`, a file each."""
