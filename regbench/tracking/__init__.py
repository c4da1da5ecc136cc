"""The one writer: what MLflow gets of sweeps and trials, and how it gets there whatever fails."""
