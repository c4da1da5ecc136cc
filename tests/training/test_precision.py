"""What a GPU is set to for a training, on torch's own switches, which are there without one."""

import os
import platform
import subprocess
import sys
from contextlib import nullcontext, suppress

import pytest
import torch

from regbench.errors import UserError
from regbench.training import bf16, onednn, precision

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
PRODUCTS, CONV = torch.backends.cuda.matmul, torch.backends.cudnn.conv


@pytest.fixture(autouse=True)
def as_before():
    """Put back what a test sets, by the newer names."""
    before = [(owner, owner.fp32_precision) for owner in (torch.backends, PRODUCTS, CONV, torch.backends.cudnn.rnn)]
    yield
    for owner, value in before:
        owner.fp32_precision = value


@pytest.mark.parametrize("kind", ["float32", "tf32"])
@pytest.mark.parametrize(("owner", "value"), [(torch.backends, "ieee"), (PRODUCTS, "tf32"), (CONV, "ieee")])
def test_torchs_newer_names_may_have_been_used_before(owner, value, kind):
    """After them the older ones may raise, which must neither end a sweep nor be so for the user's network."""
    owner.fp32_precision = value
    before = PRODUCTS.fp32_precision, CONV.fp32_precision, torch.backends.cudnn.rnn.fp32_precision
    with precision.settings(kind, GPU):
        assert PRODUCTS.fp32_precision == CONV.fp32_precision == ("tf32" if kind == "tf32" else "ieee")
        assert PRODUCTS.allow_tf32 == torch.backends.cudnn.allow_tf32 == (kind == "tf32")
        assert torch.get_float32_matmul_precision() == ("high" if kind == "tf32" else "highest")
    assert (PRODUCTS.fp32_precision, CONV.fp32_precision, torch.backends.cudnn.rnn.fp32_precision) == before


@pytest.mark.parametrize("kind", ["tf32", "bf16"])
def test_a_gpu_without_the_precision_is_refused_by_name(monkeypatch, kind):
    """A T4 computes tf32 in float32, and bf16 by emulation."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(UserError, match=f"{kind}' needs a GPU of compute capability 8.0 or more, Tesla T4 has 7.5"):
        precision.check(kind, GPU)
    precision.check("float32", GPU)
    precision.check(kind, GPU, here=False)  # of a cluster
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    precision.check(kind, GPU)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variable is one of x86")
def test_bf16_is_refused_where_a_cpu_would_take_many_times_as_long(elsewhere):
    """As without the instructions for it, which oneDNN can be told to leave alone."""
    code = (
        "import torch; from regbench.errors import UserError; from regbench.training import precision\n"
        "try: precision.check('bf16', torch.device('cpu'))\n"
        "except UserError as error: print(error)"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "REGBENCH_CACHE": str(elsewhere)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (
        "times as slow as float32 on this CPU, which has no instructions for it; accepted here: float32" in found.stdout
    )
    precision.check("float32", torch.device("cpu"))


@pytest.mark.parametrize(("slowdown", "refused"), [(0.4, False), (1.4, False), (6.0, True)])
def test_bf16_is_taken_where_it_is_about_as_fast(monkeypatch, slowdown, refused):
    monkeypatch.setattr(bf16, "slowdown", lambda: slowdown)
    with pytest.raises(UserError, match="bf16' is 6 times as slow") if refused else nullcontext():
        precision.check("bf16", torch.device("cpu"))


@pytest.mark.parametrize(("error", "within"), [(6e-7, "medium"), (2e-3, "highest")])
@pytest.mark.parametrize("before", ["highest", "medium"])
def test_a_cpus_products_are_those_of_float32(monkeypatch, error, within, before):
    """With AMX oneDNN rounds factors to bf16 where it is let: there it is not, whatever a user's file has asked for."""
    monkeypatch.setattr(onednn, "error", lambda: error)
    torch.set_float32_matmul_precision(before)
    try:
        with suppress(UserError), precision.settings("float32", CPU):
            assert torch.get_float32_matmul_precision() == within
            raise UserError("a step")
        assert torch.get_float32_matmul_precision() == before
        with precision.settings("float64", CPU):
            assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_cpu_computes_as_torchs_newer_names_say(monkeypatch):
    monkeypatch.setattr(onednn, "error", lambda: 0.0)
    torch.backends.fp32_precision, PRODUCTS.fp32_precision = "ieee", "tf32"
    with pytest.raises(RuntimeError):  # what this is about
        torch.get_float32_matmul_precision()
    with precision.settings("float32", CPU):
        assert (torch.backends.fp32_precision, PRODUCTS.fp32_precision) == ("ieee", "tf32")


def test_products_within_the_settings_are_as_exact_as_float32(elsewhere):
    onednn.error.cache_clear()
    left, right = (
        torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((100, 2048), (2048, 1024))
    )
    exact = left.double() @ right.double()
    with precision.settings("float32", CPU):
        assert (left @ right - exact).norm() < onednn.MOST_ERROR * exact.norm()
    assert 0 < onednn.error() < 1e-2
    assert "onednn" in (elsewhere.parent / "cache" / "measurements.json").read_text()
