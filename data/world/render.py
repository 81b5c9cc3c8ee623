"""Images and label maps of a batch of frames."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from transframer.data.world.forms import FACES, Frames
from transframer.data.world.scene import MAX_OBJECTS
from transframer.data.world.shading import shade
from transframer.data.world.tracing import (
    FIRST_OBJECT,
    GROUND,
    SKY,
    Grid,
    indices,
    instance_of,
    near_pixels,
    near_tiles,
    pairs_of,
    pixel_grid,
    shadows,
    surface_of,
    trace,
    w_of,
)


def rgb_of(
    frames: Frames, grid: Grid, key: Int[Tensor, "f h w"], size: tuple[int, int]
) -> UInt8[Tensor, "f 3 h w"]:
    """Antialiased colours: one ray per pixel, 2 x 2 where the pixel touches an edge between surfaces.

    Args:
        grid: the pixels' centres.
        key: what they see.
    """
    pairs = pairs_of(near_tiles(frames.shadow_bounds, frames.box, size), len(frames), grid)
    edges = _edges(key)
    image = shade(frames, grid, key, shadows(frames, grid, pairs), skip=edges)
    frame, row, column = indices(edges)
    fine = pixel_grid(frame, row, column, size)
    body, shadow = (
        pairs_of(near_pixels(bounds, frames.box, frame, row, column, size), len(frames), fine)
        for bounds in (frames.bounds, frames.shadow_bounds)
    )
    fine_key, none = trace(frames, fine, body), edges.new_zeros(1)
    colour = shade(frames, fine, fine_key, shadows(frames, fine, shadow), skip=none)
    mean = colour.flatten(1, 2).mean(1)
    place = grid.place((frame, row, column))
    image.view(3, -1).scatter_(1, place.expand(3, -1), mean)
    return _lens(image).transpose(0, 1)


def _lens(image: Float[Tensor, "3 f h w"]) -> UInt8[Tensor, "3 f h w"]:
    """The blur of a lens, [1 2 1] / 4 both ways: band-limits the edges, which otherwise cost most tokens."""
    image = torch.cat([image[..., :1], image, image[..., -1:]], -1)
    for _ in range(2):
        image = image[..., 1:] + image[..., :-1]
    image = torch.cat([image[..., :1, :], image, image[..., -1:, :]], -2)
    for _ in range(2):
        image = image[..., 1:, :] + image[..., :-1, :]
    return image.mul_(255 / 16).add_(0.5).to(torch.uint8)


def _edges(key: Int[Tensor, "f h w"]) -> Bool[Tensor, "f h w"]:
    """Pixels with a neighbour, left, right, above or below, of another surface.

    Sky and ground count as one: in the haze they have one colour. Bytes compare faster than wider integers.
    """
    surface = surface_of(key).clamp_(min=GROUND * FACES).to(torch.uint8)
    edge = torch.zeros_like(surface, dtype=torch.bool)
    across, along = surface[:, :, 1:] != surface[:, :, :-1], surface[:, 1:] != surface[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= along
    edge[:, :-1] |= along
    return edge


def depth_of(key: Int[Tensor, "f h w"]) -> Float[Tensor, "f h w"]:
    """Metres along the optical axis; 0 in the sky."""
    return w_of(key).reciprocal().mul_(instance_of(key).clamp_(max=1).float())


def classes_of(frames: Frames, key: Int[Tensor, "f h w"]) -> Int[Tensor, "f h w"]:
    """Index into SEGMENTATION_CLASSES of every pixel."""
    # a class is below 16, an instance below 8 and four times it already in the key: look up in one number
    classes = (frames.shape + FIRST_OBJECT) << (4 * torch.arange(FIRST_OBJECT, 8, device=key.device))[:, None]
    table = (classes.sum(0) + (GROUND << 4 * GROUND) + SKY).int()[:, None, None]
    return (table >> (key & 7 * FACES)).bitwise_and_(15).long()


def boxes_of(instance: Int[Tensor, "f h w"]) -> tuple[Int[Tensor, "f k 4"], Int[Tensor, "f k"]]:
    """Bounds (x0 y0 x1 y1, the last two exclusive) and visible pixels of each object; zeros where unseen."""
    slots = torch.arange(FIRST_OBJECT, FIRST_OBJECT + MAX_OBJECTS, device=instance.device)
    seen = instance[:, None] == slots[:, None, None]
    columns, rows = seen.any(-2), seen.any(-1)
    area = seen.flatten(2).sum(-1)

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        line = line.byte()
        return line.argmax(-1), line.shape[-1] - line.flip(-1).argmax(-1)

    (left, right), (top, bottom) = ends(columns), ends(rows)
    return torch.stack([left, top, right, bottom], -1) * (area > 0)[..., None], area
