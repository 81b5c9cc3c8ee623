"""Which surface each ray meets first.

Rays come in n square blocks of s x s, as tensors of [..., s, s, n]: the blocks run along the last, contiguous
dimension, so that what is known per block or per object broadcasts over it at full speed. A block and an
object meet only where the block overlaps the object's bounds in the image: the work is a list of such pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.data.world.scene import MAX_DEPTH_M, MAX_OBJECTS

SKY, GROUND, FIRST_OBJECT = 0, 1, 2
NEAR_M = 0.1
_MISS = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Views:
    """The cameras and surroundings of f frames, float32, units as in `Scenes`.

    Attributes:
        axes: (axis, component): the camera's right, down and forward axes in the world.
        waves: two wave vectors, (wave, component).
    """

    axes: Float[Tensor, "3 3 f"]
    origin: Float[Tensor, "3 f"]
    focal: Float[Tensor, " f"]
    centre: Float[Tensor, "2 f"]
    sun: Float[Tensor, "3 f"]
    waves: Float[Tensor, "2 2 f"]
    ground: Float[Tensor, "2 3 f"]
    sky: Float[Tensor, "2 3 f"]


@dataclass(frozen=True)
class Objects:
    """m objects, one of each slot of each frame or any choice of them, float32, units as in `Scenes`.

    Attributes:
        turn: cosine and sine of the rotation about the vertical.
        origin: the camera's place in the object's own axes, as seen from its centre.
        sun: the direction of the sun in the object's own axes.
        solid: half extents, then quadric.
    """

    position: Float[Tensor, "3 m"]
    turn: Float[Tensor, "2 m"]
    origin: Float[Tensor, "3 m"]
    sun: Float[Tensor, "3 m"]
    solid: Float[Tensor, "6 m"]
    colours: Float[Tensor, "6 m"]
    pattern: Float[Tensor, "1 m"]

    def __getitem__(self, index: Int[Tensor, " g"]) -> Objects:
        parts = [getattr(self, f.name) for f in fields(self)]
        chosen = take(torch.cat(parts), index).split([len(part) for part in parts])
        return Objects(*chosen)

    def turned(self, vector: Tensor | tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, "3 ..."]:
        """Vectors of the world, three components of [..., m], in the objects' own axes."""
        cosine, sine = self.turn
        x, y, z = vector
        return torch.stack([cosine * x + sine * y, cosine * y - sine * x, z])


@dataclass(frozen=True)
class Frames:
    """f frames ready to be traced; k = MAX_OBJECTS.

    Attributes:
        objects: slot by slot of frame by frame.
        bounds: left, right, top, bottom pixel coordinates that hold all an object covers; empty where absent.
        shadow_bounds: the same for its shadow on the ground.
        shape: index into OBJECT_CLASSES.
    """

    views: Views
    objects: Objects
    bounds: Float[Tensor, "f k 4"]
    shadow_bounds: Float[Tensor, "f k 4"]
    shape: Int[Tensor, "f k"]


@dataclass(frozen=True)
class Rays:
    """n square blocks of rays. A ray's direction is linear in its place in the image, and its component along
    the optical axis is 1, so that the ray's parameter is depth.

    Attributes:
        frame: the frame each block belongs to.
        place: pixel coordinates (x, y) of the block's corner.
        steps: pixels from the corner to each of its s columns (and rows).
        reach: side of the area the block covers, in pixels.
        linear: direction in the world at the corner, and its change per pixel along x and y.
    """

    frame: Int[Tensor, " n"]
    place: Float[Tensor, "2 n"]
    steps: Float[Tensor, " s"]
    reach: float
    linear: Float[Tensor, "3 3 n"]

    def bounds(self) -> Float[Tensor, "n 4"]:
        """Left, right, top and bottom pixel coordinates of each block."""
        x, y = self.place
        return torch.stack([x, x + self.reach, y, y + self.reach], -1)

    def directions(self) -> Float[Tensor, "3 s s n"]:
        """Directions in the world; rows before columns."""
        return _spread(self.linear, self.steps)


def take(x: Tensor, index: Tensor) -> Tensor:
    """`x[..., index]`, by `index_select` over a matrix, which is several times faster on a CPU."""
    flat = x.reshape(-1, x.shape[-1]).index_select(1, index.flatten())
    return flat.view(*x.shape[:-1], *index.shape)


def cast(
    views: Views, frame: Int[Tensor, " n"], place: Float[Tensor, "2 n"], steps: Tensor, reach: float
) -> Rays:
    """The rays of blocks of pixels; arguments as the attributes of `Rays`."""
    right, down, forward = take(views.axes, frame)
    per_pixel = 1 / take(views.focal, frame)
    x, y = (place - take(views.centre, frame)) * per_pixel
    linear = torch.stack([right * x + down * y + forward, right * per_pixel, down * per_pixel])
    return Rays(frame, place, steps, reach, linear)


def _spread(linear: Tensor, steps: Tensor) -> Float[Tensor, "c s s n"]:
    corner, along_x, along_y = linear[:, :, None]
    row = corner + steps[:, None] * along_x
    return row[:, None] + (steps[:, None] * along_y)[:, :, None]


def overlaps(bounds: Float[Tensor, "n 4"], others: Float[Tensor, "n k 4"]) -> Bool[Tensor, "n k"]:
    """Which (left, right, top, bottom) rectangles overlap."""
    left, right, top, bottom = bounds[:, None].unbind(-1)
    other_left, other_right, other_top, other_bottom = others.unbind(-1)
    return (left < other_right) & (other_left < right) & (top < other_bottom) & (other_top < bottom)


def intersect(
    origin: Float[Tensor, "3 ..."], direction: Float[Tensor, "3 ..."], solid: Float[Tensor, "6 m"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays enter and leave solids.

    A solid is an intersection of a quadric and three slabs, all convex where rays can reach it, so its
    interval on a ray is the intersection of four. (Of a cone's two nappes one lies outside the slabs, and a
    ray meets the other in one interval if it is less steep than the cone, as all rays here are.)

    Args:
        origin, direction: in the solids' own axes; [3, m], or [3, s, s, m] for every ray.

    Returns:
        The entries into the slabs across x, y, z, the entry into the solid, and the exit. A ray that misses
        enters after it leaves.
    """
    half, (q2, q1, q0) = solid[:3], solid[3:]
    if origin.ndim < direction.ndim:
        origin = origin[:, None, None]
    elif direction.ndim < origin.ndim:
        direction = direction[:, None, None]
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    a = (dx * dx).add_(dy * dy).add_(q2 * (dz * dz))
    b = (dx * ox).add_(dy * oy).add_(dz * (q2 * oz + 0.5 * q1))
    c = (ox * ox).add_(oy * oy).add_((q2 * oz + q1) * oz).add_(q0)
    discriminant = (b * b).sub_(a * c)
    root, inverse_a = discriminant.clamp(min=0).sqrt_(), 1 / a
    curved = torch.where(discriminant > 0, (-b - root) * inverse_a, torch.inf)
    inverse = 1 / direction
    middle, span = -origin * inverse, half[:, None, None] * inverse.abs()
    entries, (leave_x, leave_y, leave_z) = middle - span, middle + span
    enter = torch.maximum(torch.maximum(entries[0], entries[1]), torch.maximum(entries[2], curved))
    leave = torch.minimum(torch.minimum(leave_x, leave_y), torch.minimum(leave_z, (root - b) * inverse_a))
    return entries, enter, leave


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


def trace(frames: Frames, rays: Rays) -> Hits:
    """The nearest surface on every ray."""
    slope = _spread(rays.linear[:, 2:], rays.steps)[0]
    ground = take(frames.views.origin[2], rays.frame) / -slope
    depth = torch.where((slope < 0) & (ground < MAX_DEPTH_M), ground, 0.0)
    key = _nearest_object(frames, rays)
    hit = key != _MISS
    depth = torch.where(hit, (key >> 5).int().view(torch.float32), depth)
    instance = torch.where(hit, (key >> 2 & 7) + FIRST_OBJECT, (depth > 0).long())
    return Hits(depth, instance, torch.where(hit, key & 3, 0))


def _nearest_object(frames: Frames, rays: Rays) -> Int[Tensor, "s s n"]:
    """Depth, slot and face of the nearest object on each ray, in one integer that sorts by depth."""
    block, slot = overlaps(rays.bounds(), frames.bounds[rays.frame]).nonzero(as_tuple=True)
    objects = frames.objects[rays.frame[block] * MAX_OBJECTS + slot]
    linear = objects.turned(take(rays.linear, block).transpose(0, 1)).transpose(0, 1)
    entries, enter, leave = intersect(objects.origin, _spread(linear, rays.steps), objects.solid)
    # a ray that enters by two faces at once counts as entering by the last
    face = torch.where(enter == entries[2], 3, torch.where(enter == entries[1], 2, enter == entries[0]))
    # the bits of positive floats sort as the floats do
    key = (enter.view(torch.int32).long() << 5).add_(face).add_(slot * 4)
    key = torch.where((enter < leave) & (enter > NEAR_M), key, _MISS)
    nearest = key.new_full((*key.shape[:2], len(rays.frame)), _MISS)
    return nearest.scatter_reduce_(2, block.expand_as(key), key, "amin")
