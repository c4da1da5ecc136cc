"""The report's figures: each a function of tidy frames, returning a matplotlib Figure."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from regbench.files import atomic
from regbench.plotting import defaults
from regbench.report.analysis import Analysis, prune_curve
from regbench.report.statistics import MARGIN
from regbench.sweep import BASELINE, format_lam

BASELINE_COLOUR = "#555555"
MARKERS = "osD^vP*X<>"
# a lam that ruins the network would squeeze all others into a line: what lies further below `none` is named at the edge
SHOWN_BELOW = 0.10
NAME_LENGTH = 60
# the same runs must give the same bytes, so nothing random or dated goes into a file
RC = {"svg.hashsalt": "regbench", "svg.fonttype": "none", "savefig.dpi": 130, "font.size": 9}


def colours(methods: Iterable[str]) -> dict[str, object]:
    """Return method -> colour: grey for `none`, else the colour-blind palette in order."""
    others = [name for name in methods if name != BASELINE]
    palette = sns.color_palette("colorblind", max(len(others), 1))
    return {BASELINE: BASELINE_COLOUR} | dict(zip(others, palette, strict=False))


def shown(name: object) -> str:
    """Return a name as matplotlib is to draw it: as it is, on one line, of at most 60 characters.

    A dollar would begin mathematics, and a legend leaves out what begins with an underscore.
    """
    line = "".join(c if c.isprintable() else "?" for c in " ".join(str(name).split()))
    line = line if len(line) <= NAME_LENGTH else f"{line[: NAME_LENGTH - 3]}..."
    return f"{' ' * line.startswith('_')}{line}".replace("$", r"\$")


# of the files of a figure, with what is left out of them so that the same figure gives the same bytes
SUFFIXES = {".png": {"Software": None}, ".svg": {"Date": None}}


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write name.png and name.svg into `folder`; return the PNG's file name."""
    with defaults(RC):
        # laid out once for both formats: it takes as long as drawing
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for suffix, metadata in SUFFIXES.items():
            with atomic(folder / f"{name}{suffix}") as path:
                figure.savefig(path, format=suffix[1:], metadata=metadata)
    return f"{name}.png"


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw with seaborn's style without leaving it behind."""

    def drawn(*args: object, **options: object) -> Figure:
        with defaults(sns.axes_style("whitegrid") | RC):
            return draw(*args, **options)

    return drawn


def _against_lam(
    analysis: Analysis, trials: pd.DataFrame, metric: str, prefix: str, label: str, floor: bool = False
) -> Figure:
    """One panel per method over lam: a dot per seed, mean and 95 % interval; `none` as a band.

    With `floor`, cells far below `none` are named at the lower edge instead of setting the scale.
    """
    methods = [name for name in analysis.methods if name != BASELINE] or [BASELINE]
    columns = min(3, len(methods))
    rows = math.ceil(len(methods) / columns)
    figure = Figure(figsize=(3.3 * columns + 0.8, 2.8 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    palette = colours(analysis.methods)
    counted = trials[trials["seed"].isin(analysis.seeds) & (trials["outcome"] != "diverged")]
    counted = counted.reindex(columns=[*counted.columns.union([metric])])  # a stranger's run may lack it
    cells = analysis.cells
    base = cells[cells["method"] == BASELINE]
    lowest = base[prefix].iloc[0] - SHOWN_BELOW if floor and len(base) and base[prefix].notna().all() else -np.inf
    for axis, method in zip(axes, methods, strict=False):
        every = cells[(cells["method"] == method) & cells[prefix].notna()]
        own = every[every[prefix] >= lowest]
        if len(base) and base[prefix].notna().all():
            low, high = base[f"{prefix}_low"].iloc[0], base[f"{prefix}_high"].iloc[0]
            axis.axhline(100 * base[prefix].iloc[0], color=BASELINE_COLOUR, linewidth=1, label="none, 95 % interval")
            if np.isfinite([low, high]).all():
                axis.axhspan(100 * low, 100 * high, color=BASELINE_COLOUR, alpha=0.2, linewidth=0)
        if method != BASELINE:
            dots = counted[(counted["method"] == method) & counted[metric].notna() & counted["lam"].isin(own["lam"])]
            beside = offset_copy(axis.transData, figure, x=5, units="points")
            axis.plot(dots["lam"], 100 * dots[metric], ".", color=palette[method], alpha=0.55, markersize=5,
                      transform=beside, label="a seed")  # fmt: skip
            errors = 100 * np.vstack([own[prefix] - own[f"{prefix}_low"], own[f"{prefix}_high"] - own[prefix]])
            axis.errorbar(own["lam"], 100 * own[prefix], yerr=np.nan_to_num(errors), color=palette[method], marker="o",
                          markersize=5, capsize=3, linewidth=1.2, label="mean, 95 % interval")  # fmt: skip
            _lam_axis(axis, every["lam"])
            for _, cell in every[every[prefix] < lowest].iterrows():
                axis.annotate(f"{100 * cell[prefix]:.0f} %\n\u25bc", (cell["lam"], 0), xycoords=("data", "axes fraction"),
                              xytext=(0, 2), textcoords="offset points", ha="center", fontsize="small")  # fmt: skip
            chosen = analysis.chosen(method)
            if chosen is not None:
                axis.axvline(chosen, color=palette[method], linestyle=":", linewidth=1.2, label="chosen on validation")
        axis.set(title=shown(method), xlabel="lam")
    for axis in axes[::columns]:
        axis.set_ylabel(label)
    for axis in axes[len(methods) :]:
        axis.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, 2 * columns), frameon=False, fontsize="small"
    )
    return figure


def _lam_axis(axis: Axes, lams: pd.Series) -> None:
    """Have the axis hold these lams: logarithmic over a decade and more; below two decades each lam has its tick."""
    if lams.empty:
        return
    low, high = lams.min(), lams.max()
    if high >= 10 * low:
        axis.set_xscale("log")
        room = (high / low) ** 0.1
        axis.set_xlim(low / room, high * room)
    else:
        room = 0.12 * (high - low or high)
        axis.set_xlim(low - room, high + room)
    if high < 100 * low:
        axis.set_xticks(sorted(set(lams)), [format_lam(lam) for lam in sorted(set(lams))], rotation=45)
        axis.minorticks_off()


@styled
def accuracy_against_lam(analysis: Analysis, trials: pd.DataFrame) -> Figure:
    return _against_lam(analysis, trials, "test/accuracy", "test", "test accuracy, %", floor=True)


@styled
def gap_against_lam(analysis: Analysis, trials: pd.DataFrame) -> Figure:
    return _against_lam(analysis, trials, "gap/accuracy", "gap", "training minus test accuracy, pp")


@styled
def forest(analysis: Analysis) -> Figure:
    """The paired difference from `none` of each method with its interval, over the margin of equivalence."""
    rows = list(analysis.comparisons.items())
    figure = Figure(figsize=(6.4, 0.5 * len(rows) + 1.4), layout="constrained")
    axis = figure.subplots()
    palette = colours(analysis.methods)
    axis.axvspan(-100 * MARGIN, 100 * MARGIN, color=BASELINE_COLOUR, alpha=0.15, linewidth=0,
                 label=f"equivalent: within {100 * MARGIN:g} pp")  # fmt: skip
    axis.axvline(0, color=BASELINE_COLOUR, linewidth=1)
    for place, (method, found) in enumerate(rows):
        mean, low, high = (
            100 * value for value in (found.difference.mean, found.difference.low, found.difference.high)
        )
        if np.isfinite([low, high]).all():
            axis.plot([low, high], [place, place], color=palette[method], linewidth=2, solid_capstyle="butt")
        axis.plot(mean, place, "o", color=palette[method], markersize=7)
    names = [f"{shown(method)} lam={format_lam(found.selection.lam)}\n{found.verdict}" for method, found in rows]
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(f"test accuracy minus that of none, pp (paired over {len(analysis.seeds)} seeds, 95 % interval)")
    axis.legend(loc="best", fontsize="small")
    axis.grid(visible=False, axis="y")
    return figure


@styled
def accuracy_against_compression(analysis: Analysis) -> Figure:
    """Every cell's mean test accuracy over its compression ratio (log), with the front of what nothing beats."""
    cells = analysis.cells.dropna(subset=["compression_ratio", "test"])
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    palette = colours(analysis.methods)
    for place, method in enumerate(analysis.methods):
        own = cells[cells["method"] == method]
        axis.plot(own["compression_ratio"], 100 * own["test"], MARKERS[place % len(MARKERS)], color=palette[method],
                  markersize=7, alpha=0.85, label=shown(method))  # fmt: skip
    front = _front(cells)
    if len(front) > 1:
        axis.step(front["compression_ratio"], 100 * front["test"], where="pre", color="black", linewidth=0.8,
                  label="front")  # fmt: skip
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    if len(cells):
        axis.set_xlim(0.8, max(20.0, 1.3 * cells["compression_ratio"].max()))
    axis.set(xlabel="compression ratio: parameters / parameters not exactly zero", ylabel="mean test accuracy, %")
    axis.legend(fontsize="small")
    return figure


def _front(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells that no other beats in both compression and accuracy, by rising compression."""
    ordered = cells.sort_values(["compression_ratio", "test"], ascending=[False, False])
    best = ordered["test"].cummax()
    return ordered[(ordered["test"] >= best) & ~best.duplicated()].iloc[::-1]


@styled
def prune_curves(analysis: Analysis) -> Figure | None:
    """Test accuracy over the share of weights zeroed, means over seeds at each method's chosen lam; None without data.

    The axis is logarithmic in what is left, 1 - share: most of what tells methods apart happens where little is.
    """
    columns = prune_curve(analysis.cells)
    cells = analysis.cells.dropna(subset=[*columns])
    drawn = [(method, cells[(cells["method"] == method) & (cells["lam"] == analysis.chosen(method))])
             for method in analysis.methods]  # fmt: skip
    drawn = [(method, own.iloc[0]) for method, own in drawn if len(own)]
    if not columns or not drawn:
        return None
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    palette = colours(analysis.methods)
    left = [1 - share for share in columns.values()]
    for method, cell in drawn:
        lam = "" if method == BASELINE else f" lam={format_lam(cell['lam'])}"
        place = analysis.methods.index(method)
        axis.plot(left, [100 * cell[name] for name in columns], marker=MARKERS[place % len(MARKERS)], markersize=5,
                  linewidth=1.4, color=palette[method], label=f"{shown(method)}{lam}")  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlim(1.15, 0.85 * min(left))
    axis.set_xticks(left, [f"{100 * share:g}" for share in columns.values()])
    axis.set_xticks([], minor=True)
    axis.set_ylim(bottom=0)
    axis.set(xlabel="smallest weights zeroed, % (no training after it)", ylabel="mean test accuracy, %")
    axis.legend(fontsize="small")
    return figure


@styled
def learning_curves(analysis: Analysis, epochs: pd.DataFrame) -> Figure:
    """Accuracy and cross-entropy per epoch at each method's chosen lam, means over seeds: training and validation."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    palette = colours(analysis.methods)
    for method in analysis.methods:
        own = epochs[(epochs["method"] == method) & (epochs["lam"] == analysis.chosen(method))]
        if own.empty:
            continue
        means = own.groupby("epoch")[["train/accuracy", "val/accuracy", "train/loss", "val/loss"]].mean()
        for axis, name, factor in ((left, "accuracy", 100), (right, "loss", 1)):
            axis.plot(means.index, factor * means[f"train/{name}"], ":", color=palette[method], linewidth=1.2)
            axis.plot(means.index, factor * means[f"val/{name}"], "-", color=palette[method], linewidth=1.6,
                      label=shown(method) if axis is left else None)  # fmt: skip
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="epoch", ylabel="accuracy, %")
    right.set(xlabel="epoch", ylabel="cross-entropy without penalty")
    right.plot([], [], "-", color="black", label="validation")
    right.plot([], [], ":", color="black", label="training, during the epoch")
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize="small")
    return figure


@styled
def layer_sparsity(analysis: Analysis, layers: pd.DataFrame) -> Figure:
    """Heat map of method at its chosen lam against layer: share of exact zeros, and of weights below 1e-3."""
    own = pd.concat([
        layers[(layers["method"] == method) & (layers["lam"] == analysis.chosen(method))] for method in analysis.methods
    ])  # fmt: skip
    order = list(dict.fromkeys(own["layer"]))
    methods = [method for method in analysis.methods if method in set(own["method"])]
    figure = Figure(figsize=(1.3 * len(order) + 2.0, 0.45 * len(methods) + 1.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, metric, title in zip(
        axes, ("sparsity/exact", "sparsity/abs_1e-3"), ("exact zeros, %", "|w| < 1e-3, %"), strict=True
    ):
        table = 100 * own.pivot_table(index="method", columns="layer", values=metric).loc[methods, order]
        table.columns = [shown(name.removesuffix(".weight")) for name in table.columns]
        table.index = [shown(method) for method in table.index]
        sns.heatmap(table, ax=axis, annot=True, fmt=".1f", linewidths=1, vmin=0, vmax=100, cmap="viridis_r", cbar=False,
                    annot_kws={"size": 8})  # fmt: skip
        axis.set(title=title, xlabel="", ylabel="")
        axis.tick_params(axis="x", rotation=35)
        axis.tick_params(axis="y", rotation=0)
    return figure


@styled
def weight_histograms(weights: Mapping[str, np.ndarray], palette: Mapping[str, object]) -> Figure:
    """All regularized weights of one trial per method, on one logarithmic axis of counts."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    limit = max((np.quantile(np.abs(w), 0.9999) for w in weights.values()), default=1.0) or 1.0
    edges = np.linspace(-limit, limit, 202)
    for method, w in weights.items():
        counts, _ = np.histogram(np.clip(w, -limit, limit), bins=edges)
        axis.stairs(counts, edges, color=palette[method], linewidth=1.3, label=shown(method))
    axis.set(yscale="log", xlabel="weight (the outermost bins hold what lies beyond)", ylabel="number of weights")
    axis.legend(fontsize="small")
    return figure


@styled
def output_bars(outputs: Mapping[str, np.ndarray], palette: Mapping[str, object], layer: str) -> Figure:
    """The notebook's bar plot of the output layer's weights, a panel per method on one scale."""
    figure = Figure(figsize=(7.2, 1.5 * len(outputs) + 0.6), layout="constrained")
    axes = figure.subplots(len(outputs), 1, squeeze=False, sharex=True, sharey=True).flatten()
    for axis, (method, w) in zip(axes, outputs.items(), strict=True):
        axis.fill_between(np.arange(w.size), w.flatten(), step="mid", color=palette[method], linewidth=0,
                          antialiased=False, rasterized=True)  # fmt: skip
        axis.set_ylabel(shown(method))
        axis.set_xlim(0, w.size)
    axes[-1].set_xlabel(f"weight of {shown(layer)} ({next(iter(outputs.values())).size:,} in all)")
    return figure
