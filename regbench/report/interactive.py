"""The interactive figures of report.html: each a function of a report's material, registered by its decorator."""

import json
import math
from collections.abc import Callable, Collection

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from regbench.report import pruning, vega
from regbench.report.figures import SHOWN_BELOW
from regbench.report.inputs import Material
from regbench.report.language import gettext, ngettext
from regbench.report.load import CURVES
from regbench.report.pairs import TEST, Fresh
from regbench.report.text import in_words, number
from regbench.report.vega import Chart, Control
from regbench.statistics.verdict import MARGIN
from regbench.tracking.schema import ALL_LAYERS, GRID
from regbench.trial import BASELINE, format_lam

HISTOGRAMS = 400  # embedded at most: of more layers those with most weights

# of rows with the columns that `_with_lams` adds
AT_LAM = {"filter": "position == 0 ? datum.chosen : datum.position == position || datum.position == 0"}

Make = Callable[[Material], Chart | None]
CHARTS: dict[str, list[Make]] = {}


def chart(figure: str) -> Callable[[Make], Make]:
    """Register a function of the report's material as one of the charts in the place of the figure of this name.

    It returns None where there is nothing to draw.
    """

    def register(make: Make) -> Make:
        CHARTS.setdefault(figure, []).append(make)
        return make

    return register


def charts(material: Material, figures: Collection[str] = CHARTS) -> dict[str, list[Chart]]:
    """Return the charts in the place of each of these figures, by its name; a figure that has none is left out."""
    if material.runs.trials.empty:
        return {}
    made = {name: [make(material) for make in CHARTS[name]] for name in figures}
    found = {name: [one for one in several if one is not None] for name, several in made.items()}
    return {name: several for name, several in found.items() if several}


@chart("forest")
def forest(material: Material) -> Chart | None:
    """Return the difference from `none` of each regularizer with its interval."""
    analysis = material.analysis
    if not any(found.difference.n for found in analysis.comparisons.values()):
        return None
    rows = []
    for method, found in analysis.comparisons.items():
        interval, lam = found.difference, format_lam(analysis.lam(method))
        seeds = ngettext("{number} seed", "{number} seeds", interval.n).format(number=interval.n)
        rows.append({
            "regularizer": method, "lam": lam, "seeds": interval.n, "difference": 100 * interval.mean,
            "low": 100 * interval.low if interval.bounded else math.nan,
            "high": 100 * interval.high if interval.bounded else math.nan,
            "lower": number(100 * interval.low if interval.bounded else math.nan, "+.2f"),
            "upper": number(100 * interval.high if interval.bounded else math.nan, "+.2f"),
            "p": number(found.p_adjusted if interval.bounded else math.nan, ".3f"), "verdict": in_words(found.verdict),
            "label": f"{_line(method)} lam={lam}\n{seeds}: {in_words(found.verdict)}",
        })  # fmt: skip
    tooltip = vega.tooltip(
        regularizer=gettext("regularizer"), lam="lam", seeds=gettext("seeds"), difference=gettext("difference, pp"),
        lower=gettext("interval from"), upper=gettext("interval to"), p=gettext("adjusted p"), verdict=gettext("verdict"),
    )  # fmt: skip
    axis = {"title": None, "labelExpr": r"split(datum.label, '\n')", "labelLimit": 190, "grid": False, "ticks": False}
    place = {"field": "label", "type": "nominal", "sort": None, "axis": axis}
    title = gettext("difference, pp")
    ends = {"x": vega.number("low", title), "x2": {"field": "high"}, "y": place}
    layers = [
        {"mark": {"type": "rect", "style": "band"}, "data": {"values": [{}]},
         "encoding": {"x": {"datum": -100 * MARGIN}, "x2": {"datum": 100 * MARGIN}}},
        {"mark": {"type": "rule", "style": "zero"}, "data": {"values": [{}]}, "encoding": {"x": {"datum": 0}}},
        {"mark": {"type": "rule", "size": 3}, "encoding": ends | {"color": vega.colour(analysis, [])}},
        {"mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
         "encoding": {"x": vega.number("difference", title), "y": place} | vega.kinds(analysis, [])},
    ]  # fmt: skip
    for layer in layers[2:]:
        layer["encoding"] |= tooltip
    caption = gettext(
        "Test accuracy minus that of none on the same fresh seeds, at the chosen lam; in the band it is equivalent: within "
        "{margin} points."
    )
    spec = vega.spec(layers, height=44 * len(rows))
    return Chart(caption.format(margin=f"{100 * MARGIN:g}"), spec, {vega.TABLE: pd.DataFrame(rows)})


@chart("forest")
def paired(material: Material) -> Chart | None:
    """Return each regularizer's test accuracy over that of `none` on the same fresh seed."""
    analysis, rows = material.analysis, []
    trained = Fresh(material.runs, analysis.design)
    for method, found in analysis.comparisons.items():
        for seed in trained.seeds(method, BASELINE)[: found.looked or None]:
            own, none = trained.accuracy(method, seed), trained.accuracy(BASELINE, seed)
            if own is None or none is None:
                break
            rows.append({"regularizer": method, "lam": format_lam(analysis.lam(method)), "seed": seed,
                         "own": 100 * own, "none": 100 * none, "difference": 100 * (own - none)})  # fmt: skip
    table = pd.DataFrame(rows).dropna() if rows else pd.DataFrame()
    if table.empty:
        return None
    table = vega.with_edge(table, "own", table["none"].min() - 100 * SHOWN_BELOW)
    shown = list(analysis.comparisons)
    ends = [table["none"].min(), table["none"].max()]
    x, y = gettext("test accuracy of none, %"), gettext("test accuracy with the regularizer, %")
    tooltip = vega.tooltip(
        regularizer=gettext("regularizer"), lam="lam", seed=gettext("seed"), own=gettext("test, %"),
        none=gettext("none, %"), difference=gettext("difference, pp"),
    )  # fmt: skip
    place = {"x": vega.number("none", x), "y": vega.number("shown", y)} | tooltip
    layers = [
        {"mark": {"type": "line", "style": "zero"}, "data": {"values": [{"x": end, "y": end} for end in ends]},
         "encoding": {"x": vega.number("x", x), "y": vega.number("y", y)}},
        vega.picked({"mark": {"type": "point", "filled": True, "size": 60}, "encoding": place | vega.kinds(analysis, shown),
                     "transform": [{"filter": f"!datum.{vega.BELOW}"}]}),
        *vega.edge(table, place | {"color": vega.colour(analysis, shown)}),
    ]  # fmt: skip
    caption = gettext("Every fresh seed, with and without the regularizer: above the line it is better with it.")
    return Chart(caption, vega.spec(layers, pick=True), {vega.TABLE: table})


@chart("accuracy_against_lam")
def accuracy(material: Material) -> Chart | None:
    """Return the mean test accuracy of each cell of the grid over lam, and that of every seed."""
    caption = gettext(
        "Test accuracy against lam in the grid: means, and every seed; ringed: the chosen lam; grey: none."
    )
    return _against_lam(material, TEST, "test", caption, gettext("test accuracy, %"), SHOWN_BELOW)


@chart("gap_against_lam")
def gap(material: Material) -> Chart | None:
    """Return the same of the generalisation gap."""
    caption = gettext(
        "Generalisation gap against lam in the grid: means, and every seed; ringed: the chosen lam; grey: none."
    )
    return _against_lam(material, "gap/accuracy", "gap", caption, gettext("training minus test accuracy, pp"), math.inf)


def _against_lam(material: Material, metric: str, prefix: str, caption: str, title: str, below: float) -> Chart | None:
    """Return means over lam, with the seeds; what is `below` the baseline by more than that is drawn at the edge."""
    analysis, trials = material.analysis, material.runs.trials
    cells = analysis.cells[analysis.cells[prefix].notna()]
    cells = pd.DataFrame({
        "regularizer": cells["method"], "x": cells["lam"], "lam": cells["lam"].map(format_lam), "seeds": cells["n"],
        **{name: 100 * cells[f"{prefix}{suffix}"] for name, suffix in (("mean", ""), ("low", "_low"), ("high", "_high"))},
        "chosen": [int(analysis.lam(method) == lam) for method, lam in zip(cells["method"], cells["lam"], strict=True)],
    })  # fmt: skip
    base, cells = (cells[cells["regularizer"] == BASELINE], cells[cells["x"] > 0])
    if cells.empty or metric not in trials:
        return None
    usable = trials[(trials["stage"] == GRID) & (trials["outcome"] != "diverged") & trials[metric].notna()]
    if analysis.design.selection:
        usable = usable[usable["seed"].isin(analysis.design.selection)]
    usable = usable[usable["lam"] > 0]
    seeds = pd.DataFrame({"regularizer": usable["method"], "x": usable["lam"], "lam": usable["lam"].map(format_lam),
                          "seed": usable["seed"], "value": 100 * usable[metric]})  # fmt: skip
    floor = base["mean"].iloc[0] - 100 * below if len(base) else -math.inf
    # of a few lams within a decade a logarithmic axis has hardly a label
    scale = {"type": "log"} if cells["x"].max() >= 10 * cells["x"].min() else {"zero": False}
    scale |= {"padding": vega.PADDING, "nice": False}
    x = {"field": "x", "type": "quantitative", "title": "lam", "scale": scale, "axis": {"format": "~e", "tickCount": 6}}
    shown = list(dict.fromkeys(cells["regularizer"]))
    names = {"regularizer": gettext("regularizer"), "lam": "lam"}
    of_cell = vega.tooltip(
        **names, seeds=gettext("seeds"), mean=gettext("mean"), low=gettext("lowest"), high=gettext("highest")
    )
    of_seed = vega.tooltip(**names, seed=gettext("seed"), value=gettext("value"))
    cells, seeds = vega.with_edge(cells, "mean", floor), vega.with_edge(seeds, "value", floor)
    inside, place = [{"filter": f"!datum.{vega.BELOW}"}], {"x": x, "y": vega.number("shown", title)} | of_cell
    colour = {"color": vega.colour(analysis, shown)}
    layers = [
        {"data": {"name": "base"}, "mark": {"type": "rect", "style": "band"},
         "encoding": {"y": vega.number("low", title), "y2": {"field": "high"}} | of_cell},
        {"data": {"name": "base"}, "mark": {"type": "rule", "style": "zero"},
         "encoding": {"y": vega.number("mean", title)} | of_cell},
        vega.picked({"transform": inside, "mark": "line",
                     "encoding": {"x": x, "y": vega.number("mean", title)} | colour}),
        vega.picked({"data": {"name": "seeds"}, "transform": inside, "mark": {"type": "circle", "size": 22},
                     "encoding": {"x": x, "y": vega.number("value", title)} | colour | of_seed}, opacity=0.6),
        vega.picked({"transform": inside, "mark": {"type": "point", "filled": True, "size": 70},
                     "encoding": place | vega.kinds(analysis, shown)}),
        vega.picked({"transform": [*inside, {"filter": "datum.chosen"}],
                     "mark": {"type": "point", "shape": "circle", "filled": False, "size": 260, "strokeWidth": 1.5},
                     "encoding": place | colour}),
        *vega.edge(seeds, {"x": x, "y": vega.number("shown", title)} | colour | of_seed, "seeds", size=30),
        *vega.edge(cells, place | colour),
    ]  # fmt: skip
    return Chart(caption, vega.spec(layers, pick=True), {vega.TABLE: cells, "seeds": seeds, "base": base})


@chart("accuracy_against_compression")
def compression(material: Material) -> Chart | None:
    """Return every cell's mean test accuracy over its compression ratio."""
    analysis = material.analysis
    cells = analysis.cells.dropna(subset=["compression_ratio", "test"])
    if cells.empty:
        return None
    table = pd.DataFrame({
        "regularizer": cells["method"], "lam": cells["lam"].map(format_lam), "ratio": cells["compression_ratio"],
        "zeros": 100 * cells["sparsity/exact"], "mean": 100 * cells["test"],
    })  # fmt: skip
    shown = list(dict.fromkeys(table["regularizer"]))
    x = {"field": "ratio", "type": "quantitative", "title": gettext("compression ratio"),
         "scale": {"type": "log", "padding": vega.PADDING, "domainMin": 1, "nice": False},
         "axis": {"format": "~g", "tickCount": 6}}  # fmt: skip
    tooltip = vega.tooltip(
        regularizer=gettext("regularizer"), lam="lam", ratio=gettext("compression"), zeros=gettext("exact zeros, %"),
        mean=gettext("mean"),
    )  # fmt: skip
    y = vega.number("mean", gettext("mean test accuracy, %"))
    mark = {"type": "point", "filled": True, "size": 70}
    layers = [vega.picked({"mark": mark, "encoding": {"x": x, "y": y} | vega.kinds(analysis, shown) | tooltip}, 0.85)]
    caption = gettext(
        "Accuracy against compression, parameters over those not exactly zero: every regularizer and lam."
    )
    return Chart(caption, vega.spec(layers, pick=True), {vega.TABLE: table})


@chart("prune_curves")
def pruned(material: Material) -> Chart | None:
    """Return test accuracy over the share of zeroed weights, on an axis that is logarithmic in what is left."""
    analysis = material.analysis
    curves = pruning.curves(analysis)
    if not curves:
        return None
    table = pd.DataFrame(
        {"regularizer": curve.method, "lam": format_lam(share if curve.lam is None else curve.lam), "left": 1 - share,
         "share": 100 * share, "value": 100 * accuracy, "trained": int(curve.lam is None)}
        for curve in curves for share, accuracy in curve.accuracies.items()
    )  # fmt: skip
    shown = [curve.method for curve in curves]
    axis = {"values": sorted(set(table["left"])), "labelExpr": "format(100 - 100 * datum.value, '.3~g')"}
    x = {"field": "left", "type": "quantitative", "title": gettext("weights zeroed, %"), "axis": axis,
         "scale": {"type": "log", "reverse": True, "padding": vega.PADDING, "nice": False}}  # fmt: skip
    tooltip = vega.tooltip(
        regularizer=gettext("regularizer"), lam="lam", share=gettext("zeroed, %"), value=gettext("mean"),
    )  # fmt: skip
    y = vega.number("value", gettext("mean test accuracy, %"))
    layers = []
    for trained in sorted(set(table["trained"])):
        own = {"transform": [{"filter": f"datum.trained == {trained}"}]}
        line = {"type": "line", "strokeDash": [5, 3] if trained else [1, 0]}
        point = {"type": "point", "filled": not trained, "size": 60}
        layers += [
            vega.picked(own | {"mark": line, "encoding": {"x": x, "y": y, "color": vega.colour(analysis, shown)}}),
            vega.picked(own | {"mark": point, "encoding": {"x": x, "y": y} | vega.kinds(analysis, shown) | tooltip}),
        ]
    caption = gettext(
        "Test accuracy against the share of zeroed weights, means over seeds: the smallest are zeroed after training, at "
        "the chosen lam."
    )
    if table["trained"].any():
        caption += " " + gettext("Dashed: the regularizer zeroes as many, its lam, before or in training.")
    return Chart(caption, vega.spec(layers, pick=True), {vega.TABLE: table})


@chart("learning_curves")
def learning_curves(material: Material) -> Chart | None:
    """Return the learning curves of every seed, at a lam that the reader chooses."""
    analysis, epochs = material.analysis, material.epochs
    measures = {name.replace("/", "_"): name for name in CURVES if epochs.get(name, pd.Series()).notna().any()}
    if not measures:
        return None
    table = pd.DataFrame({"regularizer": epochs["method"], "seed": epochs["seed"], "epoch": epochs["epoch"]})
    for short, name in measures.items():
        table[short] = epochs[name] * (100 if name.endswith("accuracy") else 1)
    at_chosen = [analysis.at_chosen(epochs, method).index for method in analysis.methods]
    table, slider = _with_lams(table, epochs["lam"], epochs.index.isin(np.concatenate(at_chosen)))
    shown = list(dict.fromkeys(table["regularizer"]))
    texts = {
        "val_accuracy": gettext("validation accuracy, %"), "train_accuracy": gettext("training accuracy, %"),
        "val_loss": gettext("validation loss"), "train_loss": gettext("training loss"),
    }  # fmt: skip
    texts = {name: text for name, text in texts.items() if name in measures}
    names = {"regularizer": gettext("regularizer"), "lam": "lam", "epoch": gettext("epoch")}
    tooltip = vega.tooltip(**names, seed=gettext("seed"), value=gettext("value"), form=".4~g")
    x = {"field": "epoch", "type": "quantitative", "title": gettext("epoch"),
         "scale": {"zero": False, "padding": vega.PADDING, "nice": False},
         "axis": {"values": _ticks(epochs["epoch"]), "format": "d"}}  # fmt: skip
    of_mean = vega.tooltip(**names, value=gettext("mean"), form=".4~g")
    mean = [
        {"aggregate": [{"op": "mean", "field": "value", "as": "value"}], "groupby": ["regularizer", "lam", "epoch"]}
    ]
    every = {"x": x, "y": vega.number("value"), "detail": {"field": "seed"}, "color": vega.colour(analysis, shown)}
    layers = [
        vega.picked({"mark": {"type": "line", "strokeWidth": 1}, "encoding": every}, 0.35),
        {"mark": {"type": "point", "opacity": 0, "size": 60}, "encoding": every | tooltip},  # a line tells its first point
        vega.picked({"transform": mean, "mark": {"type": "line", "strokeWidth": 2.5},
                     "encoding": {"x": x, "y": vega.number("value"), "color": vega.colour(analysis, shown)}}),
        vega.picked({"transform": mean, "mark": {"type": "point", "filled": True, "size": 50},
                     "encoding": {"x": x, "y": vega.number("value")} | vega.kinds(analysis, shown) | of_mean}),
    ]  # fmt: skip
    spec = vega.spec(layers, pick=True, title={"text": {"expr": f"{json.dumps(texts)}[measure]"}})
    spec["transform"] = [AT_LAM, {"calculate": "datum[measure]", "as": "value"}, {"filter": "isValid(datum.value)"}]
    spec["params"] += [{"name": "position", "value": 0}, {"name": "measure", "value": next(iter(texts))}]
    choice = Control("measure", gettext("shown"), list(texts), list(texts.values()))
    caption = gettext(
        "Learning curves: thin, every seed; with marks, the mean. At the chosen lam fresh seeds, if there are some."
    )
    return Chart(caption, spec, {vega.TABLE: table}, [slider, choice], dense=True)


@chart("weight_histograms")
def weight_histograms(material: Material) -> Chart | None:
    """Return histograms of a layer's weights, at a lam that the reader chooses."""
    analysis, found = material.analysis, material.histograms
    if found.empty:
        return None
    names = _largest(found)
    found = found[found["layer"].isin(names)]
    # an empty bin has no place on an axis of logarithms
    found = found.assign(
        count=found["count"].where(found["count"] > 0), bin=found.groupby(["method", "lam", "layer"]).cumcount()
    )
    table = found[["seed", "layer", "bin", "low", "high", "count"]].assign(regularizer=found["method"])
    table, slider = _with_lams(table, found["lam"], found["lam"] == found["method"].map(analysis.lam))
    shown = list(dict.fromkeys(table["regularizer"]))
    x = vega.number("middle", gettext("weight"))
    y = {"field": "count", "type": "quantitative", "title": gettext("number of weights"),
         "scale": {"type": "log", "domainMin": 0.7}, "axis": {"format": "~s", "tickCount": 5}}  # fmt: skip
    tooltip = vega.tooltip(
        regularizer=gettext("regularizer"), lam="lam", seed=gettext("seed"), low=gettext("from"), high=gettext("to"),
        count=gettext("number"), form=".4~g",
    )  # fmt: skip
    line = {"type": "line", "interpolate": "step", "strokeWidth": 1.5, "invalid": "break-paths-filter-domains"}
    point = {"type": "point", "filled": True, "size": 45}
    every = {"x": x, "y": y, "color": vega.colour(analysis, shown)}
    layers = [
        vega.picked({"mark": line, "encoding": every}),
        {"mark": {"type": "point", "opacity": 0, "size": 60}, "encoding": every | tooltip},
        # of every bin they would hide the lines
        vega.picked({"transform": [{"filter": "datum.bin % 8 == 4"}], "mark": point,
                     "encoding": {"x": x, "y": y} | vega.kinds(analysis, shown)}),
    ]  # fmt: skip
    spec = vega.spec(layers, pick=True)
    middle = {"calculate": "(datum.low + datum.high) / 2", "as": "middle"}
    spec["transform"] = [AT_LAM, {"filter": "datum.layer === layer"}, middle]
    spec["params"] += [{"name": "position", "value": 0}, {"name": "layer", "value": names[-1]}]
    texts = [gettext("all layers") if name == ALL_LAYERS else name for name in names]
    choice = Control("layer", gettext("layer"), names, texts)
    caption = gettext("Weights of a layer, of one trial each.")
    if len(names) < material.histograms["layer"].nunique():
        caption += " " + gettext("Of many layers, those with most weights.")
    return Chart(caption, spec, {vega.TABLE: table}, [slider, choice], dense=True)


def _ticks(epochs: pd.Series) -> list[int]:
    """Return about ten whole numbers of the epochs."""
    first, last = int(epochs.min()), int(epochs.max())
    return list(range(first, last + 1, max(1, -(-(last - first) // 10))))


def _largest(found: pd.DataFrame) -> list[str]:
    """Return the names of as many layers as there is room for, in the model's order."""
    room = max(1, HISTOGRAMS // max(1, len(found[["method", "lam"]].drop_duplicates())))
    weights = found.groupby("layer", sort=False)["count"].sum().sort_values(ascending=False, kind="stable")
    return [layer for layer in dict.fromkeys(found["layer"]) if layer in set(weights.index[:room])]


def _with_lams(table: pd.DataFrame, lams: pd.Series, chosen: ArrayLike) -> tuple[pd.DataFrame, Control]:
    """Return a table with what `AT_LAM` asks for, and the slider: first each chosen lam, then one lam after the other.

    `lams` are those of its rows, and `chosen` says which of them are shown at the first place.
    """
    every = sorted({0.0, *lams})
    texts = {lam: format_lam(lam) for lam in every}
    place = {lam: index for index, lam in enumerate(every)}
    table = table.assign(lam=lams.map(texts), position=lams.map(place), chosen=np.asarray(chosen, dtype=int))
    texts[0.0] = gettext("each at its chosen lam")
    return table, Control("position", "lam", list(place.values()), list(texts.values()), slider=True)


def _line(name: str) -> str:
    return " ".join(name.split())
