"""What a script or notebook can call: `regbench.sweep`, `regbench.notebook`, `regbench.load`; the commands do too."""
