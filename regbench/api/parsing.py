"""The commands' options that are neither numbers nor choices, each a function of its text: lists, folders, names."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from regbench import regularizers
from regbench.click_fields import ALL, AUTO, REAL, WHOLE
from regbench.errors import UserError
from regbench.trial import SCOPES

MAX_SEEDS = 10_000
MAX_CONFIRM = 1_000  # fresh seeds
CONFIRM = "accepted: a number of fresh seeds, a list of them as in 10-19, 0 for none, or auto"
MAX_SEED = 2**32 - 1  # the largest that numpy's and scikit-learn's generators take


def seeds(text: str, option: str = "seeds") -> tuple[int, ...]:
    """Return the seeds of a comma list of numbers and ranges, in its order: "0,1,2", "0-9", "0-4,7"."""
    accepted = "accepted: numbers and ranges separated by commas, as in 0,1,2 or 0-9"
    found: list[int] = []
    for item in _items(option, text, accepted):
        match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", item, re.ASCII)
        if not match:
            raise UserError(f"{option}={text!r}: {item!r} is not a seed; {accepted}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"{option}={text!r}: the range {item} runs backwards; write {last}-{first}")
        if last > MAX_SEED:
            raise UserError(f"{option}={text!r}: {last} is too large; accepted: up to {MAX_SEED}")
        if len(found) + last - first + 1 > MAX_SEEDS:
            raise UserError(f"{option}={text!r}: more than {MAX_SEEDS} seeds; give fewer")
        found += range(first, last + 1)
    repeated = sorted({seed for seed in found if found.count(seed) > 1}) if len(set(found)) < len(found) else []
    if repeated:
        raise UserError(f"{option}={text!r}: seed {repeated[0]} is given more than once; write it once")
    return tuple(found)


def confirm(text: str) -> int | tuple[int, ...] | None:
    """Return how many fresh seeds to take at most, or which; None for auto. A list of one is a range: 7-7."""
    if text.strip() == AUTO:
        return None
    if re.match(rf"{WHOLE}\s*[,-]", text.strip(), re.ASCII):
        return seeds(text, "confirm")
    if not re.fullmatch(WHOLE, text.strip(), re.ASCII):
        raise UserError(f"confirm={text!r} is not a number of seeds; {CONFIRM}")
    if len(text) > 9 or int(text) > MAX_CONFIRM:
        raise UserError(f"confirm={text!r} is out of range; accepted: up to {MAX_CONFIRM} seeds")
    return int(text)


def one_seed(text: str) -> int:
    """Return the seed of a command that takes just one."""
    found = seeds(text, "seed")
    if len(found) != 1:
        raise UserError(f"seed={text!r}: the notebook's experiments take one seed; for several, use the sweep")
    return found[0]


def lams(text: str) -> tuple[float, ...] | None:
    """Return the numbers of a comma list, None for auto: each regularizer's own grid; `cells` checks their range."""
    if text.strip() == AUTO:
        return None
    accepted = (
        f"{regularizers.ACCEPTED_LAMS} separated by commas, as in 1e-4,1e-3, or auto (the regularizer's own grid)"
    )
    found: list[float] = []
    for item in _items("lam", text, accepted):
        if not re.fullmatch(f"{REAL}|[+-]?inf(inity)?|nan", item, re.ASCII | re.IGNORECASE):
            raise UserError(f"lam={text!r}: {item!r} is not a number; {accepted}")
        if float(item) in found:
            raise UserError(f"lam={text!r}: {item} is given more than once; write it once")
        found.append(float(item))
    return tuple(found)


def names(text: str) -> tuple[str, ...]:
    """Return the regularizers of a comma list, each of which can be found."""
    accepted = f"accepted: one or more of {regularizers.accepted()}, separated by commas"
    found = [regularizers.canonical(name) for name in _items("reg", text, accepted)]
    for name in found:
        regularizers.find(name)
        if found.count(name) > 1:
            raise UserError(f"reg={text!r}: {name} is given more than once; write it once")
    return tuple(found)


def scopes(text: str) -> tuple[str, ...]:
    """Return what is regularized, to be compared: some of SCOPES, or one scope of patterns of parameters' names.

    Patterns are sorted, so that their order is none.
    """
    accepted = (
        f"accepted: one or more of {', '.join(SCOPES)}, or patterns of parameters' names separated by commas, as in "
        "conv*,l1.weight"
    )
    found = _items("scope", text, accepted)
    named = set(found) <= set(SCOPES)
    for item in found:
        if item in SCOPES and not named:
            raise UserError(f"scope={text!r}: {item} does not go with patterns; {accepted}")
        if not re.fullmatch(r"[\w.*?\[\]!-]+", item, re.ASCII):
            raise UserError(f"scope={text!r}: {item!r} is not a pattern of letters, digits and _.-*?[]!; {accepted}")
        if found.count(item) > 1:
            raise UserError(f"scope={text!r}: {item} is given more than once; write it once")
    return tuple(found) if named else (",".join(sorted(found)),)


def _items(option: str, text: str, accepted: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not any(items):
        raise UserError(f"{option}={text!r} is empty; {accepted}")
    if not all(items):
        raise UserError(f"{option}={text!r} has an empty item between commas; {accepted}")
    return items


def folder(option: str) -> Callable[[str], Path]:
    """Return the function that gives a folder's absolute path, ~ expanded, whether it is there or not."""

    def path(text: str) -> Path:
        try:
            if text.strip() and "\0" not in text:
                # absolute, since `mlflow run` starts a command in the project's folder and not in the user's
                return Path(os.path.abspath(Path(text).expanduser()))
        except (RuntimeError, OSError):  # ~name of a user who does not exist, or the working folder is gone
            pass
        raise UserError(f"{option}={text!r} is not a folder; accepted: a path, as in {option}=name")

    return path


def report_folder(option: str, otherwise: str = "") -> Callable[[str], Path]:
    """Return the function that gives the absolute path of a folder to write into; `otherwise` ends what a file is told."""
    absolute = folder(option)

    def path(text: str) -> Path:
        found = absolute(text)
        # not pathlib's, which raise where a folder above cannot be searched
        if os.path.exists(found) and not os.path.isdir(found):
            raise UserError(f"{option}={str(found)!r} is a file; give a folder{otherwise}")
        return found

    return path


def file(option: str) -> Callable[[str], Path]:
    """Return the function that gives the absolute path of a file to write."""
    absolute = folder(option)

    def path(text: str) -> Path:
        found = absolute(text)
        if os.path.isdir(found):
            raise UserError(f"{option}={str(found)!r} is a folder; give a file")
        return found

    return path


def device(text: str) -> str:
    """Return the name of a device, whether it is there or not."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text, re.ASCII):
        raise UserError(f"device={text!r} is unknown; accepted: auto, cpu, cuda, cuda:N")
    return text


def experiment(text: str) -> str | None:
    """Return the name of an experiment, None for auto."""
    # a system whose language knows ASCII only passes other letters on as bytes
    return None if text == AUTO else text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def identifier(option: str) -> Callable[[str], str]:
    """Return the function that gives the id of a sweep or a recipe, "" for all."""

    def checked(text: str) -> str:
        if not (text.isalnum() and text.isascii()):
            raise UserError(
                f"{option}={text!r} is not an id; accepted: the 12 letters and digits that a plan prints, or all"
            )
        return "" if text == ALL else text

    return checked
