"""Flow, and which points the next frame hides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.data.world.forms import BODY_LOWERS, FACES, NEAR_M, PER_PIXEL, Frames, at_points, take
from transframer.data.world.poses import Poses
from transframer.data.world.scene import MAX_DEPTH_M
from transframer.data.world.tracing import (
    FIRST_OBJECT,
    GROUND,
    TILE,
    Grid,
    indices,
    instance_of,
    interval,
    overlaps,
    pairs_of,
    w_of,
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


def clip_flow(motions: Float[Tensor, "s 3 4 f"], grid: Grid, key: Int[Tensor, "f h w"], then: Frames) -> Flow:
    """Flow of f frames.

    Args:
        motions: of `motions_of`.
        grid: the pixels' centres.
        key: what they see.
        then: what follows each of the frames.
    """
    w = w_of(key) * instance_of(key).clamp_(max=1).float()  # 0 in the sky
    x, y, z = _moved(motions, grid, key, w)
    ahead = z > NEAR_M * w
    scale = z.clamp_(min=1e-3).reciprocal_()
    w_then = w * scale
    views = grid.of_frames(then.views)
    scale = scale.div_(views[PER_PIXEL])
    x, y = x.mul_(scale), y.mul_(scale)
    height, width = grid.shape[1:]
    inside = (x.abs() < width / 2).logical_and_(y.abs() < height / 2).logical_and_(ahead)
    hidden = _hidden(then, grid, x, y, w, w_then) > 0
    flow = torch.stack([x - grid.x, y - grid.y], 1).mul_(ahead[:, None].float())
    return Flow(flow, hidden.logical_and_(ahead), inside)


def _moved(motions: Tensor, grid: Grid, key: Tensor, w: Tensor) -> Float[Tensor, "3 f h w"]:
    """The points in the next camera's axes, divided by their present depth."""
    constant, along_x, along_y, along_w = motions[0, ..., None, None].unbind(1)
    points = ((constant + along_y * grid.y) + along_x * grid.x).add_(along_w * w)
    index = indices((key & 7 * FACES).ge(FIRST_OBJECT * FACES))
    x, y, frame = (grid.of_rays(part, index) for part in (grid.x, grid.y, grid.frame))
    place = grid.place(index)
    w, key = (part.flatten().index_select(0, place) for part in (w, key))
    column = (instance_of(key) - GROUND) * motions.shape[-1] + frame
    forms = take(motions.movedim(0, -2).flatten(-2), column)
    points.view(3, -1).scatter_(1, place.expand(3, -1), at_points(forms, x, y, w))
    return points


def motions_of(poses: Poses) -> Float[Tensor, "s 3 4 b u"]:
    """Where points of each frame but the last of each clip are in the next camera's axes.

    Of the resting scene and of each object, which all move rigidly, as forms of (1, x, y, w), float32.
    """
    world = poses.world_from_camera
    turn, place = world[..., :3, :3], world[..., :3, 3]
    cosine, sine = poses.turn.unbind(-1)
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    rows = [torch.stack(row, -1) for row in ((cosine, -sine, zero), (sine, cosine, zero), (zero, zero, one))]
    spin = torch.stack(rows, -2)  # world from object
    moved = spin[:, 1:] @ spin[:, :-1].transpose(-1, -2)
    shift = poses.position[:, 1:] - (moved @ poses.position[:, :-1, :, :, None])[..., 0]
    still = torch.eye(3, dtype=moved.dtype, device=moved.device).expand(*moved.shape[:2], 1, 3, 3)
    moved = torch.cat([still, moved], 2)
    shift = torch.cat([torch.zeros_like(shift[:, :, :1]), shift], 2)
    back = turn[:, 1:, None].transpose(-1, -2)
    rotation = back @ moved @ turn[:, :-1, None]
    offset = back @ (moved @ place[:, :-1, None, :, None] + shift[..., None] - place[:, 1:, None, :, None])
    per_pixel = 1 / poses.intrinsics[:, :-1, None, None, 0, :1]
    right, down, forward = rotation.split(1, -1)
    forms = torch.cat([forward, right * per_pixel, down * per_pixel, offset], -1)
    return forms.movedim((0, 1), (-2, -1)).float().contiguous()


def _hidden(then: Frames, grid: Grid, x: Tensor, y: Tensor, w: Tensor, w_then: Tensor) -> Tensor:
    """Above 0 where a point is hidden: casts the rays that would see the points.

    Args:
        x, y: where the points land, in pixels from the axis.
        w, w_then: 1 / depth now and then; 0 in the sky.
    """
    far = 1 / MAX_DEPTH_M
    constant, along_x, along_y = grid.of_frames(then.views[:3])
    ground = (constant + along_y * y).add_(along_x * x)
    # the sky is lost behind the ground where that is near, other points beyond the greatest depth
    hidden = torch.where(w > 0, far - w_then, ground.sub_(far))
    height, width = grid.shape[1:]
    near = overlaps(then.bounds[:2], then.box, *_landing(x, width))
    near &= overlaps(then.bounds[2:], then.box, *_landing(y, height))
    for pair in pairs_of(near.flatten(), len(then), grid):
        px, py, w_point = take(torch.stack([x, y, w_then]).flatten(1), pair.place)
        upper, lower = interval(then.body, BODY_LOWERS, pair, px, py)
        enter = reduce(torch.minimum, upper)
        enter = enter - torch.maximum(lower, w_point.mul_(1 + _SAME_SURFACE))
        hidden.view(-1).scatter_reduce_(0, pair.place.flatten(), enter.flatten(), "amax")
    return hidden


def _landing(place: Float[Tensor, "f h w"], side: int) -> tuple[Tensor, Tensor]:
    """The bounds [f, r, c] of where the points of each tile land on one axis, within the image."""
    rows = place.unflatten(1, (-1, TILE))
    low, high = (ends(2).unflatten(-1, (-1, TILE)) for ends in (rows.amin, rows.amax))
    return low.amin(-1).clamp_(min=-side / 2), high.amax(-1).clamp_(max=side / 2)
