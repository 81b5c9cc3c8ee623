"""Which precision a run takes by itself, and that the kernels it compiled are kept."""

import os
import subprocess
import sys

import pytest
import torch

from transframer.models.attention import cpu_multiplies_bf16
from transframer.training import precision
from transframer.training.precision import trains_in_bf16

SCRIPT = """
import sys
import torch
from transframer.training.precision import keep_kernels
keep_kernels()
for again in range(2):
    for n in range(1, int(sys.argv[1]) + 1):
        torch.ones(n, 32, dtype=torch.bfloat16) @ torch.ones(32, 32, dtype=torch.bfloat16)
    print("ROUND")
"""


@pytest.mark.parametrize(
    ("device", "multiplies", "expected"), [("cpu", True, True), ("cpu", False, False), ("cuda", False, True)]
)
def test_auto_is_bf16_where_that_is_multiplied(device, multiplies, expected, monkeypatch):
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: multiplies)
    assert trains_in_bf16("auto", torch.device(device)) is expected
    assert trains_in_bf16("bf16", torch.device(device))
    assert not trains_in_bf16("fp32", torch.device(device))


@pytest.mark.skipif(not cpu_multiplies_bf16(), reason="the CPU compiles no kernels for bf16")
@pytest.mark.parametrize(("held", "shapes"), [(None, 1150), ("64", 100)])
def test_no_kernel_is_compiled_twice_but_where_the_environment_says_so(held, shapes):
    environment = os.environ | {"ONEDNN_VERBOSE": "profile_create"}
    environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
    if held:
        environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = held
    lines = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(shapes)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first, second, _ = (part.count("create:cache_miss") for part in lines.split("ROUND"))
    assert first > 0.9 * shapes
    assert second > 0.9 * shapes if held else second == 0
