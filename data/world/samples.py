"""Clips as samples of a task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from transframer.data.world.draws import Draws, splitmix64
from transframer.data.world.tracing import FIRST_OBJECT
from transframer.errors import ConfigError, DataError
from transframer.frames import Camera
from transframer.task import Clip

if TYPE_CHECKING:
    from transframer.data.world.world import Clips, World

# What each key of the common vocabulary needs to have rendered.
_LABELS_OF_KEY: dict[str, tuple[str, ...]] = {
    "images": ("rgb",),
    "target": ("rgb",),
    "times": (),
    "query_time": (),
    "cameras": (),
    "query_camera": (),
    "label": (),
    "mask": ("mask",),
    "instances": ("instance", "boxes"),
    "instance_labels": ("boxes",),
    "boxes": ("boxes",),
    "box_labels": ("boxes",),
    "depth_m": ("depth_m",),
    "normals": ("normals",),
    "flow": ("flow",),
    "flow_valid": ("flow",),
}
_TARGET_KEYS = frozenset({"target", "query_time", "query_camera"})


def samples_of(
    world: World, indices: Sequence[int] | Int[Tensor, " b"], sample_type: type, clip: Clip
) -> list[dict[str, Any]]:
    """See `World.samples`."""
    keys = _checked_keys(sample_type, clip)
    index = torch.as_tensor(indices, dtype=torch.int64, device=world.device)
    # a key of their own, so that the picks say nothing about what the scene holds
    draw = Draws(splitmix64(world.keys(index)), capacity=2)
    choices = clip.contexts(world.split)
    contexts = draw.choice(len(choices)).tolist()
    targets = draw.choice(max(1, len(clip.target))).tolist()
    # clips of one call have equally many frames, so one call per number of context images
    groups: dict[int, list[int]] = defaultdict(list)
    for row, pick in enumerate(contexts):
        groups[len(choices[pick])].append(row)
    samples: list[dict[str, Any]] = [{}] * len(index)
    for count, rows in groups.items():
        steps = [choices[contexts[r]] + clip.target[targets[r] : targets[r] + 1] for r in rows]
        labels = {label for key in keys for label in _LABELS_OF_KEY[key]}
        clips = world.at(index[rows], torch.tensor(steps, device=world.device), clip, labels)
        for row, sample in zip(rows, _split(clips, count, keys), strict=True):
            samples[row] = sample
    return samples


def _checked_keys(sample_type: type, clip: Clip) -> list[str]:
    keys = sorted(sample_type.__required_keys__ | sample_type.__optional_keys__)  # type: ignore[attr-defined]
    unknown = [key for key in keys if key not in _LABELS_OF_KEY]
    if unknown:
        raise DataError(
            f"the world has no {', '.join(unknown)}",
            field=sample_type.__name__,
            expected=f"keys out of {', '.join(_LABELS_OF_KEY)}",
        )
    contexts = clip.contexts("train")
    frames = {frame for choice in (*contexts, clip.target) for frame in choice}
    if not all(contexts) or not clip.context or not frames <= set(range(clip.frames)):
        raise ConfigError(
            f"context {clip.context} and target {clip.target} of a clip of {clip.frames} frames",
            field="clip",
            expected="choices of at least one context frame, all frames within the clip",
        )
    if _TARGET_KEYS.intersection(keys) and not clip.target:
        raise DataError(
            f"{', '.join(_TARGET_KEYS.intersection(keys))} of a clip without target frames",
            field=sample_type.__name__,
            next_step="name the target frames in the task's clip",
        )
    if {"flow", "flow_valid"}.intersection(keys) and any(c[1:2] != (c[0] + 1,) for c in contexts):
        raise DataError(
            f"flow between context frames {clip.context}",
            field=sample_type.__name__,
            expected="a second context frame right after the first: flow is known between adjacent frames",
        )
    return keys


def _split(clips: Clips, count: int, keys: list[str]) -> list[dict[str, Any]]:
    """One sample per clip: its first `count` frames are the context, the next one, if any, the target."""
    times, labels = clips.times_s.tolist(), clips.label.tolist()
    samples = []
    for row in range(len(labels)):

        def camera(frame: int, row: int = row) -> Camera:
            return Camera(clips.intrinsics[row, frame], clips.world_from_camera[row, frame])

        sample: dict[str, Any] = {}
        for key in keys:
            if key == "images":
                sample[key] = clips.rgb[row, :count]  # type: ignore[index]
            elif key == "target":
                sample[key] = clips.rgb[row, count]  # type: ignore[index]
            elif key == "times":
                sample[key] = clips.times_s[row, :count]
            elif key == "query_time":
                sample[key] = times[row][count]
            elif key == "cameras":
                sample[key] = [camera(frame) for frame in range(count)]
            elif key == "query_camera":
                sample[key] = camera(count)
            elif key == "label":
                sample[key] = labels[row]
            elif key in ("boxes", "box_labels"):
                sample[key] = getattr(clips, key)[row, 0][clips.box_valid[row, 0]]  # type: ignore[index]
            elif key == "instances":
                sample[key] = _numbered(clips.instance[row, 0], clips.box_valid[row, 0])  # type: ignore[index]
            elif key == "instance_labels":
                sample[key] = clips.box_labels[row, 0][clips.box_valid[row, 0]]  # type: ignore[index]
            else:  # mask, depth_m, normals, flow, flow_valid: of the first context frame
                sample[key] = getattr(clips, key)[row, 0]
        samples.append(sample)
    return samples


def _numbered(instance: Int[Tensor, "h w"], valid: Bool[Tensor, " k"]) -> Int[Tensor, "h w"]:
    """The objects that have a box as 1, 2, ..., in their order; 0 elsewhere."""
    numbers = valid.new_zeros(FIRST_OBJECT + len(valid), dtype=torch.int64)
    numbers[FIRST_OBJECT:] = valid.cumsum(0) * valid
    return numbers[instance]
