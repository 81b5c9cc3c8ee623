"""A toy Transframer and toy episodes that use every kind of annotation."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from transframer.frames import Annotation, Camera, CodecSettings, Episode, Frame
from transframer.models.presets import TransframerConfig
from transframer.models.transframer import Transframer

CONFIG = TransframerConfig(
    tasks=("first", "second"),
    kinds=("rgb", "depth"),
    encoder_widths=(32, 48),
    encoder_blocks=(1, 1),
    pixel_stem=(8, 16),
    width=32,
    chunk_events=24,
    chunk_overlap=4,
    gate_init=0.5,
    sketch=True,
)


def wake(model):
    """Moves every parameter off its initial value, so that no path is closed by a zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(params=["target", "all"])
def model(request):
    torch.manual_seed(0)
    return wake(Transframer(replace(CONFIG, memory=request.param)))


@pytest.fixture
def any_model():
    torch.manual_seed(0)
    return wake(Transframer(CONFIG))


def with_gradients(function, inputs, gradient):
    """What a function gives, and its gradients to its inputs, for a gradient of what it gives."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient.to(out.dtype))]


def smooth_image(seed, size=(32, 32)):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 4, generator=generator)
    return (interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0] * 255).to(torch.uint8)


def camera(seed):
    generator = torch.Generator().manual_seed(seed)
    pose = torch.eye(4)
    pose[:3, 3] = torch.randn(3, generator=generator)
    return Camera(torch.tensor([[30.0, 0, 16], [0, 30, 16], [0, 0, 1]]), pose)


def episode(
    seed=0, n_context=2, size=(32, 32), task="first", reference=None, with_camera=False, quality=30, **codec
):
    def annotation(time, kind="rgb", settings=None):
        seen_by = camera(100 * seed + time) if with_camera else None
        return Annotation(kind, float(time), seen_by, settings or CodecSettings())

    context = tuple(Frame(smooth_image(10 * seed + i, size), annotation(i)) for i in range(n_context))
    query = annotation(n_context, "depth", CodecSettings(quality, reference=reference, **codec))
    return Episode(task, context, query, Frame(smooth_image(10 * seed + 9, size), query))


@pytest.fixture
def episodes():
    return [
        episode(0, 1, subsampling="4:4:4"),
        episode(1, 2, task="second", with_camera=True),
        episode(2, 3, reference=(0.0, 0.0, 1.0), quality=60),
        episode(3, 2, reference=(0.5, 0.5), quality=5),
    ]
