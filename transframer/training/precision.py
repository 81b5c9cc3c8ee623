"""In which precision a step computes, and what a CPU needs to be fast at it."""

from __future__ import annotations

import os

import torch

from transframer.models.attention import cpu_multiplies_bf16

_KERNELS = 8192


def trains_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether to train in mixed precision; "auto": where the device multiplies bf16."""
    if precision == "auto":
        return device.type == "cuda" or (device.type == "cpu" and cpu_multiplies_bf16())
    return precision == "bf16"


def keep_kernels() -> None:
    """Lets this process keep every kernel that PyTorch's CPU products and convolutions compile.

    They compile one for each shape, in half a millisecond (a product of 64 events takes a tenth of that), and
    keep 1,024. The steps of a training see more shapes, and would compile a good part of them anew each time.
    Takes effect where nothing was multiplied yet; an environment that says otherwise stays as it is.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS))
