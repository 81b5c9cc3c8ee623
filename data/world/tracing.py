"""Which surface each ray meets first.

Rays come in n square blocks of s x s, as tensors of [s, s, n]: the blocks run along the last, contiguous
dimension, so that everything known per block or per object broadcasts over it at full speed. A block and an
object meet only where the block overlaps the object's bounds in the image, so the work is a list of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.data.world.scene import MAX_DEPTH_M, MAX_OBJECTS

SKY, GROUND, FIRST_OBJECT = 0, 1, 2
_NEAR_M = 0.1
_MISS = torch.iinfo(torch.int64).max
Vector = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Frames:
    """What rendering needs to know of f frames, float32; k = MAX_OBJECTS. Units as in `Scenes` and `Poses`.

    Attributes:
        axes: rows are the camera's right, down and forward axes in the world.
        bounds: left, right, top, bottom pixel coordinates that hold all an object covers; empty where absent.
        shadow_bounds: the same for its shadow on the ground.
    """

    origin: Float[Tensor, "f 3"]
    axes: Float[Tensor, "f 3 3"]
    focal: Float[Tensor, " f"]
    centre: Float[Tensor, "f 2"]
    position: Float[Tensor, "f k 3"]
    turn: Float[Tensor, "f k 2"]
    half_extent: Float[Tensor, "f k 3"]
    quadric: Float[Tensor, "f k 3"]
    present: Bool[Tensor, "f k"]
    shape: Int[Tensor, "f k"]
    pattern: Int[Tensor, "f k"]
    colours: Float[Tensor, "f k 2 3"]
    sun: Float[Tensor, "f 3"]
    ground_colours: Float[Tensor, "f 2 3"]
    ground_waves: Float[Tensor, "f 2 2"]
    sky_colours: Float[Tensor, "f 2 3"]
    bounds: Float[Tensor, "f k 4"]
    shadow_bounds: Float[Tensor, "f k 4"]

    def __getitem__(self, rows: Int[Tensor, " g"]) -> Frames:
        return Frames(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Blocks:
    """n square blocks of rays.

    Attributes:
        frame: the frame each block belongs to.
        left, top: pixel coordinates of its corner.
        steps: pixels from the corner to each of its s columns (and rows).
        reach: side length of the area it covers, in pixels.
    """

    frame: Int[Tensor, " n"]
    left: Float[Tensor, " n"]
    top: Float[Tensor, " n"]
    steps: Float[Tensor, " s"]
    reach: float

    def bounds(self) -> Float[Tensor, "n 4"]:
        """Left, right, top and bottom pixel coordinates of each block."""
        return torch.stack([self.left, self.left + self.reach, self.top, self.top + self.reach], -1)


@dataclass(frozen=True)
class Hits:
    """What the rays of n blocks meet.

    Attributes:
        depth_m: metres along the optical axis; 0 in the sky.
        instance: 0 sky, 1 ground, 2 + slot for an object.
        face: of an object: 0 its curved side, 1, 2, 3 the faces across its x, y, z axis; else 0.
    """

    depth_m: Float[Tensor, "s s n"]
    instance: Int[Tensor, "s s n"]
    face: Int[Tensor, "s s n"]


def rotated(turn: tuple[Tensor, Tensor], vector: Vector) -> Vector:
    """A vector of the world in axes turned about the vertical by the angle of this cosine and sine."""
    (cosine, sine), (x, y, z) = turn, vector
    return cosine * x + sine * y, cosine * y - sine * x, z


def directions(
    frames: Frames, blocks: Blocks, pick: Tensor | None = None
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Ray directions in the world as (corner, along x, along y) per component, each of [n].

    A direction is linear in the pixel's place; its component along the optical axis is 1, so that the ray
    parameter is depth.
    """
    frame, left, top = (x if pick is None else x[pick] for x in (blocks.frame, blocks.left, blocks.top))
    axes, per_pixel, centre = frames.axes[frame], 1 / frames.focal[frame], frames.centre[frame]
    u, v = (left - centre[:, 0]) * per_pixel, (top - centre[:, 1]) * per_pixel
    return [
        (
            axes[:, 0, c] * u + axes[:, 1, c] * v + axes[:, 2, c],
            axes[:, 0, c] * per_pixel,
            axes[:, 1, c] * per_pixel,
        )
        for c in range(3)
    ]


def spread(corner: Tensor, along_x: Tensor, along_y: Tensor, steps: Tensor) -> Float[Tensor, "s s n"]:
    """Evaluates one linear component over the rays of each block."""
    row = corner + steps[:, None] * along_x
    return row[None] + (steps[:, None] * along_y)[:, None]


def overlaps(bounds: Float[Tensor, "n 4"], others: Float[Tensor, "n k 4"]) -> Bool[Tensor, "n k"]:
    """Which (left, right, top, bottom) rectangles overlap."""
    left, right, top, bottom = bounds[:, None].unbind(-1)
    other_left, other_right, other_top, other_bottom = others.unbind(-1)
    return (left < other_right) & (other_left < right) & (top < other_bottom) & (other_top < bottom)


def intersect(origin: Vector, direction: Vector, solid: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Where rays enter and leave solids, in each solid's own axes.

    A solid is an intersection of a quadric and three slabs, all convex where rays can reach it, so its
    interval on a ray is the intersection of four. (The cone's second nappe lies outside its slab; rays within
    60 degrees of the horizontal meet the quadric in one interval, since the cone is steeper than that.)

    Args:
        origin, direction: components that broadcast with [n].
        solid: half extents and quadric of each pair's object, [6, n].

    Returns:
        The four entry parameters (quadric, x, y, z), the last of them, and the exit. A ray that misses enters
        after it leaves.
    """
    (ox, oy, oz), (dx, dy, dz), (q2, q1, q0) = origin, direction, solid[3:]
    q2dz = q2 * dz
    a = dx * dx + dy * dy + q2dz * dz
    b = dx * ox + dy * oy + q2dz * oz + (0.5 * q1) * dz
    c = ox * ox + oy * oy + (q2 * oz + q1) * oz + q0
    discriminant = b * b - a * c
    root = discriminant.clamp(min=0).sqrt()
    inverse = 1 / a
    entries, leave = [torch.where(discriminant > 0, (-b - root) * inverse, torch.inf)], (root - b) * inverse
    for o, d, half in zip(origin, direction, solid[:3], strict=True):
        inverse = 1 / d
        middle, span = -o * inverse, half * inverse.abs()
        entries.append(middle - span)
        leave = torch.minimum(leave, middle + span)
    enter = torch.maximum(torch.maximum(entries[0], entries[1]), torch.maximum(entries[2], entries[3]))
    return entries, enter, leave


def solids(frames: Frames) -> Float[Tensor, "6 fk"]:
    """Half extents and quadrics of all objects of all frames."""
    return torch.cat([frames.half_extent, frames.quadric], -1).flatten(0, 1).T.contiguous()


def trace(frames: Frames, blocks: Blocks) -> Hits:
    """The nearest surface on every ray."""
    world = directions(frames, blocks)
    slope = spread(*world[2], blocks.steps)
    ground = frames.origin[blocks.frame, 2] / -slope
    depth = torch.where((slope < 0) & (ground < MAX_DEPTH_M), ground, 0.0)
    key = _nearest_object(frames, blocks)
    hit = key != _MISS
    depth = torch.where(hit, (key >> 5).int().view(torch.float32), depth)
    instance = torch.where(hit, (key >> 2 & 7) + FIRST_OBJECT, (depth > 0).long())
    return Hits(depth, instance, torch.where(hit, key & 3, 0))


def _nearest_object(frames: Frames, blocks: Blocks) -> Int[Tensor, "s s n"]:
    """Depth, slot and face of the nearest object on each ray, in one integer that sorts by depth."""
    block, slot = overlaps(blocks.bounds(), frames.bounds[blocks.frame]).nonzero(as_tuple=True)
    frame = blocks.frame[block]
    solid = solids(frames)[:, frame * MAX_OBJECTS + slot]
    turn = frames.turn[frame, slot].unbind(-1)
    corner, along_x, along_y = (
        rotated(turn, v) for v in zip(*directions(frames, blocks, block), strict=True)
    )
    direction = tuple(spread(*c, blocks.steps) for c in zip(corner, along_x, along_y, strict=True))
    origin = rotated(turn, (frames.origin[frame] - frames.position[frame, slot]).unbind(-1))
    entries, enter, leave = intersect(origin, direction, solid)
    face = (enter == entries[1]).long() + (enter == entries[2]) * 2 + (enter == entries[3]) * 3
    # bits of positive floats sort as the floats do; a corner that enters by two faces counts as the last
    key = (enter.view(torch.int32).long() << 5) + (slot << 2) + face.clamp(max=3)
    key = torch.where((enter < leave) & (enter > _NEAR_M), key, _MISS)
    nearest = key.new_full((*key.shape[:2], len(blocks.frame)), _MISS)
    return nearest.scatter_reduce_(2, block.expand_as(key), key, "amin")
