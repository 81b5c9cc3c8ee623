"""What is in a scene, and where everything is at a given time."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.data.world.draws import Draws

OBJECT_CLASSES = ("sphere", "box", "cylinder", "cone")
SEGMENTATION_CLASSES = ("sky", "ground", *OBJECT_CLASSES)
PATTERNS = ("plain", "stripes", "dots")
IMAGE_CLASSES = tuple(f"{pattern} {shape}" for shape in OBJECT_CLASSES for pattern in PATTERNS)
MAX_OBJECTS = 6
MAX_DEPTH_M = 20.0

# By the number of objects: more objects stand on a wider ring and are smaller, so that they seldom touch.
_RING_M = (0.3, 1.15, 1.4, 1.6, 1.9, 2.1)
_SHRINK = (1.15, 1.05, 1.0, 0.92, 0.85, 0.8)


@dataclass(frozen=True)
class Scenes:
    """A batch of b scenes of up to k = MAX_OBJECTS objects; metres, seconds, radians, z up, ground z = 0.

    Every solid is the part of the box |x| <= half_extent where, with x, y, z from its own centre,
    x^2 + y^2 + q2 z^2 + q1 z + q0 <= 0 (q = quadric): the box lies wholly inside its quadric, and the
    sphere, cylinder and cone inside the vertical faces of their boxes. One intersection serves all four.

    Attributes:
        present: which slots hold an object; they are filled from 0.
        shape: index into OBJECT_CLASSES.        pattern: index into PATTERNS.
        position: the middle of each object's path.   sway: the ends of the path relative to its middle.
        sway_rate, sway_phase, yaw, spin: position + sway sin(sway_rate t + sway_phase), yaw + spin t.
        colours: of the object and of its pattern, RGB 0-1.
        sun: unit vector towards the sun.
        ground_colours, sky_colours: RGB 0-1; the sky's at the horizon and overhead.
        ground_waves: two wave vectors of the ground's pattern, cycles per metre.
        focal: focal length as a share of the image's height.
        distance, azimuth, orbit_rate: of the camera around the origin.
        dolly, pan, bob: amplitude, rate and phase of its distance, heading and height.
        height, look, aim, tilt: the camera's height, the height it looks at above the origin, and the
            offsets of its heading and pitch from that direction.
    """

    present: Bool[Tensor, "b k"]
    shape: Int[Tensor, "b k"]
    pattern: Int[Tensor, "b k"]
    position: Float[Tensor, "b k 3"]
    sway: Float[Tensor, "b k 3"]
    sway_rate: Float[Tensor, "b k"]
    sway_phase: Float[Tensor, "b k"]
    yaw: Float[Tensor, "b k"]
    spin: Float[Tensor, "b k"]
    half_extent: Float[Tensor, "b k 3"]
    quadric: Float[Tensor, "b k 3"]
    colours: Float[Tensor, "b k 2 3"]
    sun: Float[Tensor, "b 3"]
    ground_colours: Float[Tensor, "b 2 3"]
    sky_colours: Float[Tensor, "b 2 3"]
    ground_waves: Float[Tensor, "b 2 2"]
    focal: Float[Tensor, " b"]
    distance: Float[Tensor, " b"]
    azimuth: Float[Tensor, " b"]
    orbit_rate: Float[Tensor, " b"]
    dolly: Float[Tensor, "b 3"]
    pan: Float[Tensor, "b 3"]
    bob: Float[Tensor, "b 3"]
    height: Float[Tensor, " b"]
    look: Float[Tensor, " b"]
    aim: Float[Tensor, " b"]
    tilt: Float[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.focal)

    def __getitem__(self, rows: slice) -> Scenes:
        return Scenes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def sample_scenes(keys: Int[Tensor, " b"], main_object: bool, static: bool) -> Scenes:
    """Draws one scene per key, in float64.

    Args:
        keys: from `scene_keys`.
        main_object: object 0 stands in the middle and fills much of the picture; others are few and small.
        static: objects do not move.
    """
    draw = Draws(keys)
    k, full = MAX_OBJECTS, 2 * math.pi
    # the power makes few objects more frequent than many
    count = 1 + (draw.uniform(0, 1) ** 1.6 * (3 if main_object else k)).long()
    slots = torch.arange(k, device=keys.device)
    shape, pattern = draw.choice(4, k), draw.choice(3, k)
    focal = draw.uniform(0.85, 1.1)

    table = torch.tensor([_RING_M, _SHRINK], dtype=torch.float64, device=keys.device)[:, count - 1]
    turn = draw.uniform(0, full)[:, None]
    angle = turn + full * (slots + draw.uniform(-0.2, 0.2, k)) / count[:, None]
    radius = table[0][:, None] * draw.uniform(0.8, 1.2, k)
    size = table[1][:, None] * draw.uniform(1.25, 1.9, k)
    distance = draw.uniform(4.2, 5.4)
    if main_object:
        distance = distance - 1.2
        span = draw.uniform(0.44, 0.56)
        first = slots == 0
        radius = torch.where(first, 0.0, draw.uniform(2.0, 2.8, k))
        size = torch.where(first, (span * distance / focal)[:, None], size * 0.4)
    half_extent, quadric = _solid(shape, size, draw)

    lift = draw.uniform(-0.9, 0.6, k).clamp(min=0)  # three in five stand on the ground
    heading = draw.uniform(0, full, k)
    stride = draw.uniform(0.3, 0.65, k) * (not static)
    ground_point = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    sway = torch.stack([stride * heading.cos(), stride * heading.sin(), 0.5 * lift * (not static)], -1)
    elevation, azimuth = draw.uniform(0.6, 1.0), draw.uniform(0, full)
    waves = draw.uniform(0.12, 0.28, 2)
    veer = draw.uniform(0, full)[:, None] + draw.uniform(1.2, 1.9, 1) * slots[:2]
    return Scenes(
        present=slots < count[:, None],
        shape=shape,
        pattern=pattern,
        position=torch.cat([ground_point, (half_extent[..., 2] + lift)[..., None]], -1),
        sway=sway,
        sway_rate=draw.uniform(3.0, 5.5, k),
        sway_phase=draw.uniform(0, full, k),
        yaw=draw.uniform(0, full, k),
        spin=draw.signed(0.5, 2.5, k) * (not static),
        half_extent=half_extent,
        quadric=quadric,
        colours=_object_colours(draw),
        sun=torch.stack(
            [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], -1
        ),
        ground_colours=_ground_colours(draw),
        sky_colours=_sky_colours(draw),
        ground_waves=torch.stack([waves * veer.cos(), waves * veer.sin()], -1),
        focal=focal,
        distance=distance,
        azimuth=draw.uniform(0, full),
        orbit_rate=draw.signed(0.3, 0.55),
        dolly=_oscillation(draw, 0.1, 0.4),
        pan=_oscillation(draw, 0.04, 0.08) if static else _oscillation(draw, 0.14, 0.25),
        bob=_oscillation(draw, 0.0, 0.15),
        height=draw.uniform(1.2, 1.9),
        look=(half_extent[..., 2] + lift)[:, 0] if main_object else draw.uniform(0.4, 0.8),
        aim=draw.uniform(-0.08, 0.08),
        tilt=draw.uniform(-0.03, 0.05),
    )


def _oscillation(draw: Draws, low: int | float, high: int | float) -> Tensor:
    amplitude, rate = draw.uniform(low, high), draw.uniform(3.0, 5.0)
    return torch.stack([amplitude, rate, draw.uniform(0, 2 * math.pi)], -1)


def _solid(shape: Tensor, size: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
    """Half extents and quadric coefficients (q2, q1, q0) of each object, from its shape and size."""
    stretch = draw.uniform(0.92, 1.08, MAX_OBJECTS)
    wide, high = size / stretch, size * stretch
    radius = wide * torch.tensor([0.5, 0.0, 0.36, 0.46], dtype=wide.dtype, device=wide.device)[shape]
    ball = (shape == 0) * 0.5 * size
    half_z = torch.where(shape == 0, ball, high * torch.where(shape == 1, 0.4, 0.52))
    radius = torch.where(shape == 0, ball, radius)
    # the walls of the box stand a little outside round solids, so that they never cut them
    half_x = torch.where(shape == 1, wide * 0.4, radius * 1.01)
    half_extent = torch.stack([half_x, half_x, torch.where(shape == 0, half_z * 1.01, half_z)], -1)
    zero, slope = torch.zeros_like(radius), (radius / (2 * half_z)) ** 2  # the cone's apex is at z = half_z
    options = torch.stack(
        [
            torch.stack([zero + 1, zero, -(radius**2)], -1),
            torch.stack([zero + 1, zero, -4 * (wide + high) ** 2], -1),
            torch.stack([zero, zero, -(radius**2)], -1),
            torch.stack([-slope, 2 * slope * half_z, -slope * half_z**2], -1),
        ]
    )
    return half_extent, options.gather(0, shape[None, ..., None].expand(1, *shape.shape, 3))[0]


def _rgb_from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sector = (torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype, device=hue.device) + 6 * hue[..., None]) % 6
    ramp = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * ramp)


def _object_colours(draw: Draws) -> Tensor:
    k = MAX_OBJECTS
    hue = draw.uniform(0, 1, k)
    body = _rgb_from_hsv(hue, draw.uniform(0.6, 0.9, k), draw.uniform(0.75, 1, k))
    dark = draw.choice(2, k)
    other = (hue + draw.uniform(0.35, 0.65, k)) % 1
    mark = _rgb_from_hsv(other, torch.where(dark == 1, 0.5, 0.15), torch.where(dark == 1, 0.25, 1.0))
    return torch.stack([body, mark.to(body.dtype)], -2)


def _ground_colours(draw: Draws) -> Tensor:
    hue, saturation = draw.uniform(0, 1), draw.uniform(0.15, 0.35)
    value = draw.uniform(0.4, 0.55)
    other = hue + draw.uniform(-0.1, 0.1)
    return torch.stack(
        [_rgb_from_hsv(hue, saturation, value), _rgb_from_hsv(other, saturation, value + 0.22)], -2
    )


def _sky_colours(draw: Draws) -> Tensor:
    hue = draw.uniform(0.5, 0.65)
    horizon = _rgb_from_hsv(hue, draw.uniform(0.05, 0.2), draw.uniform(0.85, 1.0))
    zenith = _rgb_from_hsv(hue, draw.uniform(0.4, 0.7), draw.uniform(0.6, 0.95))
    return torch.stack([horizon, zenith], -2)
