"""Which surface each ray meets first.

Rays stand on the pixels of images [f, h, w] or, several to a pixel, on a list of pixels [s, s, n]. A ray and
an object meet only inside the object's bounds: the work is a list of pairs of an object and a small block of
rays, which run along the last, contiguous dimension, so that an object's numbers broadcast at full speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from transframer.data.world.forms import (
    BODY_LOWERS,
    FACES,
    QUADRIC_ROWS,
    SHADOW_LOWERS,
    Frames,
    linear,
    quadratic,
    take,
)
from transframer.data.world.scene import MAX_DEPTH_M, MAX_OBJECTS

SKY, GROUND, FIRST_OBJECT = 0, 1, 2
TILE = 8

# What a ray meets is kept as one int32: the bits of w = 1 / depth, the last five replaced by the instance and
# the face. The bits of positive floats sort as the floats do, so the greatest is the nearest; a miss is
# negative. The sky stands at the greatest depth.
_CODE, _SIGN = 31, torch.iinfo(torch.int32).min
_SKY_KEY = (int(torch.tensor(1 / MAX_DEPTH_M).view(torch.int32)) | _CODE) + 1


@dataclass(frozen=True)
class Grid:
    """Rays of images [f, h, w], or on a list of n pixels [s, s, n], and the same as m blocks of s x s.

    Attributes:
        shape: of a map over the rays.
        x, y: pixels from the axis, so that they broadcast to a map.
        frame: the frame of each ray, so that it broadcasts to a map.
        block_frame: the frame of each block.
        block_x, block_y: pixels from the axis, of the columns and rows of each block.
        start, offset: a ray's index into a map, flattened, is the start of its block and an offset.
    """

    shape: tuple[int, int, int]
    x: Tensor
    y: Tensor
    frame: Tensor
    block_frame: Int[Tensor, " m"]
    block_x: Float[Tensor, "s m"]
    block_y: Float[Tensor, "s m"]
    start: Int[Tensor, " m"]
    offset: Int[Tensor, "s s 1"]

    def of_frames(self, table: Float[Tensor, "r f"]) -> Tensor:
        """Numbers of the frames, so that they broadcast to maps."""
        return table[..., None, None] if self.frame.ndim == 3 else take(table, self.frame)[:, None, None]

    def of_rays(self, part: Tensor, index: tuple[Tensor, ...]) -> Tensor:
        """What broadcasts to a map, at some of its rays, without building the map."""
        steps = zip(index, part.expand(self.shape).stride(), strict=True)
        return take(part.flatten(), reduce(torch.add, [i * step for i, step in steps if step]))

    def place(self, index: tuple[Tensor, ...]) -> Int[Tensor, " c"]:
        """Index into a map, flattened, from indices into its three dimensions."""
        return (index[0] * self.shape[1] + index[1]) * self.shape[2] + index[2]


@dataclass(frozen=True)
class Pairs:
    """p pairs of an object, all boxes or all round, and a block of s x s rays.

    Attributes:
        boxes: whether all are boxes.
        column: of the object in tables [..., k, f], flattened.
        x, y: pixels from the axis, [1, s, p] and [s, 1, p].
        place: index of the rays into a map, flattened.
    """

    boxes: bool
    column: Int[Tensor, " p"]
    x: Tensor
    y: Tensor
    place: Int[Tensor, "s s p"]


def indices(mask: Shaped[Tensor, ...]) -> tuple[Tensor, ...]:
    """Where a mask is not 0: indices into each of its dimensions, contiguous, as what follows needs them."""
    return mask.nonzero().T.contiguous().unbind()


def image_grid(count: int, size: tuple[int, int], device: torch.device) -> Grid:
    """One ray through the centre of every pixel of `count` images, in tiles, frame by frame, row by row."""
    height, width = size
    x = torch.arange(width, device=device) + (0.5 - width / 2)
    y = torch.arange(height, device=device) + (0.5 - height / 2)
    step, start_x = torch.arange(TILE, device=device), torch.arange(0, width, TILE, device=device)
    start_y = torch.arange(0, height, TILE, device=device)[:, None]
    frame = torch.arange(count, device=device)[:, None, None]
    tiles = count, len(start_y), len(start_x)
    return Grid(
        shape=(count, height, width),
        x=x,
        y=y[:, None],
        frame=frame,
        block_frame=frame.expand(tiles).flatten(),
        block_x=x.view(-1, TILE).T[:, None, None].expand(TILE, *tiles).flatten(1),
        block_y=y.view(-1, TILE).T[:, None, :, None].expand(TILE, *tiles).flatten(1),
        start=((frame * height + start_y) * width + start_x).flatten(),
        offset=(step[:, None] * width + step)[..., None],
    )


def pixel_grid(
    frame: Int[Tensor, " n"], row: Int[Tensor, " n"], column: Int[Tensor, " n"], size: tuple[int, int]
) -> Grid:
    """2 x 2 rays on each of some pixels."""
    n = len(frame)
    step = torch.tensor([[0.25], [0.75]], device=frame.device)
    x, y = column - size[1] / 2 + step, row - size[0] / 2 + step
    index = torch.arange(4 * n, device=frame.device).view(2, 2, n)
    return Grid((2, 2, n), x, y[:, None], frame, frame, x, y, index[0, 0], index[..., :1])


def pairs_of(near: Int[Tensor, " m"], count: int, grid: Grid) -> Iterator[Pairs]:
    """The pairs of objects and the blocks that are near them.

    Args:
        near: of each block, the set of objects as `overlaps` gives it.
        count: how many frames the objects' tables hold.
    """
    bits = _bits(near.device)[..., None]
    places = torch.cat([grid.block_x, grid.block_y])
    for boxes in (False, True):
        slot, block = indices(near & bits[int(boxes)])
        x, y = take(places, block)[:, None].chunk(2)
        yield Pairs(
            boxes=boxes,
            column=slot * count + take(grid.block_frame, block),
            x=x.transpose(0, 1),
            y=y,
            place=take(grid.start, block) + grid.offset,
        )


def _bits(device: torch.device) -> Int[Tensor, "2 k"]:
    """The bit of each object in a set of objects, for a round one and for a box."""
    return (1 << torch.arange(2 * MAX_OBJECTS, device=device, dtype=torch.int32)).view(2, MAX_OBJECTS)


def overlaps(
    bounds: Float[Tensor, "2 k f"], box: Bool[Tensor, "k f"], low: Tensor, high: Tensor
) -> Int[Tensor, "f ..."]:
    """The set of the objects, as bits of an int32, whose interval on one axis overlaps another one.

    Args:
        bounds: from and to, of each object.
        low, high: the others, so that they broadcast to [f, ...].
    """
    bit = torch.where(box, *_bits(box.device).flip(0)[..., None])
    start, end, bit = (x.view(*x.shape, *(1,) * (low.ndim - 1)) for x in (*bounds, bit))
    return ((low < end) & (start < high)).mul(bit).sum(0, dtype=torch.int32)


def _near_cells(
    bounds: Float[Tensor, "4 k f"], box: Bool[Tensor, "k f"], size: tuple[int, int], side: int
) -> tuple[Int[Tensor, "f r"], Int[Tensor, "f c"]]:
    """The objects near the rows and near the columns of the square cells of an image."""
    height, width = size
    top = torch.arange(0, height, side, device=bounds.device)[None] - height / 2
    left = torch.arange(0, width, side, device=bounds.device)[None] - width / 2
    return overlaps(bounds[2:], box, top, top + side), overlaps(bounds[:2], box, left, left + side)


def near_tiles(
    bounds: Float[Tensor, "4 k f"], box: Bool[Tensor, "k f"], size: tuple[int, int]
) -> Int[Tensor, " m"]:
    """The objects near each tile of an image grid."""
    rows, columns = _near_cells(bounds, box, size, TILE)
    return (rows[..., None] & columns[..., None, :]).flatten()


def near_pixels(
    bounds: Float[Tensor, "4 k f"],
    box: Bool[Tensor, "k f"],
    frame: Int[Tensor, " n"],
    row: Int[Tensor, " n"],
    column: Int[Tensor, " n"],
    size: tuple[int, int],
) -> Int[Tensor, " n"]:
    """The objects near each of some pixels."""
    rows, columns = _near_cells(bounds, box, size, 1)
    return take(rows.flatten(), frame * size[0] + row) & take(columns.flatten(), frame * size[1] + column)


def interval(
    solids: Float[Tensor, "r k f"], lowers: int, pair: Pairs, x: Tensor, y: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Where rays are inside solids: below all of the first bounds and above the second, [s, s, p].

    Args:
        solids: rows as `forms` gives them.
        lowers: how many bounds from below an axis has.
        x, y: the rays' places, in pixels from the axis.

    Returns:
        The bounds from above: by the quadric and across z of round solids, across z, x and y of boxes.
    """
    rows = solids[QUADRIC_ROWS:] if pair.boxes else solids[: QUADRIC_ROWS + 3 * (1 + lowers)]
    rows = take(rows.flatten(1), pair.column)[:, None, None]
    if pair.boxes:
        bounds = linear(rows.view(3 + 3 * lowers, 3, *rows.shape[1:]), x, y)
        upper = bounds[:: 1 + lowers].unbind()
        lower = [bounds[at] for at in range(3 + 3 * lowers) if at % (1 + lowers)]
    else:
        square = quadratic(rows[:6], x, y)
        centre, plane, *lower = linear(rows[6:].view(2 + lowers, 3, *rows.shape[1:]), x, y).unbind()
        # the square root, and far below zero where there is none; sqrt itself is slow on zeros
        root = square.clamp(min=1e-30).rsqrt_().mul_(square)
        upper = centre + root, plane
        lower.append(centre.sub_(root))
    return list(upper), reduce(torch.maximum, lower)


def trace(frames: Frames, grid: Grid, pairs: Iterable[Pairs]) -> Int[Tensor, "a b c"]:
    """The key of the nearest surface on every ray."""
    ground = linear(grid.of_frames(frames.views[:3])[None], grid.x, grid.y)[0]
    nearest = ground.view(torch.int32).bitwise_and_(~_CODE).bitwise_or_(GROUND * FACES).clamp_(min=_SKY_KEY)
    for pair in pairs:
        upper, lower = interval(frames.body, BODY_LOWERS, pair, pair.x, pair.y)
        for bound, face in zip(upper, (3, 1, 2) if pair.boxes else (0, 3), strict=True):
            bound.view(torch.int32).bitwise_and_(~3).bitwise_or_(face)
        enter = reduce(torch.minimum, upper)
        missed = (enter - lower).view(torch.int32).bitwise_and_(_SIGN)
        instance = (pair.column // len(frames) + FIRST_OBJECT).int() * FACES
        key = enter.view(torch.int32).bitwise_and_(~_CODE | 3).bitwise_or_(instance).bitwise_or_(missed)
        nearest.view(-1).scatter_reduce_(0, pair.place.flatten(), key.flatten(), "amax")
    return nearest


def shadows(frames: Frames, grid: Grid, pairs: Iterable[Pairs]) -> Float[Tensor, "a b c"]:
    """How far the sun's way to the ground leads through an object, in multiples of 1 / depth; or 0."""
    dark = torch.zeros(grid.shape, device=frames.views.device)
    for pair in pairs:
        upper, lower = interval(frames.shadow, SHADOW_LOWERS, pair, pair.x, pair.y)
        way = reduce(torch.minimum, upper).sub_(lower)
        dark.view(-1).scatter_reduce_(0, pair.place.flatten(), way.flatten(), "amax")
    return dark


def w_of(key: Tensor) -> Tensor:
    """1 / depth in 1 / m; that of the greatest depth in the sky."""
    return key.view(torch.float32)


def instance_of(key: Tensor) -> Tensor:
    """0 sky, 1 ground, 2 + slot for an object."""
    return (key >> 2).bitwise_and_(7)


def surface_of(key: Tensor) -> Tensor:
    """instance * FACES + face; faces are 0 the curved one, 1, 2, 3 those across x, y, z."""
    return key & _CODE
