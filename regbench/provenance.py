"""Where a result came from: package versions, machine, git commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "mlflow", "mlflow-skinny")


def tags() -> dict[str, str]:
    """Return tag name -> text: versions of Python and packages, platform, git commit and whether the tree was clean."""
    found = {"env.python": platform.python_version(), "env.platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[f"env.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["git.commit"] = commit
        found["git.clean"] = str(_git("status", "--porcelain") == "").lower()
    return found


def processor() -> str:
    """Return the model of this machine's processor, or its architecture where the model is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def instructions() -> set[str]:
    """Return the sets of instructions by which this machine's processor multiplies, as far as they are known."""
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace").split()
    except OSError:  # not Linux
        return set()
    return {flag for flag in flags if flag.startswith(("avx2", "avx512", "amx"))}


def _git(*args: str) -> str | None:
    """Return what git prints about this project's own checkout; None without git or outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    # git's own variables, set by its hooks and by rebase, would point it to another repository
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *args], cwd=root, env=env, capture_output=True, encoding="utf-8", errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
