"""Colours of what the rays meet: sky, ground with its pattern and shadows, objects with theirs."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.data.world.forms import AMBIENT, DIFFUSE, FACES, Frames, at_points, linear, take
from transframer.data.world.scene import MAX_DEPTH_M
from transframer.data.world.tracing import FIRST_OBJECT, Grid, indices, instance_of, w_of

_SHADOW = 0.55
_PENUMBRA_M = 0.7


def _wave(x: Tensor) -> Tensor:
    """A sixteenth of a smooth wave of period 1 between 0 (at integers) and 1; overwrites x.

    A polynomial, so equal on any machine.
    """
    x = x.sub_(x.floor())
    x = x.mul_(1 - x)
    # a product with a power of 2 is exact, so it does not matter whether a machine fuses it with the sum
    return torch.rsub(x, 3, alpha=8).mul_(x).mul_(x)


def shade(
    frames: Frames, grid: Grid, key: Int[Tensor, "a b c"], dark: Tensor, skip: Bool[Tensor, ...]
) -> Float[Tensor, "3 a b c"]:
    """RGB, 0-1, of what every ray meets.

    Args:
        key: what `trace` gives.
        dark: what `shadows` gives.
        skip: the rays on which objects are left out.
    """
    colour = _background(frames, grid, dark)
    index = indices((key & 7 * FACES).ge(FIRST_OBJECT * FACES).logical_and_(~skip))
    x, y, frame = (grid.of_rays(part, index) for part in (grid.x, grid.y, grid.frame))
    place = grid.place(index)
    key = key.flatten().index_select(0, place)
    # the tables of objects count faces, then slots, then frames
    slots, count = frames.box.shape
    column = ((key & 3) * slots + instance_of(key) - FIRST_OBJECT) * count + frame
    paint = take(frames.paint.flatten(1), column)
    colour.view(3, -1).scatter_(1, place.expand(3, -1), _object_colour(paint, x, y, w_of(key)))
    return colour


def _background(frames: Frames, grid: Grid, dark: Tensor) -> Float[Tensor, "3 a b c"]:
    """Sky and ground: one sum serves both, since the ground adds nothing from the greatest depth on, where it
    has faded into the horizon's colour, and the sky nothing where it does not rise."""
    x, y = grid.x, grid.y
    views = grid.of_frames(frames.views)
    ground, first, second, up = linear(views[:12].view(4, 3, *views.shape[1:]), x, y).unbind()
    phase_1, phase_2, per_pixel, *colours = views[12:].unbind()
    depth = ground.clamp_(min=1 / MAX_DEPTH_M).reciprocal_()
    first, second = _wave(first.mul_(depth).add_(phase_1)), _wave(second.mul_(depth).add_(phase_2))
    shadow = dark.mul(depth).mul_(_SHADOW / _PENUMBRA_M).clamp_(max=_SHADOW)
    far = depth.mul_(1 / MAX_DEPTH_M)
    haze = far * far
    light = (1 - shadow).mul_(1 - haze)
    # the pattern fades with distance, where it would be finer than a pixel
    near = 1 - far
    mark = first.mul_(second).mul_(256).mul_(near).mul_(near).mul_(light)
    length = (1 + (y * per_pixel).square()) + (x * per_pixel).square()
    up = up.mul_(1.8).mul_(length.rsqrt_()).clamp_(0, 1)
    colour = haze.new_empty(3, *grid.shape)
    for channel, out in enumerate(colour):
        low, contrast, horizon, zenith = colours[channel::3]
        torch.mul(light, low, out=out).add_(mark * contrast).add_(haze * horizon).add_(up * zenith)
    return colour


def _object_colour(paint: Float[Tensor, "28 m"], x: Tensor, y: Tensor, w: Tensor) -> Float[Tensor, "3 m"]:
    """RGB of points on objects; the rows of `paint` are those of `Frames.paint`."""
    forms, (gain, offset), body, mark = paint.split([20, 2, 3, 3])
    values = at_points(forms.view(5, 4, -1), x, y, w)
    light = (values[3] / values[4]).clamp_(min=0).mul_(DIFFUSE).add_(AMBIENT)
    waves = _wave(values[:3].div_(w))
    pattern = waves.sum(0).mul_(gain * 16).add_(offset).clamp_(0, 1)
    return mark.mul_(pattern).add_(body).mul_(light).clamp_(max=1)
