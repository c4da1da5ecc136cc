"""Parts of Vega-Lite specifications, of which the report's interactive figures are made.

Colours and shapes of regularizers are not in here: the page has them for light and dark (see palette.py), and a
specification names the order of the regularizers only.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from pandas.api.types import is_numeric_dtype

from regbench.report.analysis import Analysis
from regbench.trial import BASELINE

Spec = dict[str, Any]
DIGITS = 4  # significant ones of an embedded number
TABLE = "table"  # the name of a chart's only table in its specification
PADDING = 10  # pixels between the outermost values and the edge
TEXTS = ("regularizer", "lam", "verdict", "lower", "upper", "p")  # columns
FORMS = {"seed": ",", "seeds": ",", "epoch": ",", "count": ","}
BELOW = "below"  # the name of the values that lie so far below `none` that they are drawn at the edge


class Control(NamedTuple):
    """What sets a parameter of a chart: a slider over these values, or a choice between them."""

    parameter: str
    label: str
    values: Sequence[object]
    texts: Sequence[str]
    slider: bool = False


class Chart(NamedTuple):
    """A figure: its caption, its Vega-Lite specification, its tables by name, and what a reader can set.

    `dense`: there are so many marks that pixels are drawn faster than shapes.
    """

    caption: str
    spec: Spec
    tables: dict[str, pd.DataFrame]
    controls: Sequence[Control] = ()
    dense: bool = False


def columnar(table: pd.DataFrame) -> dict[str, dict[str, list]]:
    """Return a table as JSON takes the least room: numbers of four digits by column, and texts as numbers of levels."""
    columns, levels = {}, {}
    for name, column in table.items():
        if is_numeric_dtype(column):
            columns[name] = [_short(value) for value in column.tolist()]
        else:
            codes, names = pd.factorize(column)
            columns[name], levels[name] = codes.tolist(), names.tolist()
    return {"columns": columns, "levels": levels}


def _short(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.{DIGITS}g}")


def with_edge(table: pd.DataFrame, name: str, floor: float) -> pd.DataFrame:
    """Return a table with the column `name` as it is shown: what is below the floor, and marked as that, at it."""
    return table.assign(shown=table[name].clip(lower=floor), **{BELOW: (table[name] < floor).astype(int)})


def edge(table: pd.DataFrame, encoding: Spec, name: str = TABLE, size: int = 90) -> list[Spec]:
    """Return the layer of the values below the floor, which point down, if there are some; `name` is the table's."""
    if not table[BELOW].any():
        return []
    mark = {"type": "point", "shape": "triangle-down", "filled": True, "size": size}
    below = [{"filter": f"datum.{BELOW}"}]
    return [picked({"data": {"name": name}, "transform": below, "mark": mark, "encoding": encoding})]


def picked(layer: Spec, opacity: float = 1.0) -> Spec:
    """Return a layer that fades where another regularizer is picked in the legend."""
    shown = {"condition": {"param": "pick", "value": opacity}, "value": 0.06}
    return layer | {"encoding": layer["encoding"] | {"opacity": shown}}


def spec(layers: list[Spec], height: int = 300, pick: bool = False, **rest: object) -> Spec:
    """Return the specification of layers as wide as the page; with `pick` a regularizer is picked in the legend."""
    made: Spec = {
        "data": {"name": TABLE}, "width": "container", "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"}, "layer": layers, **rest,
    }  # fmt: skip
    if pick:
        made["params"] = []
        of_legend = next(layer for layer in layers if "shape" in layer["encoding"])
        of_legend["params"] = [
            {"name": "pick", "select": {"type": "point", "fields": ["regularizer"]}, "bind": "legend"}
        ]
    return made


def number(field: str, title: str | None = None) -> Spec:
    """Return the encoding of a number as a place on an axis, which need not hold zero."""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False, "padding": PADDING}}


def colour(analysis: Analysis, shown: Sequence[str] | None = None) -> Spec:
    """Return the encoding of the regularizer as a colour: `none` is the first of the palette.

    `shown` are those in the legend; left out, all; without any there is no legend.
    """
    methods = analysis.methods if shown is None else list(shown)
    scale = {"domain": [BASELINE, *(name for name in analysis.methods if name != BASELINE)]}
    legend = {"title": None, "values": methods} if methods else None
    return {"field": "regularizer", "type": "nominal", "scale": scale, "legend": legend}


def kinds(analysis: Analysis, shown: Sequence[str] | None = None) -> Spec:
    """Return the encoding of the regularizer as a colour and a shape."""
    return {"color": colour(analysis, shown), "shape": colour(analysis, shown)}


def tooltip(form: str = ".2f", **titles: str) -> Spec:
    """Return the encoding of what hovering shows: column -> title; numbers are in this format but where FORMS has one."""
    return {"tooltip": [
        {"field": name, "title": title, "type": "nominal"} if name in TEXTS else
        {"field": name, "title": title, "type": "quantitative", "format": FORMS.get(name, form)}
        for name, title in titles.items()
    ]}  # fmt: skip
