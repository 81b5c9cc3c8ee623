"""Colours of what the rays meet: sky, ground with its pattern and shadows, objects with theirs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transframer.data.world.scene import MAX_DEPTH_M, MAX_OBJECTS
from transframer.data.world.tracing import (
    FIRST_OBJECT,
    GROUND,
    Frames,
    Hits,
    Objects,
    Rays,
    intersect,
    overlaps,
    take,
)

_AMBIENT, _DIFFUSE, _SHADOW = 0.5, 0.6, 0.55
_PENUMBRA_M = 0.7


def wave(x: Tensor) -> Tensor:
    """A smooth wave of period 1 between 0 (at integers) and 1: a polynomial, so equal on any machine."""
    x = x - x.floor()
    x = (1 - x).mul_(x).mul_(4)
    return (3 - 2 * x).mul_(x).mul_(x)


def shade(frames: Frames, rays: Rays, hits: Hits) -> Float[Tensor, "3 s s n"]:
    """RGB, 0-1, of what every ray meets."""
    directions = rays.directions()
    colour = _background(frames, rays, hits, directions)
    chosen = (hits.instance >= FIRST_OBJECT).flatten().nonzero().squeeze(1)
    slot = take(hits.instance.flatten(), chosen) - FIRST_OBJECT
    objects = frames.objects[take(rays.frame, chosen % len(rays.frame)) * MAX_OBJECTS + slot]
    way = objects.turned(take(directions.flatten(1), chosen))
    local = objects.origin + way * take(hits.depth_m.flatten(), chosen)
    colour.flatten(1)[:, chosen] = _object_colour(objects, local, take(hits.face.flatten(), chosen))
    return colour


def _background(frames: Frames, rays: Rays, hits: Hits, directions: Tensor) -> Float[Tensor, "3 s s n"]:
    views, frame = frames.views, rays.frame
    depth = torch.where(hits.instance == GROUND, hits.depth_m, 0.0)
    x, y = take(views.origin[:2], frame)[:, None, None] + directions[:2] * depth
    along_x, along_y = take(views.waves, frame)[:, :, None, None].unbind(1)
    first, second = wave(x * along_x + y * along_y)
    # the pattern fades with distance, where it would be finer than a pixel, and the ground into the haze
    far = depth * (1 / MAX_DEPTH_M)
    near = 1 - far
    low, high = take(views.ground, frame)[:, :, None, None]
    horizon, zenith = take(views.sky, frame)[:, :, None, None]
    sunny = _AMBIENT + _DIFFUSE * take(views.sun[2], frame)
    light = (1 - _shadow(frames, rays, hits, x, y).mul_(_SHADOW)).mul_(sunny)
    mix = first.mul_(second).mul_(near).mul_(near)
    ground = ((high - low) * mix).add_(low).mul_(light)
    dx, dy, dz = directions
    up = (dz / (dx * dx + dy * dy + dz * dz).sqrt() * 1.8).clamp(0, 1)
    # one blend towards the horizon's colour serves the ground's haze and the sky's gradient
    on_ground = depth > 0
    share = torch.where(on_ground, far * far, 1 - up)
    base = torch.where(on_ground, ground, zenith)
    return (horizon - base).mul_(share).add_(base)


def _shadow(frames: Frames, rays: Rays, hits: Hits, x: Tensor, y: Tensor) -> Float[Tensor, "s s n"]:
    """How much of the sun the ground misses, 0-1: little where the sun's way through an object is short."""
    on_ground = (hits.instance == GROUND).flatten(0, 1).any(0)
    near = overlaps(rays.bounds(), frames.shadow_bounds[rays.frame]) & on_ground[:, None]
    block, slot = near.nonzero(as_tuple=True)
    objects = frames.objects[rays.frame[block] * MAX_OBJECTS + slot]
    px, py, pz = objects.position
    x, y = take(x, block) - px, take(y, block) - py
    _, enter, leave = intersect(objects.turned((x, y, (-pz).expand_as(x))), objects.sun, objects.solid)
    dark = (leave - enter).mul_(1 / _PENUMBRA_M).clamp_(0, 1)
    shadow = dark.new_zeros(hits.depth_m.shape)
    return shadow.scatter_reduce_(2, block.expand_as(dark), dark, "amax")


def _object_colour(objects: Objects, local: Tensor, face: Tensor) -> Float[Tensor, "3 m"]:
    """RGB of one point on each object, given in the object's own axes."""
    light = _AMBIENT + _DIFFUSE * _facing(objects, local, face).clamp(min=0)
    body, mark = objects.colours.unflatten(0, (2, 3))
    return ((body + (mark - body) * _pattern(objects, local, face)) * light).clamp(max=1)


def _facing(objects: Objects, local: Tensor, face: Tensor) -> Float[Tensor, " m"]:
    """Cosine between the outward normal and the sun."""
    x, y, z = local
    nz = objects.solid[3] * z + 0.5 * objects.solid[4]  # (x, y, nz) is half the gradient of the quadric
    sun_x, sun_y, sun_z = objects.sun
    curved = (x * sun_x + y * sun_y + nz * sun_z) / (x * x + y * y + nz * nz).sqrt()
    across = torch.where(local > 0, objects.sun, -objects.sun)
    flat = torch.where(face == 1, across[0], torch.where(face == 2, across[1], across[2]))
    return torch.where(face == 0, curved, flat)


def _pattern(objects: Objects, local: Tensor, face: Tensor) -> Float[Tensor, " m"]:
    """How much of the second colour shows, 0-1: patterns carved through the solid, two periods wide."""
    x, y, z = unit = local / objects.solid[:3]
    stripes = (wave(0.45 * (x + y) + 0.9 * z) - 0.5) * 1.8 + 0.5
    # dots are centred half-way out, so a flat face would have none if its own axis did not count in full
    peaks = torch.where(face == torch.tensor([[1], [2], [3]], device=face.device), 1.0, wave(unit))
    dots = (peaks[0] + peaks[1] + peaks[2] - 2.0) * 1.6
    pattern = objects.pattern[0]
    return torch.where(pattern == 1, stripes, torch.where(pattern == 2, dots, 0.0)).clamp(0, 1)
