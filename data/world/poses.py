"""Where the camera and every object of a scene are at given times."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from transframer.data.world.scene import Scenes


@dataclass(frozen=True)
class Poses:
    """Cameras and objects of b scenes at t times each, float64, metres, z up.

    Attributes:
        intrinsics: pixels, pixel centres at +0.5.
        world_from_camera: right, down and forward axes of the camera, and its place.
        position: centre of each object.
        turn: cosine and sine of each object's rotation about the vertical.
    """

    intrinsics: Float[Tensor, "b t 3 3"]
    world_from_camera: Float[Tensor, "b t 4 4"]
    position: Float[Tensor, "b t k 3"]
    turn: Float[Tensor, "b t k 2"]


def poses_at(scenes: Scenes, times_s: Float[Tensor, "b t"], size: tuple[int, int]) -> Poses:
    """The poses of each scene at its times.

    Args:
        times_s: seconds, any.
        size: height and width of the image in pixels.
    """
    time = times_s.double()
    swing = scenes.sway_rate[:, None] * time[..., None] + scenes.sway_phase[:, None]  # b t k
    position = scenes.position[:, None] + scenes.sway[:, None] * swing.sin()[..., None]
    yaw = scenes.yaw[:, None] + scenes.spin[:, None] * time[..., None]
    return Poses(
        intrinsics=_intrinsics(scenes, time, size),
        world_from_camera=_world_from_camera(scenes, time),
        position=position,
        turn=torch.stack([yaw.cos(), yaw.sin()], -1),
    )


def _intrinsics(scenes: Scenes, time: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    intrinsics = time.new_zeros(*time.shape, 3, 3)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = (scenes.focal * height)[:, None]
    intrinsics[..., 0, 2], intrinsics[..., 1, 2], intrinsics[..., 2, 2] = width / 2, height / 2, 1.0
    return intrinsics


def _world_from_camera(scenes: Scenes, time: Tensor) -> Tensor:
    """An orbit around the origin, with oscillating distance, height and heading, facing inwards."""

    def oscillation(parameters: Tensor) -> Tensor:
        amplitude, rate, phase = (p[:, None] for p in parameters.unbind(-1))
        return amplitude * (rate * time + phase).sin()

    azimuth = scenes.azimuth[:, None] + scenes.orbit_rate[:, None] * time
    distance = scenes.distance[:, None] + oscillation(scenes.dolly)
    height = scenes.height[:, None] + oscillation(scenes.bob)
    heading = azimuth + torch.pi + scenes.aim[:, None] + oscillation(scenes.pan)
    pitch = torch.atan2(height - scenes.look[:, None], distance) + scenes.tilt[:, None]
    zero = torch.zeros_like(time)
    right = torch.stack([heading.sin(), -heading.cos(), zero], -1)
    down = torch.stack([-pitch.sin() * heading.cos(), -pitch.sin() * heading.sin(), -pitch.cos()], -1)
    forward = torch.stack([pitch.cos() * heading.cos(), pitch.cos() * heading.sin(), -pitch.sin()], -1)
    place = torch.stack([distance * azimuth.cos(), distance * azimuth.sin(), height], -1)
    last = time.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*time.shape, 1, 4)
    return torch.cat([torch.stack([right, down, forward, place], -1), last], -2)
