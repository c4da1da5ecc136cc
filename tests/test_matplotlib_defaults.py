"""Figures do not depend on a user's matplotlibrc."""

import matplotlib
import torch
from cycler import cycler

from regbench.tracking import artifacts, pictures

# as a matplotlibrc has them; LaTeX is not needed to draw either
SETTINGS = {
    "text.usetex": True,
    "figure.dpi": 300,
    "savefig.dpi": 33,
    "savefig.bbox": "tight",
    "savefig.facecolor": "black",
    "font.size": 30,
    "font.family": ["No such font"],
    "axes.prop_cycle": cycler(color=["#ff0000"]),
    "axes.grid": True,
    "lines.linewidth": 9,
    "svg.fonttype": "path",
}


def chosen() -> dict[str, object]:
    return {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


def test_a_users_settings_change_no_figure_of_a_trial_and_are_there_afterwards(tmp_path):
    weights = {"l3.weight": torch.linspace(-1, 1, 120).view(10, 12)}
    written = []
    for settings in ({}, SETTINGS):
        folder = tmp_path / str(len(settings))
        folder.mkdir()
        with matplotlib.rc_context(settings):
            before = chosen()
            artifacts.write(folder, weights, [{"layer": "l3.weight"}])
            assert not pictures.draw(folder, "l2 lam=1e-4 seed=0")
            assert chosen() == before
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert {"histograms.png", "l3.png"} <= set(written[0])
    assert written[0] == written[1]
