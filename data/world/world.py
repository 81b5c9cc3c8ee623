"""The world: an endless, procedural source of labelled video, computed on demand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from transframer.data.world.draws import SPLITS, scene_keys
from transframer.data.world.forms import Frames, frames_of
from transframer.data.world.labels import clip_flow, motions_of
from transframer.data.world.normals import normal_forms, normals_of
from transframer.data.world.poses import poses_at
from transframer.data.world.render import boxes_of, classes_of, depth_of, rgb_of
from transframer.data.world.samples import samples_of
from transframer.data.world.scene import PATTERNS, sample_scenes
from transframer.data.world.tracing import image_grid, instance_of, near_tiles, pairs_of, trace
from transframer.errors import ConfigError, unknown_name
from transframer.task import Clip

LABELS = ("rgb", "depth_m", "normals", "instance", "mask", "flow", "boxes")
# Rays worked on at once: on a CPU few enough to stay in cache, on a GPU enough to fill it.
_RAYS_AT_ONCE = {"cpu": 3 << 17, "cuda": 1 << 23}


@dataclass(frozen=True)
class Clips:
    """b clips of t frames with their labels; a field that was not asked for is None.

    Attributes:
        times_s: seconds.
        intrinsics, world_from_camera: as in `Camera`; the world has z up and the ground at z = 0.
        label: index into IMAGE_CLASSES of object 0, the main object.
        rgb: sRGB, 0-255.
        depth_m: metres along the optical axis at the pixel centre, 0 in the sky.
        normals: unit vectors in the camera's axes (x right, y down, z forward), 0 in the sky.
        instance: 0 sky, 1 ground, 2 + slot for each object.
        mask: index into SEGMENTATION_CLASSES.
        flow: pixels (x, y) from each pixel centre of a frame to where its point is in the next frame.
        flow_valid: the point is visible in the next frame, and inside it.
        occluded: the point is hidden in the next frame.
        boxes: x0 y0 x1 y1 of each object's visible pixels, the last two exclusive; zeros where none.
        box_valid: the object is present and shows at least the world's `min_box_share` of the image.
        box_labels: index into OBJECT_CLASSES.
    """

    times_s: Float[Tensor, "b t"]
    intrinsics: Float[Tensor, "b t 3 3"]
    world_from_camera: Float[Tensor, "b t 4 4"]
    label: Int[Tensor, " b"]
    rgb: UInt8[Tensor, "b t 3 h w"] | None = None
    depth_m: Float[Tensor, "b t h w"] | None = None
    normals: Float[Tensor, "b t 3 h w"] | None = None
    instance: Int[Tensor, "b t h w"] | None = None
    mask: Int[Tensor, "b t h w"] | None = None
    flow: Float[Tensor, "b u 2 h w"] | None = None
    flow_valid: Bool[Tensor, "b u h w"] | None = None
    occluded: Bool[Tensor, "b u h w"] | None = None
    boxes: Float[Tensor, "b t k 4"] | None = None
    box_valid: Bool[Tensor, "b t k"] | None = None
    box_labels: Int[Tensor, "b t k"] | None = None


class World:
    """Labelled video of moving solids on a ground plane.

    Scene i of a split and seed is the same wherever, with whatever others and in whatever order it is asked
    for. No two splits of a seed share a scene's random key.

    Args:
        split: "train", "validation" or "test".
        seed: which world.
        size_px: side of the square image, or (height, width); multiples of 16.
        device: where to compute.
        min_box_share: visible objects that cover a smaller share of the image than this have no box.

    Raises:
        UnknownNameError: no such split.
        ConfigError: a size that is not a positive multiple of 16.
    """

    def __init__(
        self,
        split: str,
        seed: int = 0,
        size_px: int | tuple[int, int] = 64,
        device: str | torch.device = "cpu",
        min_box_share: float = 0.004,
    ) -> None:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        size = (size_px, size_px) if isinstance(size_px, int) else tuple(size_px)
        if len(size) != 2 or any(side <= 0 or side % 16 for side in size):
            raise ConfigError(f"size {size_px}", field="size_px", expected="positive multiples of 16")
        self.split, self.seed, self.size, self.device = split, seed, size, torch.device(device)
        self.min_box_share = min_box_share

    def keys(self, indices: Sequence[int] | Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The random key of each scene."""
        return scene_keys(
            self.seed, self.split, torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        )

    def clips(
        self, indices: Sequence[int] | Int[Tensor, " b"], clip: Clip, labels: Collection[str] = LABELS
    ) -> Clips:
        """Renders whole clips, their frames at 0, step_s, 2 step_s, ...

        Args:
            indices: scene numbers, from 0.
            clip: how many frames, how far apart, of which kind of scene.
            labels: what to compute, out of `LABELS`; flow needs two frames.

        Raises:
            UnknownNameError: a label that is not in `LABELS`.
        """
        steps = torch.arange(clip.frames, device=self.device)
        return self.at(indices, steps.expand(len(indices), -1), clip, labels, flows=clip.frames - 1)

    def at(
        self,
        indices: Sequence[int] | Int[Tensor, " b"],
        steps: Int[Tensor, "b t"],
        clip: Clip,
        labels: Collection[str] = LABELS,
        flows: int = 1,
    ) -> Clips:
        """Renders chosen frames of clips.

        Args:
            steps: the frames' numbers in their clips.
            flows: how many frames, from the first, get flow to the frame after them in `steps`.
        """
        for label in labels:
            if label not in LABELS:
                raise unknown_name("label", label, LABELS)
        scenes = sample_scenes(self.keys(indices), clip.main_object, clip.static)
        times = steps * clip.step_s
        poses = poses_at(scenes, times, self.size)
        frames = frames_of(scenes, poses)
        motions = motions_of(poses)[..., :flows] if "flow" in labels and flows > 0 else None
        facing = normal_forms(scenes, poses) if "normals" in labels else None
        b, t = times.shape
        rays = _RAYS_AT_ONCE.get(self.device.type, _RAYS_AT_ONCE["cpu"])
        some = max(1, rays // (self.size[0] * self.size[1] * t))
        parts = []
        for start in range(0, b, some):
            of_frames, of_clips = slice(start * t, (start + some) * t), slice(start, start + some)
            moves = None if motions is None else motions[..., of_clips, :]
            faces = None if facing is None else facing[..., of_frames]
            parts.append(self._render(frames[of_frames], moves, faces, t, frozenset(labels)))
        return Clips(
            times_s=times.float(),
            intrinsics=poses.intrinsics.float(),
            world_from_camera=poses.world_from_camera.float(),
            label=scenes.shape[:, 0] * len(PATTERNS) + scenes.pattern[:, 0],
            **{name: torch.cat([part[name] for part in parts]) for name in parts[0]},
        )

    def samples(
        self, indices: Sequence[int] | Int[Tensor, " b"], sample_type: type, clip: Clip
    ) -> list[dict[str, Any]]:
        """Samples of a task: exactly the keys of its sample type, as documented in `transframer.task.Task`.

        Args:
            indices: scene numbers, from 0; each also picks among the clip's choices of context and target.
            sample_type: a TypedDict with keys from the common vocabulary.
            clip: what the task asks of the world.

        Raises:
            DataError: a key that the world does not know, or that this clip cannot serve.
        """
        return samples_of(self, indices, sample_type, clip)

    def _render(
        self, frames: Frames, motions: Tensor | None, facing: Tensor | None, t: int, labels: frozenset[str]
    ) -> dict[str, Tensor]:
        """The labels of clips of t frames each; their motions are [s, 3, 4, b, flows]."""
        grid = image_grid(len(frames), self.size, self.device)
        pairs = pairs_of(near_tiles(frames.bounds, frames.box, self.size), len(frames), grid)
        key = trace(frames, grid, pairs)
        flat: dict[str, Tensor] = {}  # one row per frame
        if "rgb" in labels:
            flat["rgb"] = rgb_of(frames, grid, key, self.size)
        if "depth_m" in labels:
            flat["depth_m"] = depth_of(key)
        if facing is not None:
            flat["normals"] = normals_of(facing, grid, key)
        if "mask" in labels:
            flat["mask"] = classes_of(frames, key)
        if "instance" in labels or "boxes" in labels:
            instance = instance_of(key).long()
        if "instance" in labels:
            flat["instance"] = instance
        if "boxes" in labels:
            boxes, area = boxes_of(instance)
            flat["boxes"], flat["box_labels"] = boxes.float(), frames.shape.T
            flat["box_valid"] = area >= self.min_box_share * self.size[0] * self.size[1]
        out = {name: x.unflatten(0, (-1, t)) for name, x in flat.items()}
        if motions is not None:
            b, u = motions.shape[-2:]
            now = torch.arange(b * t, device=key.device).view(b, t)[:, :u].flatten()
            key = key.view(b, t, *self.size)[:, :u].flatten(0, 1)
            flow = clip_flow(
                motions.flatten(-2), image_grid(b * u, self.size, self.device), key, frames[now + 1]
            )
            parts = {"flow": flow.flow, "flow_valid": flow.inside & ~flow.occluded, "occluded": flow.occluded}
            out |= {name: x.unflatten(0, (b, u)) for name, x in parts.items()}
        return out
