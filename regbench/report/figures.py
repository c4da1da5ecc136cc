"""The report's figures: each a function of a report's material, registered by its decorator.

The report shows them in the order in which they are defined here, but for those beside their tables.
"""

import math
import unicodedata
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from regbench.files import atomic
from regbench.matplotlib_defaults import defaults
from regbench.report import fonts, pruning
from regbench.report.inputs import Material
from regbench.report.language import ENGLISH, current, gettext, ngettext, use
from regbench.report.text import counted, in_words
from regbench.statistics.verdict import MARGIN
from regbench.tracking.schema import ALL_LAYERS, GRID
from regbench.trial import BASELINE, format_lam

Draw = Callable[[Material], Figure | None]
BASELINE_COLOUR = "#555555"
MARKERS = "osD^vP*X<>"
# a lam that ruins the network would squeeze all others into a line: what lies further below `none` is named at the edge
SHOWN_BELOW = 0.10
SHOWN_WIDTH = 0.001  # of a histogram of weights: what its heights are numbers of weights in
NAME_LENGTH = 60
# the same runs must give the same bytes, so nothing random or dated goes into a file
RC = {"svg.hashsalt": "regbench", "svg.fonttype": "none", "savefig.dpi": 130, "font.size": 9}
# file formats of a figure, with the metadata to omit so that the same figure gives the same bytes
SUFFIXES = {".png": {"Software": None}, ".svg": {"Date": None}}
PICTURE = ".png"  # of these, the one that a report shows


class Plot(NamedTuple):
    """A figure of the report: its caption in English, the files of trials that it needs (see `figure`), how it is drawn."""

    caption: str
    files: str
    draw: Draw


FIGURES: dict[str, Plot] = {}


def figure(caption: str, files: str = "") -> Callable[[Draw], Draw]:
    """Register a function of the report's material as the figure of its name, drawn in seaborn's style.

    The caption is a message of the catalogues, like those of `gettext`. Labels are in the report's language if there is a
    font for it. The function returns None where there is nothing to draw. `files`: the part of the material, as `layers`,
    without which it is not asked, since the trials' files may be gone.
    """

    def register(draw: Draw) -> Draw:
        @wraps(draw)
        def styled(material: Material) -> Figure | None:
            if material.runs.trials.empty or (files and not len(getattr(material, files))):
                return None
            language = current() if fonts.can_write(current()) else ENGLISH
            with use(language), defaults(sns.axes_style("whitegrid") | _settings()):
                return draw(material)

        FIGURES[draw.__name__] = Plot(caption, files, styled)
        return styled

    return register


def draw(material: Material) -> dict[str, Figure]:
    """Return the figures for which there is something to draw, by name."""
    drawn = {name: plot.draw(material) for name, plot in FIGURES.items()}
    return {name: found for name, found in drawn.items() if found is not None}


def describe_missing(material: Material) -> str:
    """Return which figures are left out since files of trials are not there or cannot be read; "" if all are there."""
    if not material.missing:
        return ""
    lost = [name for name, plot in FIGURES.items() if plot.files and not len(getattr(material, plot.files))]
    what = gettext("left out for it: {figures}") if lost else gettext("figures lack these trials")
    sentence = ngettext(
        "{count} file of trials missing or damaged, as after a folder was moved or deleted (the first: {first}); {what}.",
        "{count} files of trials missing or damaged, as after a folder was moved or deleted (the first: {first}); {what}.",
        len(material.missing),
    )
    what = what.format(figures=", ".join(lost))
    return sentence.format(count=len(material.missing), first=material.missing[0], what=what)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write name.png and name.svg into `folder`."""
    with defaults(_settings()):
        # laid out once for both formats: it takes as long as drawing
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for suffix, metadata in SUFFIXES.items():
            with atomic(folder / f"{name}{suffix}") as path:
                figure.savefig(path, format=suffix[1:], metadata=metadata)


def _settings() -> dict[str, object]:
    """Return matplotlib's settings, with the font of the report's language, and its own one for what that lacks."""
    family = fonts.family(current())
    return RC | ({"font.family": [family, "DejaVu Sans"]} if family else {})


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


def _width(label: str) -> float:
    """Return about how wide a label is, in Latin letters."""
    return sum(1.4 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in label)


def _subplots(width: float, height: float, *shape: int, **settings: bool) -> tuple[Figure, Any]:
    """Return a figure of this size in inches, and its axes as `Figure.subplots` returns them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*shape, **settings)


@figure("Difference from `none` at the chosen lam")
def forest(material: Material) -> Figure | None:
    """Return the paired difference from `none` of each method with its interval, over the margin of equivalence."""
    analysis = material.analysis
    rows = list(analysis.comparisons.items())
    if not any(found.difference.n for _, found in rows):
        return None
    figure, axis = _subplots(6.4, 0.5 * len(rows) + 1.6)
    palette = colours(analysis.methods)
    axis.axvspan(-100 * MARGIN, 100 * MARGIN, color=BASELINE_COLOUR, alpha=0.15, linewidth=0,
                 label=gettext("equivalent: within {margin} pp").format(margin=f"{100 * MARGIN:g}"))  # fmt: skip
    axis.axvline(0, color=BASELINE_COLOUR, linewidth=1)
    for index, (method, found) in enumerate(rows):
        mean, low, high = (100 * getattr(found.difference, name) for name in ("mean", "low", "high"))
        if found.difference.bounded:
            axis.plot([low, high], [index, index], color=palette[method], linewidth=2, solid_capstyle="butt")
        else:
            side, where = (-1, "right") if mean > 0 else (1, "left")  # towards the middle
            axis.annotate(gettext("no interval: too few seeds"), (np.nan_to_num(mean), index), xytext=(8 * side, 0),
                          textcoords="offset points", ha=where, va="center", fontsize="small")  # fmt: skip
        axis.plot(mean, index, "o", color=palette[method], markersize=7)
    form = gettext("{name} lam={lam}, {seeds}\n{verdict}").format
    names = [
        form(name=shown(method), lam=format_lam(analysis.lam(method)), seeds=counted(found.difference.n, "seed"),
             verdict=in_words(found.verdict))
        for method, found in rows
    ]  # fmt: skip
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    # on two lines, since long names leave it little room
    axis.set_xlabel(gettext("test accuracy minus that of none\non the same fresh seeds, pp"))
    axis.legend(loc="best", fontsize="small")
    axis.grid(visible=False, axis="y")
    return figure


@figure("Test accuracy against lam in the grid")
def accuracy_against_lam(material: Material) -> Figure | None:
    return _against_lam(material, "test/accuracy", "test", gettext("test accuracy, %"), floor=True)


@figure("Learning curves at the chosen lam, means over seeds")
def learning_curves(material: Material) -> Figure | None:
    """Return accuracy and cross-entropy of training and validation over epochs, means over seeds, at each chosen lam."""
    analysis, epochs = material.analysis, material.epochs
    if epochs.empty:
        return None
    figure, (left, right) = _subplots(8.4, 3.6, 1, 2)
    palette = colours(analysis.methods)
    for method in analysis.methods:
        own = analysis.at_chosen(epochs, method)
        if own.empty:
            continue
        means = own.groupby("epoch")[["train/accuracy", "val/accuracy", "train/loss", "val/loss"]].mean()
        for axis, name, factor in ((left, "accuracy", 100), (right, "loss", 1)):
            axis.plot(means.index, factor * means[f"train/{name}"], ":", color=palette[method], linewidth=1.2)
            axis.plot(means.index, factor * means[f"val/{name}"], "-", color=palette[method], linewidth=1.6,
                      label=shown(method) if axis is left else None)  # fmt: skip
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel=gettext("epoch"), ylabel=gettext("accuracy, %"))
    right.set(xlabel=gettext("epoch"), ylabel=gettext("cross-entropy without penalty"))
    right.plot([], [], "-", color="black", label=gettext("validation"))
    right.plot([], [], ":", color="black", label=gettext("training, during the epoch"))
    longest = max(_width(label) for axis in (left, right) for label in axis.get_legend_handles_labels()[1])
    ncols = max(1, min(6, int(figure.get_figwidth() / (0.6 + 0.075 * longest))))  # inches of an entry
    figure.legend(loc="outside lower center", ncols=ncols, frameon=False, fontsize="small")
    return figure


@figure("Generalisation gap against lam in the grid")
def gap_against_lam(material: Material) -> Figure | None:
    return _against_lam(material, "gap/accuracy", "gap", gettext("training minus test accuracy, pp"))


@figure("Accuracy against compression")
def accuracy_against_compression(material: Material) -> Figure | None:
    """Return every cell's mean test accuracy over its compression ratio (log), with the front of what nothing beats."""
    analysis = material.analysis
    cells = analysis.cells.dropna(subset=["compression_ratio", "test"])
    if cells.empty:
        return None
    figure, axis = _subplots(6.4, 4)
    palette = colours(analysis.methods)
    for index, method in enumerate(analysis.methods):
        own = cells[cells["method"] == method]
        axis.plot(own["compression_ratio"], 100 * own["test"], MARKERS[index % len(MARKERS)], color=palette[method],
                  markersize=7, alpha=0.85, label=shown(method))  # fmt: skip
    front = _front(cells)
    if len(front) > 1:
        axis.step(front["compression_ratio"], 100 * front["test"], where="pre", color="black", linewidth=0.8,
                  label=gettext("front"))  # fmt: skip
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_xlim(0.8, max(20.0, 1.3 * cells["compression_ratio"].max()))
    axis.set(xlabel=gettext("compression ratio: parameters / parameters not exactly zero"),
             ylabel=gettext("mean test accuracy, %"))  # fmt: skip
    axis.legend(fontsize="small")
    return figure


@figure("Test accuracy against the share of zeroed weights, means over seeds")
def prune_curves(material: Material) -> Figure | None:
    """Return mean test accuracy over the share of zeroed weights: after training, or by methods that prune and then train.

    The axis is logarithmic in what is left, 1 - share: most of what tells methods apart happens where little is.
    """
    analysis = material.analysis
    curves = pruning.curves(analysis)
    if not curves:
        return None
    figure, axis = _subplots(8.6, 4.4)
    palette = colours(analysis.methods)
    for place, curve in enumerate(curves):
        name, own, size = shown(curve.method), palette[curve.method], 1 - place / len(curves)
        if curve.lam is None:
            label = gettext("{name}, then trained").format(name=name)
            style = {"linestyle": "--", "markerfacecolor": "white"}
        else:
            label, style = name if curve.method == BASELINE else f"{name} lam={format_lam(curve.lam)}", {}
        marker = MARKERS[analysis.methods.index(curve.method) % len(MARKERS)]
        axis.plot([1 - share for share in curve.accuracies], [100 * accuracy for accuracy in curve.accuracies.values()],
                  marker=marker, color=own, label=label, **style,
                  # of lines that lie on each other each is seen
                  markersize=4.5 + 2.5 * size, linewidth=1.1 + 1.1 * size)  # fmt: skip
    shares = sorted({share for curve in curves for share in curve.accuracies})
    axis.set_xscale("log")
    axis.set_xlim(1.15, 0.85 * (1 - shares[-1]))
    axis.set_xticks([1 - share for share in shares], [f"{100 * share:g}" for share in shares])
    axis.set_xticks([], minor=True)
    axis.set_ylim(bottom=0)
    title = gettext("smallest weights zeroed, % (no training after it)")
    if any(curve.lam is None for curve in curves):
        title = gettext(
            "weights zeroed, %: the smallest, after training;\ndashed: by the regularizer, before or in training"
        )
    axis.set(xlabel=title, ylabel=gettext("mean test accuracy, %"))
    # beside the curves, which leave no corner free
    figure.legend(fontsize="small", handlelength=3, loc="outside right upper", frameon=False)
    return figure


@figure("Sparsity per layer at the chosen lam, means over seeds", files="layers")
def layer_sparsity(material: Material) -> Figure:
    """Return heat maps of method at its chosen lam against layer: share of exact zeros, and of weights below 1e-3."""
    analysis = material.analysis
    own = pd.concat([analysis.at_chosen(material.layers, method) for method in analysis.methods])
    order = list(dict.fromkeys(own["layer"]))
    methods = [method for method in analysis.methods if method in set(own["method"])]
    figure, axes = _subplots(1.3 * len(order) + 2.0, 0.45 * len(methods) + 1.4, 1, 2, sharey=True)
    shares = {"sparsity/exact": gettext("exact zeros, %"), "sparsity/abs_1e-3": gettext("|w| < 1e-3, %")}
    for axis, (metric, title) in zip(axes, shares.items(), strict=True):
        table = 100 * own.pivot_table(index="method", columns="layer", values=metric).loc[methods, order]
        table.columns = [shown(name.removesuffix(".weight")) for name in table.columns]
        table.index = [shown(method) for method in table.index]
        sns.heatmap(table, ax=axis, annot=True, fmt=".1f", linewidths=1, vmin=0, vmax=100, cmap="viridis_r", cbar=False,
                    annot_kws={"size": 8})  # fmt: skip
        axis.set(title=title, xlabel="", ylabel="")
        axis.tick_params(axis="x", rotation=35)
        axis.tick_params(axis="y", rotation=0)
    return figure


@figure("All weights, biases left out, of one trial each at the chosen lam", files="histograms")
def weight_histograms(material: Material) -> Figure | None:
    """Return histograms of all weights of one trial per method, as densities on one logarithmic axis."""
    analysis, every = material.analysis, material.histograms
    every = every[(every["layer"] == ALL_LAYERS) & (every["lam"] == every["method"].map(analysis.lam))]
    found = {method: own for method in analysis.methods if len(own := every[every["method"] == method])}
    if not found:
        return None
    palette = colours(analysis.methods)
    figure, axis = _subplots(6.4, 3.6)
    for method, own in found.items():
        # bins are as wide as the method's own weights ask for
        density = SHOWN_WIDTH * own["count"] / (own["high"] - own["low"])
        axis.stairs(density, [*own["low"], own["high"].iloc[-1]], color=palette[method], linewidth=1.3,
                    label=shown(method))  # fmt: skip
    limit = max(_limit(own) for own in found.values())
    axis.set(yscale="log", xlim=(-limit, limit), xlabel=gettext("weight"),
             ylabel=gettext("weights per {width:g}").format(width=SHOWN_WIDTH))  # fmt: skip
    axis.legend(fontsize="small")
    return figure


def _limit(own: pd.DataFrame) -> float:
    """Return how far from 0 all but the 0.01 % largest weights of a histogram are."""
    far = own[["low", "high"]].abs().max(axis=1).to_numpy()
    order = far.argsort(kind="stable")
    counted = own["count"].to_numpy()[order].cumsum()
    within = int((counted <= 0.9999 * counted[-1]).sum())
    return float(far[order[min(within, len(far) - 1)]]) or 1.0


@figure("The output layer's weights of one trial each at the chosen lam, the notebook's bar plot", files="outputs")
def output_bars(material: Material) -> Figure:
    """Return the notebook's bar plot of the output layer's weights, a panel per method on one scale."""
    outputs = {name: material.outputs[name] for name in material.analysis.methods if name in material.outputs}
    palette = colours(material.analysis.methods)
    figure, axes = _subplots(7.2, 1.5 * len(outputs) + 0.6, len(outputs), 1, squeeze=False, sharex=True, sharey=True)
    for axis, (method, (_, w)) in zip(axes.flat, outputs.items(), strict=True):
        axis.fill_between(np.arange(w.size), w.flatten(), step="mid", color=palette[method], linewidth=0,
                          antialiased=False, rasterized=True)  # fmt: skip
        axis.set_title(shown(method), loc="left", fontsize="medium")  # beside a panel a long name has no room
        axis.set_xlim(0, w.size)
    layer = shown(next(iter(outputs.values()))[0].removesuffix(".weight"))
    axes[-1, 0].set_xlabel(gettext("weight of {layer} ({count:,} in all)").format(layer=layer, count=w.size))
    return figure


def _against_lam(material: Material, metric: str, prefix: str, label: str, floor: bool = False) -> Figure | None:
    """Return one panel per method over lam: a dot per seed, mean, lowest and highest; `none` as a band.

    With `floor`, cells far below `none` are named at the lower edge instead of setting the scale.
    """
    analysis, trials = material.analysis, material.runs.trials
    cells = analysis.cells[analysis.cells[prefix].notna()]
    if cells.empty:
        return None
    methods = [name for name in dict.fromkeys(cells["method"]) if name != BASELINE] or [BASELINE]
    columns = min(3, len(methods))
    rows = math.ceil(len(methods) / columns)
    figure, grid = _subplots(3.3 * columns + 0.8, 2.8 * rows + 0.8, rows, columns, squeeze=False, sharey=True)
    axes = grid.flatten()
    palette = colours(analysis.methods)
    usable = trials[(trials["stage"] == GRID) & (trials["outcome"] != "diverged")]
    if analysis.design.selection:
        usable = usable[usable["seed"].isin(analysis.design.selection)]
    usable = usable.reindex(columns=[*usable.columns.union([metric])])  # another program's run may lack it
    cells = analysis.cells
    base = cells[cells["method"] == BASELINE]
    lowest = base[prefix].iloc[0] - SHOWN_BELOW if floor and len(base) and base[prefix].notna().all() else -np.inf
    for axis, method in zip(axes, methods, strict=False):
        every = cells[(cells["method"] == method) & cells[prefix].notna()]
        own = every[every[prefix] >= lowest]
        if len(base) and base[prefix].notna().all():
            low, high = base[f"{prefix}_low"].iloc[0], base[f"{prefix}_high"].iloc[0]
            axis.axhline(100 * base[prefix].iloc[0], color=BASELINE_COLOUR, linewidth=1,
                         label=gettext("none, lowest to highest"))  # fmt: skip
            if np.isfinite([low, high]).all():
                axis.axhspan(100 * low, 100 * high, color=BASELINE_COLOUR, alpha=0.2, linewidth=0)
        if method != BASELINE:
            dots = usable[(usable["method"] == method) & usable[metric].notna() & usable["lam"].isin(own["lam"])]
            beside = offset_copy(axis.transData, figure, x=5, units="points")
            axis.plot(dots["lam"], 100 * dots[metric], ".", color=palette[method], alpha=0.55, markersize=5,
                      transform=beside, label=gettext("a seed"))  # fmt: skip
            errors = 100 * np.vstack([own[prefix] - own[f"{prefix}_low"], own[f"{prefix}_high"] - own[prefix]]).clip(0)
            axis.errorbar(own["lam"], 100 * own[prefix], yerr=errors, color=palette[method], marker="o", markersize=5,
                          capsize=3, linewidth=1.2, label=gettext("mean, lowest to highest"))  # fmt: skip
            _lam_axis(axis, every["lam"])
            for _, cell in every[every[prefix] < lowest].iterrows():
                axis.annotate(f"{100 * cell[prefix]:.0f} %\n\u25bc", (cell["lam"], 0), xycoords=("data", "axes fraction"),
                              xytext=(0, 2), textcoords="offset points", ha="center", fontsize="small")  # fmt: skip
            chosen = analysis.lam(method)
            if chosen is not None:
                axis.axvline(chosen, color=palette[method], linestyle=":", linewidth=1.2,
                             label=gettext("chosen on validation"))  # fmt: skip
        axis.set(title=shown(method), xlabel="lam")
    for axis in axes[::columns]:
        axis.set_ylabel(label)
    for axis in axes[len(methods) :]:
        axis.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    ncols = min(4, 2 * columns)
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols, frameon=False, fontsize="small")
    return figure


def _lam_axis(axis: Axes, lams: pd.Series) -> None:
    """Scale the axis to hold these lams: logarithmic over a decade and more; below two decades each lam has its tick."""
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


def _front(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells that no other beats in both compression and accuracy, by rising compression."""
    ordered = cells.sort_values(["compression_ratio", "test"], ascending=[False, False])
    best = ordered["test"].cummax()
    return ordered[(ordered["test"] >= best) & ~best.duplicated()].iloc[::-1]
