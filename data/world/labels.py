"""Labels beyond what a ray sees: flow with occlusion, and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.data.world.poses import Poses
from transframer.data.world.render import Maps, image_from_tiles, tiles
from transframer.data.world.scene import MAX_DEPTH_M, MAX_OBJECTS
from transframer.data.world.tracing import (
    FIRST_OBJECT,
    GROUND,
    NEAR_M,
    SKY,
    Frames,
    Hits,
    intersect,
    overlaps,
    take,
)

_SAME_SURFACE = 0.002  # share of the depth by which a surface must be nearer to hide another


@dataclass(frozen=True)
class Flow:
    """Forward flow of f frames.

    Attributes:
        flow: pixels (x, y) from each pixel centre to where its surface point is seen in the next frame; 0
            where it passes behind the camera.
        occluded: the point is not seen in the next frame, though it may lie inside it: hidden by another
            surface or its own object, or beyond the greatest depth.
        inside: the point lands inside the next frame.
    """

    flow: Float[Tensor, "f 2 h w"]
    occluded: Bool[Tensor, "f h w"]
    inside: Bool[Tensor, "f h w"]


def clip_flow(poses: Poses, frames: Frames, hits: Hits, count: int, size: tuple[int, int]) -> Flow:
    """Flow of the first `count` frames of each of b clips of t frames, [b * count, ...].

    Args:
        frames: the flat list of b * t frames.
        hits: what their `tiles` meet.
    """
    b, t = poses.turn.shape[:2]
    now = torch.arange(b * t, device=hits.depth_m.device).view(b, t)[:, :count].flatten()
    rays = tiles(frames.views, size, now)
    depth, instance = (
        x.unflatten(2, (b, t, -1))[:, :, :, :count].flatten(2) for x in (hits.depth_m, hits.instance)
    )
    motions = surface_motions(poses)[:, :count].flatten(0, 2).movedim(0, -1)  # 3 4 (frames surfaces)
    row = torch.arange(b * count, device=now.device).repeat_interleave(len(rays.frame) // len(now))
    m = take(motions.float(), row * (FIRST_OBJECT + MAX_OBJECTS) + instance)

    views, then = frames.views, rays.frame + 1
    sky = instance == SKY
    depth = torch.where(sky, 1.0, depth)
    column, line = rays.place[0] + rays.steps[:, None], (rays.place[1] + rays.steps[:, None])[:, None]
    focal, centre = views.focal[rays.frame], views.centre[:, rays.frame]
    x, y = (column - centre[0]) / focal * depth, (line - centre[1]) / focal * depth
    x, y, z = m[:, 0] * x + m[:, 1] * y + m[:, 2] * depth + m[:, 3]
    ahead = z > NEAR_M
    scale = views.focal[then] / z.clamp(min=NEAR_M)
    to_x, to_y = x * scale + views.centre[0, then], y * scale + views.centre[1, then]
    inside = ahead & (to_x >= 0) & (to_x < size[1]) & (to_y >= 0) & (to_y < size[0])
    occluded = ahead & _hidden(frames, then, to_x, to_y, torch.where(sky, torch.inf, z), inside)
    flow = torch.where(ahead, torch.stack([to_x - column, to_y - line]), 0.0)
    return Flow(*(image_from_tiles(part, size) for part in (flow, occluded, inside)))


def surface_motions(poses: Poses) -> Float[Tensor, "b u s 3 4"]:
    """Camera coordinates in the next frame from those in this one, per frame but the last and per surface.

    Surfaces are the sky, the ground and the objects. Each moves rigidly; the sky, at infinity, only turns.
    """
    world = poses.world_from_camera
    turn, place = world[..., :3, :3], world[..., :3, 3]
    cosine, sine = poses.turn.unbind(-1)
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    rows = [torch.stack(row, -1) for row in ((cosine, -sine, zero), (sine, cosine, zero), (zero, zero, one))]
    spin = torch.stack(rows, -2)  # world from object
    moved = spin[:, 1:] @ spin[:, :-1].transpose(-1, -2)
    shift = poses.position[:, 1:] - (moved @ poses.position[:, :-1, :, :, None])[..., 0]
    still = torch.eye(3, dtype=moved.dtype, device=moved.device).expand(*moved.shape[:2], 2, 3, 3)
    moved = torch.cat([still, moved], 2)
    shift = torch.cat([torch.zeros_like(shift[:, :, :2]), shift], 2)
    back = turn[:, 1:, None].transpose(-1, -2)
    rotation = back @ moved @ turn[:, :-1, None]
    offset = back @ (moved @ place[:, :-1, None, :, None] + shift[..., None] - place[:, 1:, None, :, None])
    offset[:, :, SKY] = 0
    return torch.cat([rotation, offset], -1)


def _hidden(frames: Frames, frame: Tensor, u: Tensor, v: Tensor, depth: Tensor, inside: Tensor) -> Tensor:
    """Whether points at these pixel coordinates and depths are hidden: casts the rays that would see them."""
    views = frames.views
    right, down, forward = take(views.axes, frame)[:, :, None, None]
    focal, centre = views.focal[frame], views.centre[:, frame]
    way = right * ((u - centre[0]) / focal) + down * ((v - centre[1]) / focal) + forward
    ground = views.origin[2, frame] / -way[2]
    lost = torch.where(depth.isinf(), (way[2] < 0) & (ground < MAX_DEPTH_M), depth > MAX_DEPTH_M)

    places = torch.stack([u, v]).flatten(1, 2)
    seen = inside.flatten(0, 1)
    low = torch.where(seen, places, torch.inf).amin(1)
    high = torch.where(seen, places, -torch.inf).amax(1)
    near = overlaps(torch.stack([low[0], high[0], low[1], high[1]], -1), frames.bounds[frame])
    block, slot = near.nonzero(as_tuple=True)
    objects = frames.objects[frame[block] * MAX_OBJECTS + slot]
    _, enter, leave = intersect(objects.origin, objects.turned(take(way, block)), objects.solid)
    nearer = (enter < leave) & (enter > NEAR_M) & (enter < take(depth, block) * (1 - _SAME_SURFACE))
    hidden = torch.zeros_like(u).scatter_reduce_(2, block.expand_as(enter), nearer.float(), "amax")
    return lost | (hidden > 0)


def classes_of(frames: Frames, maps: Maps) -> Int[Tensor, "f h w"]:
    """Index into SEGMENTATION_CLASSES of every pixel."""
    background = frames.shape.new_tensor([SKY, GROUND]).expand(len(frames.shape), 2)
    classes = torch.cat([background, frames.shape + FIRST_OBJECT], 1)
    return classes.gather(1, maps.instance.flatten(1)).view_as(maps.instance)


def boxes_of(maps: Maps) -> tuple[Int[Tensor, "f k 4"], Int[Tensor, "f k"]]:
    """Bounds (x0 y0 x1 y1, the last two exclusive) and visible pixels of each object; zeros where unseen."""
    slots = torch.arange(FIRST_OBJECT, FIRST_OBJECT + MAX_OBJECTS, device=maps.instance.device)
    seen = maps.instance[:, None] == slots[:, None, None]
    columns, rows = seen.any(-2), seen.any(-1)
    ones = torch.ones_like(maps.instance).flatten(1)
    area = ones.new_zeros(len(ones), FIRST_OBJECT + MAX_OBJECTS).scatter_add_(
        1, maps.instance.flatten(1), ones
    )
    area = area[:, FIRST_OBJECT:]

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        line = line.byte()
        return line.argmax(-1), line.shape[-1] - line.flip(-1).argmax(-1)

    (left, right), (top, bottom) = ends(columns), ends(rows)
    return torch.stack([left, top, right, bottom], -1) * (area > 0)[..., None], area
