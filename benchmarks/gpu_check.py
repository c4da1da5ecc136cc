"""Does all that is done on a GPU only work on this one? A check after the other, a JSON line each.

python -m benchmarks.gpu_check --out=gpu-check

On a CPU it runs too, with what needs no GPU. With its default, synthetic images, it needs no data.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import click
import torch

from benchmarks import pages
from benchmarks.gpu import memory, networks, numerics, speed, sweeps
from benchmarks.gpu.setting import SYNTHETIC, Setting, Skipped, Wrong, synthetic
from regbench import provenance
from regbench.api import parsing
from regbench.click_fields import AUTO, Several, choice, command, option, switch
from regbench.commands import exit_code
from regbench.data import NAMES as DATASETS
from regbench.engines.base import LOCAL
from regbench.errors import one_line
from regbench.preflight import find_device

# a check fills its dictionary with what it finds, and raises for what is wrong
Check = Callable[[Setting, dict], None]
# synthetic images to train on, and to test on
IMAGES = {"cuda": (50_000, 10_000), "cpu": (1_000, 200)}
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


def device(setting: Setting, found: dict) -> None:
    """Tell what is checked: the device and the versions of what computes on it."""
    found |= {"torch": torch.__version__, "precisions": setting.precisions, "data": setting.images.name}
    if setting.device.type == "cpu":
        found |= {"name": provenance.processor(), "threads": torch.get_num_threads()}
        return
    properties = torch.cuda.get_device_properties(setting.device)
    found |= {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory GB": properties.total_memory / 1e9,
        "free GB": torch.cuda.mem_get_info(setting.device)[0] / 1e9,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "driver": _driver(),
    }


def _driver() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown: {one_line(error)}"


CHECKS: dict[str, Check] = {
    "device": device,
    "convolutions": numerics.convolutions,
    "engines": numerics.engines,
    "replay": numerics.replay,
    "repeated": sweeps.repeated,
    "waiting": numerics.waiting,
    "out_of_memory": memory.out_of_memory,
    "networks": networks.networks,
    "peak": memory.peak,
    "steps": speed.steps,
    "sweep": sweeps.sweep,
}


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    device: str = option(AUTO, parsing.device, "auto, cpu, cuda or cuda:N.")
    dataset: str = option(SYNTHETIC, choice(SYNTHETIC, *DATASETS), "synthetic, or as for the sweep.")
    data_dir: Path = option(".data", parsing.folder("data_dir"), "Where the data is or is downloaded to.")
    only: tuple[str, ...] = option(",".join(CHECKS), Several(choice(*CHECKS)), "The checks to make, a comma list.")
    keep_going: bool = option(False, switch(), "Make the other checks too where one has failed.")
    out: str = option("gpu-check", click.STRING, "Folder for the JSON lines.")


@command(CheckOptions)
def main(options: CheckOptions) -> None:
    """Check what is done on a GPU; exit code 1 if a check fails."""
    on, results, failed = torch.device(find_device(options.device, LOCAL)), [], False
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        dataset, data_dir = options.dataset, options.data_dir
        if dataset == SYNTHETIC:
            dataset, data_dir = "fashion_mnist", synthetic(folder, *IMAGES[on.type])
        # what has been measured, and where trainings were cut off, is not to come from other commands
        with patch.dict(os.environ, REGBENCH_CACHE=str(folder / "cache")):
            for result in run(options.only, Setting(on, dataset, data_dir, folder), options.keep_going):
                results.append(_line(result))
                click.echo(results[-1])
                pages.write(Path(options.out), {"checks.jsonl": "".join(f"{line}\n" for line in results)})
                failed = failed or result["status"] == FAILED
    sys.exit(int(failed))


def run(names: tuple[str, ...], setting: Setting, keep_going: bool) -> Iterator[dict]:
    """Give the result of each check, in their own order; the first that fails is the last unless `keep_going`."""
    for name, check in CHECKS.items():
        if name not in names:
            continue
        result = _result(name, check, setting)
        yield result
        if result["status"] == FAILED and not keep_going:
            return


def _result(name: str, check: Check, setting: Setting) -> dict:
    begin, found, reason = time.perf_counter(), {}, {}
    try:
        check(setting, found)
        status = PASSED
    except Skipped as why:
        status, reason = SKIPPED, {"reason": str(why)}
    except Wrong as why:
        status, reason = FAILED, {"reason": str(why)}
    except Exception as error:  # whatever a device does
        traceback.print_exc()
        status, reason = FAILED, {"reason": f"{type(error).__name__}: {one_line(error)}"}
    seconds = time.perf_counter() - begin
    gc.collect()  # outside the handler, whose traceback would keep tensors alive
    return {"name": name, "status": status, "seconds": seconds, "details": reason | found}


def _line(result: dict) -> str:
    return json.dumps(_plain(result), allow_nan=False)


def _plain(value: object) -> object:
    """Return what JSON takes: floats with four digits, as text if they are not finite, and what it does not know too."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < float("inf") else str(value)
    return value if isinstance(value, int | str | None) else str(value)


if __name__ == "__main__":
    exit_code.run(main)
