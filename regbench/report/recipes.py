"""Several recipes side by side: in what they differ, and what each is called."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from regbench.report.inputs import Material
from regbench.trial import Recipe

LONGEST = 80  # characters of a folder's name
DATA = "data"  # the parameter of a recipe that is the data's fingerprint


@dataclass(frozen=True)
class Side:
    """One of several recipes: the parameters that tell it from the others, its name, and the folder of its own report."""

    values: dict[str, str]
    label: str
    folder: str
    material: Material


def sides(materials: Sequence[Material]) -> tuple[Side, ...]:
    """Return the recipes by name: `lr=0.01`, of all parameters in which they differ, and in the order of their values.

    The fingerprint of the data is in a name only where nothing else tells. Where what is on record tells nothing, a recipe
    is called by its id, and so is the folder where the name is not safe or some system takes it for another's.
    """
    names = list(differing([material.runs.recipe for material in materials]))
    # not in the order in which they were trained, by which the same sweep would be reported in two ways
    materials = sorted(materials, key=lambda one: [_rank(one.runs.recipe.get(name, "")) for name in names])
    recipes = [material.runs.recipe for material in materials]
    without = [name for name in names if name != DATA]
    if len({tuple(recipe.get(name, "") for name in without) for recipe in recipes}) == len(recipes):
        names = without
    values = [{name: recipe.get(name, "") for name in names} for recipe in recipes]
    said = [[f"{name}={value}" for name, value in own.items()] for own in values]
    labels, folders = [", ".join(words) for words in said], [",".join(words) for words in said]
    count, alike = Counter(labels), Counter(name.casefold() for name in folders)
    found = []
    for number, (own, label, folder, material) in enumerate(zip(values, labels, folders, materials, strict=True), 1):
        name = material.runs.recipe_id if re.fullmatch("[0-9a-f]{12}", material.runs.recipe_id) else f"recipe-{number}"
        # no name that a shell, an address or another system would take for something else
        plain = re.fullmatch(r"\w[\w.,=+-]*\w", folder, re.ASCII) and len(folder) <= LONGEST
        safe = plain and alike[folder.casefold()] == 1
        if max(count.values()) > 1:
            own |= {"recipe": name if count[label] > 1 else ""}
        label = name if count[label] > 1 else label
        found.append(Side(own, label, folder if safe else name, material))
    return tuple(found)


def _rank(value: str) -> tuple[float, str]:
    """Return by what values are sorted: numbers by size, before words."""
    try:
        number = float(value)
    except ValueError:
        return math.inf, value
    return (number, value) if math.isfinite(number) else (math.inf, value)


def differing(recipes: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the parameters in which recipes differ, in the order of the recipe's fields -> their values."""
    order = [field.name for field in fields(Recipe)]
    known = {name for recipe in recipes for name in recipe}
    names = [*(name for name in order if name in known), *sorted(known.difference(order))]
    found = {name: tuple(dict.fromkeys(recipe.get(name, "") for recipe in recipes)) for name in names}
    return {name: values for name, values in found.items() if len(values) > 1}
