"""Videos in files: frames by number, exactly; and writing MP4. Needs PyAV."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.formats.atomic import whole_file
from transframer.data.formats.images import DEFAULT_MAX_PIXELS
from transframer.errors import ConfigError, DataError

VIDEO_SUFFIXES = (".mp4", ".avi", ".webm", ".mov", ".mkv", ".m4v", ".gif")


@dataclass(frozen=True)
class VideoFacts:
    """What a container says of its first video stream.

    Attributes:
        frames: how many there are: as the container says, else counted without decoding.
        frames_per_s: the average rate, None where it is not known; not to be trusted for finding frames.
        size_px: height and width, before the rotation that a phone may have noted.
    """

    frames: int
    frames_per_s: float | None
    size_px: tuple[int, int]


@dataclass(frozen=True)
class _Index:
    """Where frames are, out of the packets: the time stamp of each frame, and those that need no other."""

    stamps: np.ndarray
    keyframes: np.ndarray


class VideoFile:
    """A video whose frames are read by number. No file stays open between calls, and it can be pickled.

    Attributes:
        path: of the file.
        max_pixels: the cap on width x height, checked before anything is decoded.
    """

    def __init__(self, path: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.path, self.max_pixels = Path(path), max_pixels

    @cached_property
    def facts(self) -> VideoFacts:
        """What the container says; nothing is decoded.

        Raises:
            DataError: the file is missing, no video, damaged, or larger than the cap.
            ConfigError: PyAV is not installed.
        """
        with self._opened() as (_, stream):
            rate = stream.average_rate or stream.guessed_rate
            frames, codec = stream.frames, stream.codec_context
            size, per_s = (codec.height, codec.width), float(rate) if rate else None
            # Where an edit list hides frames, the container counts them all the same.
            if rate and stream.duration and abs(stream.duration * stream.time_base * rate - frames) > 0.5:
                frames = 0
        return VideoFacts(frames or len(self._index.stamps), per_s, size)

    def __len__(self) -> int:
        return self.facts.frames

    def frames(self, numbers: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """Frames by number, from 0, in the order asked for; upright, as RGB 0-255.

        They are found by the time stamps of the packets, which are exact, and decoded from the nearest
        keyframe on; where a container has none, or the decoder gives other ones, from the first frame on.

        Raises:
            DataError: a frame that is not there (the file is truncated) or cannot be decoded.
        """
        wanted = sorted(set(numbers))
        if not wanted or wanted[0] < 0 or wanted[-1] >= len(self):
            raise IndexError(f"frames {wanted} of {len(self)}")
        with self._opened() as (container, stream):
            found = self._by_stamps(container, stream, wanted)
        if len(found) < len(wanted):
            with self._opened() as (container, stream):
                found = _taken(enumerate(container.decode(stream)), set(wanted))
        missing = [number for number in wanted if number not in found]
        if missing:
            raise DataError(
                f"frame {missing[0]} is not there, or damaged",
                file=self.path,
                expected=f"{len(self)} frames, as the container says",
                next_step="the video is truncated or damaged: copy it again",
            )
        images = [found[number] for number in numbers]
        if any(image.shape != images[0].shape for image in images):
            raise DataError("frames of several sizes", file=self.path, expected="one size")
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    def _by_stamps(self, container: Any, stream: Any, wanted: Sequence[int]) -> dict[int, np.ndarray]:
        """Those of the frames that can be found by their time stamps."""
        index = self._index
        number_of = {int(stamp): number for number, stamp in enumerate(index.stamps)}
        found: dict[int, np.ndarray] = {}
        frames: Iterator[Any] | None = None
        at = -1
        for number in wanted:
            if number >= len(index.stamps):
                break
            start = index.keyframes[np.searchsorted(index.keyframes, number, side="right") - 1]
            if frames is None or start > at:
                if start > 0:
                    container.seek(int(index.stamps[start]), stream=stream)
                frames = container.decode(stream)
            for frame in frames:
                at = number_of.get(frame.pts, -1) if frame.pts is not None else -1
                # Not where it was asked to go, or not whole there: only counting from the first is sure.
                if at < 0 or at > number or (at == number and frame.is_corrupt):
                    return {}
                if at == number:
                    found[number] = _pixels(frame)
                    break
        return found

    @cached_property
    def _index(self) -> _Index:
        stamps, keys = [], []
        with self._opened() as (container, stream):
            avi = container.format.name == "avi"
            for packet in container.demux(stream):
                # Empty ones flush the decoder; discarded ones lie outside the edit list; VP8 hides frames
                # that others are predicted from: bit 4 of its first byte says whether a frame is shown.
                hidden = stream.codec_context.name.startswith(("vp8", "libvpx")) and packet.size
                if (
                    not packet.size
                    or packet.is_discard
                    or packet.is_corrupt
                    or (hidden and not bytes(packet)[0] & 16)
                ):
                    continue
                stamps.append(packet.pts)
                keys.append(packet.is_keyframe)
        if not stamps:
            raise DataError("no frame", file=self.path, expected="a video")
        # AVI stores when frames are decoded, which is not when they are shown where some are predicted from
        # later ones. Without stamps nothing is found by them: every frame is counted from the first.
        if None in stamps or len(set(stamps)) < len(stamps) or (avi and not all(keys)):
            return _Index(np.full(len(stamps), -1, np.int64), np.zeros(1, np.int64))
        order = np.argsort(np.array(stamps, np.int64), kind="stable")
        keyframes = np.union1d([0], np.nonzero(np.array(keys)[order])[0])
        return _Index(np.array(stamps, np.int64)[order], keyframes)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        av = require_pyav()
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise DataError("no video in this file", file=self.path)
                stream = container.streams.video[0]
                width, height = stream.codec_context.width, stream.codec_context.height
                if width * height > self.max_pixels:
                    raise DataError(
                        f"a video of {width} x {height} pixels",
                        file=self.path,
                        expected=f"at most {self.max_pixels / 1e6:g} million pixels",
                        next_step="scale the video down, or raise the cap if you trust the file",
                    )
                yield container, stream
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"cannot be read as a video: {reason}", file=self.path) from error


def require_pyav() -> Any:
    """The module PyAV, for those who want to know early that it is there.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            "videos need PyAV, which is not installed", next_step="pip install 'transframer[video]'"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # damaged files end in a DataError; FFmpeg would print besides
    return av


def write_video(
    path: str | os.PathLike[str],
    frames: UInt8[Tensor, "n 3 h w"] | Iterable[UInt8[Tensor, "3 h w"]],
    frames_per_s: float = 10.0,
) -> None:
    """Writes an MP4, whole or not at all: H.264 where PyAV has an encoder for it, else MPEG-4.

    Sizes that are odd keep their chroma at full resolution, which not every player shows.

    Args:
        frames: 0-255, of one size; taken one by one, and none is kept.

    Raises:
        DataError: the file cannot be written, there is no frame, or they are of several sizes.
        ConfigError: PyAV is not installed.
    """
    av = require_pyav()
    images = iter(frames)
    first = next(images, None)
    if first is None:
        raise DataError("no frame to write", file=Path(path))
    _, height, width = first.shape
    h264 = "libx264" in av.codecs_available
    try:
        with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
            rate = Fraction(frames_per_s).limit_denominator(1000)
            stream = container.add_stream("libx264" if h264 else "mpeg4", rate=rate)
            stream.width, stream.height = width, height
            odd = h264 and (width % 2 or height % 2)
            stream.pix_fmt = "yuv444p" if odd else "yuv420p"
            stream.options = {"crf": "18"} if h264 else {"qscale": "3"}
            for image in itertools.chain([first], images):
                if image.shape != (3, height, width):  # which the encoder would scale without a word
                    raise DataError("frames of several sizes", file=Path(path), expected="one size")
                pixels = image.permute(1, 2, 0).cpu().contiguous().numpy()
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise DataError(f"cannot be written: {error}", file=Path(path)) from error


def _taken(frames: Iterator[tuple[int, Any]], wanted: Collection[int]) -> dict[int, np.ndarray]:
    found = {}
    for number, frame in frames:
        if number in wanted and not frame.is_corrupt:
            found[number] = _pixels(frame)
            if len(found) == len(wanted):
                break
    return found


def _pixels(frame: Any) -> np.ndarray:
    """A frame as h x w x 3, turned upright."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
