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
    SKY,
    Blocks,
    Frames,
    Hits,
    intersect,
    overlaps,
    rotated,
    solids,
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
        hits: what their `tiles` see.
    """
    b, t = poses.turn.shape[:2]
    now = torch.arange(b * t, device=hits.depth_m.device).view(b, t)[:, :count].flatten()
    first = Hits(
        *(
            x.unflatten(2, (b, t, -1))[:, :, :, :count].flatten(2)
            for x in (hits.depth_m, hits.instance, hits.face)
        )
    )
    motions = surface_motions(poses)[:, :count].flatten(0, 1)
    return flow_of(motions, tiles(frames[now], size), first, frames[now], frames[now + 1], size)


def surface_motions(poses: Poses) -> Float[Tensor, "b u s 3 4"]:
    """Per frame but the last and per surface (sky, ground, objects): camera coordinates of the next frame from
    those of this one. Every surface moves rigidly; the sky, at infinity, only turns. Float64."""
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


def flow_of(
    motions: Float[Tensor, "f s 3 4"],
    blocks: Blocks,
    hits: Hits,
    now: Frames,
    then: Frames,
    size: tuple[int, int],
) -> Flow:
    """Flow of the pixels of `tiles`.

    Args:
        motions: of `surface_motions`, one row per frame.
        blocks, hits: the tiles of the frames `now`, and what they see.
        then: the next frame of each.
    """
    table = motions.float().flatten(0, 1).permute(1, 2, 0).contiguous()  # 3 4 fs
    m = table[..., (blocks.frame * motions.shape[1] + hits.instance)]  # 3 4 s s n
    centre, focal = now.centre[blocks.frame], now.focal[blocks.frame]
    depth = torch.where(hits.instance == SKY, 1.0, hits.depth_m)
    column, row = blocks.left + blocks.steps[:, None], (blocks.top + blocks.steps[:, None])[:, None]
    x, y = (column - centre[:, 0]) / focal * depth, (row - centre[:, 1]) / focal * depth
    x, y, z = (m[c, 0] * x + m[c, 1] * y + m[c, 2] * depth + m[c, 3] for c in range(3))
    ahead = z > 0.1
    scale = then.focal[blocks.frame] / z.clamp(min=0.1)
    to_x, to_y = x * scale + then.centre[blocks.frame, 0], y * scale + then.centre[blocks.frame, 1]
    inside = ahead & (to_x >= 0) & (to_x < size[1]) & (to_y >= 0) & (to_y < size[0])
    z = torch.where(hits.instance == SKY, torch.inf, z)
    occluded = ahead & _hidden(then, blocks.frame, to_x, to_y, z, inside)
    flow = torch.where(ahead, torch.stack([to_x - column, to_y - row]), 0.0)
    return Flow(*(image_from_tiles(part, size) for part in (flow, occluded, inside)))


def _hidden(frames: Frames, frame: Tensor, u: Tensor, v: Tensor, depth: Tensor, inside: Tensor) -> Tensor:
    """Whether a point at these pixel coordinates and depth is hidden, by casting the ray that should see it."""
    axes, focal = frames.axes[frame], frames.focal[frame]
    x, y = (u - frames.centre[frame, 0]) / focal, (v - frames.centre[frame, 1]) / focal
    way = [axes[:, 0, c] * x + axes[:, 1, c] * y + axes[:, 2, c] for c in range(3)]
    ground = frames.origin[frame, 2] / -way[2]
    lost = torch.where(depth.isinf(), (way[2] < 0) & (ground < MAX_DEPTH_M), depth > MAX_DEPTH_M)

    left, top = (torch.where(inside, x, torch.inf).flatten(0, 1).amin(0) for x in (u, v))
    right, bottom = (torch.where(inside, x, -torch.inf).flatten(0, 1).amax(0) for x in (u, v))
    near = overlaps(torch.stack([left, right, top, bottom], -1), frames.bounds[frame])
    block, slot = near.nonzero(as_tuple=True)
    owner = frame[block]
    turn = frames.turn[owner, slot].unbind(-1)
    origin = rotated(turn, (frames.origin[owner] - frames.position[owner, slot]).unbind(-1))
    direction = rotated(turn, tuple(c[..., block] for c in way))
    _, enter, leave = intersect(origin, direction, solids(frames)[:, owner * MAX_OBJECTS + slot])
    nearer = (enter < leave) & (enter > 0) & (enter < depth[..., block] * (1 - _SAME_SURFACE))
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
    area = seen.flatten(2).sum(-1)

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        line = line.byte()
        return line.argmax(-1), line.shape[-1] - line.flip(-1).argmax(-1)

    (left, right), (top, bottom) = ends(columns), ends(rows)
    return torch.stack([left, top, right, bottom], -1) * (area > 0)[..., None], area
