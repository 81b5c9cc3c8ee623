"""Images and label maps of a batch of frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from transframer.data.world.poses import Poses
from transframer.data.world.scene import Scenes
from transframer.data.world.shading import shade
from transframer.data.world.tracing import NEAR_M, Frames, Hits, Objects, Rays, Views, cast, trace

TILE = 8


@dataclass(frozen=True)
class Maps:
    """What the pixel centres of f frames see: the fields of `Hits` as images."""

    depth_m: Float[Tensor, "f h w"]
    instance: Int[Tensor, "f h w"]
    face: Int[Tensor, "f h w"]


def frames_of(scenes: Scenes, poses: Poses) -> Frames:
    """Every pose of every scene as one flat list of frames, scene by scene."""
    b, t, k = poses.turn.shape[:3]

    def per_frame(x: Tensor) -> Tensor:  # b ... -> b t ...
        return x[:, None].expand(b, t, *x.shape[1:])

    def last(x: Tensor, frame_dims: int) -> Tensor:  # the dimensions that count frames or objects go last
        return x.float().flatten(0, frame_dims - 1).movedim(0, -1).contiguous()

    cosine, sine = poses.turn.unbind(-1)
    world = poses.world_from_camera
    sun = per_frame(scenes.sun)

    def turned(vector: Tensor) -> Tensor:
        x, y, z = vector.unbind(-1)
        return torch.stack([cosine * x + sine * y, cosine * y - sine * x, z], -1)

    solid = torch.cat([scenes.half_extent, scenes.quadric], -1)
    corners = _corners(scenes, poses)
    ground = corners - sun[:, :, None, None] * (corners[..., 2:] / sun[:, :, None, None, 2:])
    bounds = _image_bounds(poses, torch.stack([corners, ground], 2)).where(
        scenes.present[:, None, None, :, None], -torch.inf
    )
    views = Views(
        axes=last(world[..., :3, :3].transpose(-1, -2), 2),
        origin=last(world[..., :3, 3], 2),
        focal=last(poses.intrinsics[..., 0, 0], 2),
        centre=last(poses.intrinsics[..., :2, 2], 2),
        sun=last(sun, 2),
        waves=last(per_frame(scenes.ground_waves), 2),
        ground=last(per_frame(scenes.ground_colours), 2),
        sky=last(per_frame(scenes.sky_colours), 2),
    )
    objects = Objects(
        position=last(poses.position, 3),
        turn=last(poses.turn, 3),
        origin=last(turned(world[..., None, :3, 3] - poses.position), 3),
        sun=last(turned(sun[:, :, None].expand(b, t, k, 3)), 3),
        solid=last(per_frame(solid), 3),
        colours=last(per_frame(scenes.colours.flatten(-2)), 3),
        pattern=last(per_frame(scenes.pattern[..., None]), 3),
    )
    body, shadow = bounds.float().flatten(0, 1).unbind(1)
    return Frames(views, objects, body, shadow, per_frame(scenes.shape).flatten(0, 1))


def _corners(scenes: Scenes, poses: Poses) -> Float[Tensor, "b t k 8 3"]:
    """The corners of the box around each object, in the world."""
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=poses.turn.device)
    x, y, z = (torch.cartesian_prod(signs, signs, signs) * scenes.half_extent[..., None, :]).unbind(-1)
    cosine, sine = poses.turn[..., None].unbind(-2)
    x, y, z = x[:, None], y[:, None], z[:, None].expand(*cosine.shape[:-1], 8)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], -1) + poses.position[..., None, :]


def _image_bounds(poses: Poses, points: Float[Tensor, "b t g k p 3"]) -> Float[Tensor, "b t g k 4"]:
    """Left, right, top, bottom pixel coordinates of hulls of p points; the whole plane if one is behind."""
    world = poses.world_from_camera[:, :, None, None]
    x, y, z = ((points - world[..., None, :3, 3]) @ world[..., :3, :3]).unbind(-1)
    focal, centre = poses.intrinsics[..., :1, :1, None], poses.intrinsics[..., :2, 2, None, None, None]
    u, v = x / z * focal + centre[:, :, 0], y / z * focal + centre[:, :, 1]
    edges = torch.stack([u.amin(-1) - 0.01, u.amax(-1) + 0.01, v.amin(-1) - 0.01, v.amax(-1) + 0.01], -1)
    behind = (z < NEAR_M).any(-1, keepdim=True)
    return torch.where(behind, edges.new_tensor([-1e6, 1e6, -1e6, 1e6]), edges)


def tiles(views: Views, size: tuple[int, int], frame: Int[Tensor, " g"] | None = None) -> Rays:
    """Blocks that cover every pixel centre of every frame, or of those given, frame by frame, row by row."""
    device, (height, width) = views.focal.device, size
    if frame is None:
        frame = torch.arange(len(views.focal), device=device)
    place = torch.stack(
        torch.meshgrid(
            torch.arange(0, width, TILE, device=device),
            torch.arange(0, height, TILE, device=device),
            indexing="xy",
        )
    ).float()
    place = place.flatten(1).repeat(1, len(frame))
    frame = frame.repeat_interleave(place.shape[1] // len(frame))
    return cast(views, frame, place, torch.arange(TILE, device=device) + 0.5, float(TILE))


def image_from_tiles(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., s, s, n] per tile -> [f, ..., h, w] per frame."""
    rows, columns = size[0] // TILE, size[1] // TILE
    x = x.unflatten(-1, (-1, rows, columns))  # ... s s f r c
    return x.movedim(-3, 0).movedim(-2, -4).movedim(-1, -2).flatten(-4, -3).flatten(-2)


def maps_of(hits: Hits, size: tuple[int, int]) -> Maps:
    """The hits of `tiles` as images."""
    return Maps(*(image_from_tiles(x, size) for x in (hits.depth_m, hits.instance, hits.face)))


def rgb_of(
    frames: Frames, rays: Rays, hits: Hits, maps: Maps, size: tuple[int, int]
) -> UInt8[Tensor, "f 3 h w"]:
    """Antialiased colours: one ray per pixel, 2 x 2 where the pixel touches an edge between surfaces.

    Args:
        rays, hits: the `tiles` of the frames, and what they meet.
        maps: the same hits as images.
    """
    image = image_from_tiles(shade(frames, rays, hits), size)
    frame, y, x = _edges(maps.instance * 4 + maps.face).nonzero(as_tuple=True)
    fine = cast(frames.views, frame, torch.stack([x, y]).float(), image.new_tensor([0.25, 0.75]), 1.0)
    colour = shade(frames, fine, trace(frames, fine))
    image[frame, :, y, x] = ((colour[:, 0, 0] + colour[:, 0, 1] + colour[:, 1, 0] + colour[:, 1, 1]) * 0.25).T
    return (_lens(image) * 255 + 0.5).to(torch.uint8)


def _lens(image: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f 3 h w"]:
    """The blur of a lens, [1 2 1] / 4 both ways: band-limits the edges, which otherwise cost most tokens."""
    image = F.pad(image, (1, 1, 1, 1), mode="replicate")
    for _ in range(2):
        image = image[..., 1:] + image[..., :-1]
    for _ in range(2):
        image = image[..., 1:, :] + image[..., :-1, :]
    return image * 0.0625


def _edges(surface: Int[Tensor, "f h w"]) -> Tensor:
    """Pixels with a neighbour, left, right, above or below, of another surface."""
    edge = torch.zeros_like(surface, dtype=torch.bool)
    across, along = surface[:, :, 1:] != surface[:, :, :-1], surface[:, 1:] != surface[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= along
    edge[:, :-1] |= along
    return edge
