"""Colours of what the rays meet: sky, ground with its pattern and shadows, objects with theirs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transframer.data.world.scene import MAX_DEPTH_M, MAX_OBJECTS
from transframer.data.world.tracing import (
    FIRST_OBJECT,
    Blocks,
    Frames,
    Hits,
    Vector,
    directions,
    intersect,
    overlaps,
    rotated,
    solids,
    spread,
)

_AMBIENT, _DIFFUSE, _SHADOW = 0.5, 0.6, 0.55
_PENUMBRA_M = 0.7


def wave(x: Tensor) -> Tensor:
    """A smooth wave of period 1 between 0 (at integers) and 1: a polynomial, so equal on any machine."""
    x = x - x.floor()
    x = x * (1 - x) * 4
    return x * x * (3 - 2 * x)


def shade(frames: Frames, blocks: Blocks, hits: Hits) -> Float[Tensor, "3 s s n"]:
    """RGB, 0-1, of every ray."""
    way = [spread(*c, blocks.steps) for c in directions(frames, blocks)]
    colour = torch.stack(_background(frames, blocks, hits, way))
    rays = (hits.instance >= FIRST_OBJECT).flatten().nonzero().squeeze(1)
    frame = blocks.frame[rays % len(blocks.frame)]
    depth = hits.depth_m.flatten()[rays]
    owner = frame * MAX_OBJECTS + hits.instance.flatten()[rays] - FIRST_OBJECT
    point = [frames.origin[:, c][frame] + depth * way[c].flatten()[rays] for c in range(3)]
    colour.flatten(1)[:, rays] = torch.stack(_objects(frames, owner, frame, point, hits.face.flatten()[rays]))
    return colour


def _background(frames: Frames, blocks: Blocks, hits: Hits, way: list[Tensor]) -> list[Tensor]:
    frame = blocks.frame
    depth = torch.where(hits.instance == 1, hits.depth_m, 0.0)
    x, y = (frames.origin[frame, c] + depth * way[c] for c in range(2))
    (ax, ay), (bx, by) = frames.ground_waves[frame].permute(1, 2, 0)
    mix = wave(x * ax + y * ay) * wave(x * bx + y * by)
    sunny = _AMBIENT + _DIFFUSE * frames.sun[frame, 2]
    light = sunny * (1 - _SHADOW * _shadow(frames, blocks, hits, x, y))
    # the pattern fades with distance, where it would be finer than a pixel, and the ground into the haze
    far = depth * (1 / MAX_DEPTH_M)
    mix = mix * (1 - far).clamp(min=0) ** 2
    haze = far * far
    height = way[2] / (way[0] * way[0] + way[1] * way[1] + way[2] * way[2]).sqrt()
    up = (height * 1.8).clamp(0, 1)
    ground, sky = frames.ground_colours[frame], frames.sky_colours[frame]
    colours = []
    for c in range(3):
        low, high = ground[:, 0, c], ground[:, 1, c]
        horizon = sky[:, 0, c]
        floor = (low + (high - low) * mix) * light
        floor = floor + (horizon - floor) * haze
        colours.append(torch.where(depth > 0, floor, horizon + (sky[:, 1, c] - horizon) * up))
    return colours


def _shadow(frames: Frames, blocks: Blocks, hits: Hits, x: Tensor, y: Tensor) -> Tensor:
    """How much of the sun each point of the ground misses, 0-1: soft where the way through an object is short."""
    on_ground = (hits.instance == 1).flatten(0, 1).any(0)
    near = overlaps(blocks.bounds(), frames.shadow_bounds[blocks.frame]) & on_ground[:, None]
    block, slot = near.nonzero(as_tuple=True)
    frame = blocks.frame[block]
    turn = frames.turn[frame, slot].unbind(-1)
    px, py, pz = frames.position[frame, slot].unbind(-1)
    origin = rotated(turn, (x[..., block] - px, y[..., block] - py, -pz))
    direction = rotated(turn, frames.sun[frame].unbind(-1))
    _, enter, leave = intersect(origin, direction, solids(frames)[:, frame * MAX_OBJECTS + slot])
    dark = ((leave - enter) * (1 / _PENUMBRA_M)).clamp(0, 1)
    return torch.zeros_like(x).scatter_reduce_(2, block.expand_as(dark), dark, "amax")


def _objects(frames: Frames, owner: Tensor, frame: Tensor, point: list[Tensor], face: Tensor) -> list[Tensor]:
    """RGB of points on objects; all arguments are flat lists, one entry per ray."""
    position = frames.position.flatten(0, 1).T.contiguous()[:, owner]
    cosine, sine = frames.turn.flatten(0, 1).T.contiguous()[:, owner]
    half_x, _, half_z, q2, q1, _ = solids(frames)[:, owner]
    local = rotated((cosine, sine), (point[0] - position[0], point[1] - position[1], point[2] - position[2]))
    sun = rotated((cosine, sine), tuple(frames.sun[:, c][frame] for c in range(3)))
    light = _AMBIENT + _DIFFUSE * _facing(local, face, q2, q1, sun).clamp(min=0)
    mark = _pattern(frames.pattern.flatten()[owner], local, face, half_x, half_z)
    body, other = frames.colours.flatten(0, 1).permute(1, 2, 0).contiguous()[..., owner]
    return [((body[c] + (other[c] - body[c]) * mark) * light).clamp(max=1) for c in range(3)]


def _facing(local: Vector, face: Tensor, q2: Tensor, q1: Tensor, sun: Vector) -> Tensor:
    """Cosine between the outward normal and the sun."""
    x, y, z = local
    nx, ny, nz = x, y, q2 * z + 0.5 * q1  # half the gradient of the quadric
    curved = (nx * sun[0] + ny * sun[1] + nz * sun[2]) / (nx * nx + ny * ny + nz * nz).sqrt()
    across_x, across_y, across_z = (torch.where(p > 0, s, -s) for p, s in zip(local, sun, strict=True))
    flat = torch.where(face == 1, across_x, torch.where(face == 2, across_y, across_z))
    return torch.where(face == 0, curved, flat)


def _pattern(pattern: Tensor, local: Vector, face: Tensor, half_x: Tensor, half_z: Tensor) -> Tensor:
    """How much of the second colour shows, 0-1: patterns carved through the solid, two periods wide."""
    x, y, z = local[0] / half_x, local[1] / half_x, local[2] / half_z
    stripes = (wave(0.45 * (x + y) + 0.9 * z) - 0.5) * 1.8 + 0.5
    # dots are centred half-way out from the middle, so a flat face has none unless its own axis counts in full
    peaks = [torch.where(face == axis, 1.0, wave(c)) for axis, c in ((1, x), (2, y), (3, z))]
    dots = (peaks[0] + peaks[1] + peaks[2] - 2.0) * 1.6
    return torch.where(pattern == 1, stripes, torch.where(pattern == 2, dots, 0.0)).clamp(0, 1)
