"""The common part of data sets of videos and of posed views: windows of sequences as records."""

from __future__ import annotations

import abc
from bisect import bisect_right
from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import Dataset
from transframer.data.formats.images import load_image
from transframer.errors import ConfigError, DataError
from transframer.frames import Camera
from transframer.task import Clip


class FrameSequence(abc.ABC):
    """A video, or the posed views of a scene.

    Attributes:
        name: of messages.
        frames_per_s: None where unknown, or where there is no time.
    """

    name: str
    frames_per_s: float | None = None

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many frames there are; cheap, since it is asked of every sequence."""

    @abc.abstractmethod
    def images(self, frames: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """Frames by number, in the order asked for.

        Raises:
            DataError: a frame that cannot be read.
        """

    @abc.abstractmethod
    def files(self, frames: Sequence[int]) -> Sequence[Path]:
        """The files that these frames are read from."""

    def camera(self, frame: int) -> Camera:
        """The camera of a frame, intrinsics in pixels of the image on disk."""
        raise NotImplementedError

    def label_fields(self, frame: int, keys: Collection[str]) -> dict[str, Any]:
        """Those of the labels asked for that a frame has."""
        return {}


def images_of_one_size(paths: Sequence[Path]) -> UInt8[Tensor, "n 3 h w"]:
    """Image files as one tensor.

    Raises:
        DataError: an unreadable file, or one of another size than the first.
    """
    images = [load_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"{image.shape[2]} x {image.shape[1]} pixels",
                file=path,
                expected=f"{images[0].shape[2]} x {images[0].shape[1]}, as {paths[0]}",
            )
    return torch.stack(images)


class SequenceDataset(Dataset):
    """Every window of every sequence, with every choice of context and target that the clip allows, in order.

    Windows are as long as the clip and do not overlap; a sequence shorter than a window is left out, and
    where all are, that is an error.

    Args:
        frame_stride: frames of a sequence from one frame of the clip to the next; by default the clip's time
            step at the frame rate of the sequence, at least 1, and 1 where there is no rate.
        window_stride: frames of a sequence from the start of one window to the next; by default as many as a
            window spans.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        frame_stride: int | None = None,
        window_stride: int | None = None,
    ) -> None:
        super().__init__(root, split, clip)
        for name, value in (("frame_stride", frame_stride), ("window_stride", window_stride)):
            if value is not None and value < 1:
                raise ConfigError(f"{value}", field=name, expected="at least 1 frame")
        self.frame_stride, self.window_stride = frame_stride, window_stride

    @property
    @abc.abstractmethod
    def sequences(self) -> Sequence[FrameSequence]:
        """The sequences of the split, in a fixed order; make it a `cached_property`."""

    @property
    def labels(self) -> frozenset[str]:
        """The keys of labels that frames have; `cameras` where they are posed."""
        return frozenset()

    @property
    def fields(self) -> frozenset[str]:
        """Images, times, labels, and what is asked of the target where the clip has one."""
        fields = self.labels | {"images", "times"}
        if self.clip.target:
            fields |= {"target", "query_time"} | ({"query_camera"} if "cameras" in fields else set())
        return fields

    def stride(self, sequence: FrameSequence) -> int:
        """Frames from one frame of the clip to the next."""
        if self.frame_stride is not None:
            return self.frame_stride
        return max(1, round(self.clip.step_s * (sequence.frames_per_s or 0.0)))

    @cached_property
    def _ends(self) -> list[int]:
        """How many records the sequences up to each one give together."""
        ends = list(accumulate(self._windows(sequence) * self._choices for sequence in self.sequences))
        if not ends or not ends[-1]:
            longest = max((len(sequence) for sequence in self.sequences), default=0)
            raise DataError(
                f"no window of {self.clip.frames} frames; the longest sequence has {longest}"
                if self.sequences
                else f"no sequence in the {self.split} split",
                file=self.root,
                expected=f"sequences of at least {self.clip.frames} frames, a frame stride apart",
                next_step="set a smaller frame_stride, or a shorter clip" if self.sequences else None,
            )
        return ends

    @property
    def _choices(self) -> int:
        return len(self.clip.contexts(self.split)) * max(1, len(self.clip.target))

    def _windows(self, sequence: FrameSequence) -> int:
        span = (self.clip.frames - 1) * self.stride(sequence) + 1
        step = self.window_stride or span
        return max(0, (len(sequence) - span) // step + 1)

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, index: int) -> tuple[FrameSequence, tuple[int, ...], int | None]:
        """The sequence of a record, its context frames, and its target frame."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        sequence = self.sequences[number]
        within = index - (self._ends[number - 1] if number else 0)
        window, choice = divmod(within, self._choices)
        context = self.clip.contexts(self.split)[choice // max(1, len(self.clip.target))]
        stride = self.stride(sequence)
        start = window * (self.window_stride or (self.clip.frames - 1) * stride + 1)
        target = None
        if self.clip.target:
            target = start + stride * self.clip.target[choice % len(self.clip.target)]
        return sequence, tuple(start + stride * frame for frame in context), target

    def files(self, index: int) -> Sequence[Path]:
        """The files of the context and of the target."""
        sequence, context, target = self.place(index)
        return sequence.files([*context, *([] if target is None else [target])])

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """The record of a window; times are seconds, without a frame rate as if the clip's step was kept."""
        sequence, context, target = self.place(index)
        with_target = target is not None and "target" in keys
        images = sequence.images([*context, *([target] if with_target else [])])  # type: ignore[list-item]
        record: dict[str, Any] = {"images": images[: len(context)]}
        rate = sequence.frames_per_s or self.stride(sequence) / self.clip.step_s
        if "times" in keys:
            record["times"] = torch.tensor([frame / rate for frame in context], dtype=torch.float64)
        if "cameras" in keys and "cameras" in self.labels:
            record["cameras"] = [sequence.camera(frame) for frame in context]
        if target is not None:
            if with_target:
                record["target"] = images[-1]
            if "query_time" in keys:
                record["query_time"] = target / rate
            if "query_camera" in keys and "cameras" in self.labels:
                record["query_camera"] = sequence.camera(target)
        wanted = self.labels.intersection(keys) - {"cameras"}
        if wanted:
            record |= sequence.label_fields(context[0], wanted)
        return record
