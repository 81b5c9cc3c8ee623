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
from transframer.data.world.tracing import Blocks, Frames, Hits, trace

TILE = 8


@dataclass(frozen=True)
class Maps:
    """What the pixel centres of f frames see: the fields of `Hits` as images."""

    depth_m: Float[Tensor, "f h w"]
    instance: Int[Tensor, "f h w"]
    face: Int[Tensor, "f h w"]


def frames_of(scenes: Scenes, poses: Poses) -> Frames:
    """Every pose of every scene as one flat list of float32 frames, scene by scene."""
    b, t = poses.turn.shape[:2]

    def flat(x: Tensor) -> Tensor:
        return x.float().flatten(0, 1)

    def repeated(x: Tensor) -> Tensor:
        x = x.float() if x.is_floating_point() else x
        return x[:, None].expand(b, t, *x.shape[1:]).flatten(0, 1)

    present = repeated(scenes.present)
    corners = _corners(scenes, poses)
    sun = scenes.sun[:, None, None, None]
    ground = corners - sun * (corners[..., 2:] / sun[..., 2:])
    return Frames(
        origin=flat(poses.world_from_camera[..., :3, 3]),
        axes=flat(poses.world_from_camera[..., :3, :3].transpose(-1, -2)),
        focal=flat(poses.intrinsics[..., 0, 0]),
        centre=flat(poses.intrinsics[..., :2, 2]),
        position=flat(poses.position),
        turn=flat(poses.turn),
        bounds=_image_bounds(poses, corners).float().flatten(0, 1).where(present[..., None], -torch.inf),
        shadow_bounds=_image_bounds(poses, ground).float().flatten(0, 1).where(present[..., None], -torch.inf),
        **{
            name: repeated(getattr(scenes, name))
            for name in (
                "half_extent", "quadric", "present", "shape", "pattern", "colours", "sun",
                "ground_colours", "ground_waves", "sky_colours",
            )
        },
    )  # fmt: skip


def _corners(scenes: Scenes, poses: Poses) -> Float[Tensor, "b t k 8 3"]:
    """The corners of the box around each object, in the world."""
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=poses.turn.device)
    x, y, z = (torch.cartesian_prod(signs, signs, signs) * scenes.half_extent[..., None, :]).unbind(-1)
    cosine, sine = poses.turn[..., None].unbind(-2)
    x, y, z = x[:, None], y[:, None], z[:, None].expand(*cosine.shape[:-1], 8)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], -1) + poses.position[..., None, :]


def _image_bounds(poses: Poses, points: Float[Tensor, "b t k p 3"]) -> Float[Tensor, "b t k 4"]:
    """Left, right, top, bottom pixel coordinates of the hulls of points; the whole plane if one is behind."""
    axes, place = poses.world_from_camera[..., :3, :3], poses.world_from_camera[..., :3, 3]
    x, y, z = ((points - place[:, :, None, None]) @ axes[:, :, None]).unbind(-1)
    focal, centre = poses.intrinsics[..., 0, 0, None, None], poses.intrinsics[..., :2, 2, None, None]
    behind = (z < 0.1).any(-1)
    u, v = x / z * focal + centre[:, :, 0], y / z * focal + centre[:, :, 1]
    edges = torch.stack([u.amin(-1) - 0.01, u.amax(-1) + 0.01, v.amin(-1) - 0.01, v.amax(-1) + 0.01], -1)
    return torch.where(behind[..., None], edges.new_tensor([-1e6, 1e6, -1e6, 1e6]), edges)


def tiles(frames: Frames, size: tuple[int, int]) -> Blocks:
    """Blocks that cover every pixel centre of every frame, frame by frame, row by row."""
    device, (height, width) = frames.focal.device, size
    frame, top, left = torch.cartesian_prod(
        torch.arange(len(frames.focal), device=device),
        torch.arange(0, height, TILE, device=device),
        torch.arange(0, width, TILE, device=device),
    ).unbind(-1)
    return Blocks(frame, left.float(), top.float(), torch.arange(TILE, device=device) + 0.5, TILE)


def image_from_tiles(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., s, s, n] per tile -> [f, ..., h, w] per frame."""
    rows, columns = size[0] // TILE, size[1] // TILE
    x = x.unflatten(-1, (-1, rows, columns))  # ... s s f r c
    return x.movedim(-3, 0).movedim(-2, -4).movedim(-1, -2).flatten(-4, -3).flatten(-2)


def maps_of(hits: Hits, size: tuple[int, int]) -> Maps:
    """The hits of `tiles` as images."""
    return Maps(*(image_from_tiles(x, size) for x in (hits.depth_m, hits.instance, hits.face)))


def rgb_of(
    frames: Frames, blocks: Blocks, hits: Hits, maps: Maps, size: tuple[int, int]
) -> UInt8[Tensor, "f 3 h w"]:
    """Antialiased colours: one ray per pixel, 2 x 2 where the pixel touches an edge between surfaces."""
    image = image_from_tiles(shade(frames, blocks, hits), size)
    frame, y, x = _edges(maps.instance * 4 + maps.face).nonzero(as_tuple=True)
    fine = Blocks(frame, x.float(), y.float(), image.new_tensor([0.25, 0.75]), 1.0)
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
