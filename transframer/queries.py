"""What people ask `predict`: image files and what is known of them, as samples of a task.

An image is resized to the square the run was trained on, its sides scaled separately: nothing is cropped or
padded, so every task's output covers the whole image once it is resized back, whether or not its target
frame is aligned with the image. Keeping the aspect would need frames of another shape, and in those a
position means something else to the model than what it learned: a class, for image_classification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.datasets.own_folders import files_in
from transframer.data.formats.cameras import read_cameras
from transframer.data.formats.images import load_image, resize_image
from transframer.errors import ConfigError, DataError
from transframer.frames import Camera
from transframer.predict_config import PredictConfig
from transframer.task import Sample, Task

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True)
class Query:
    """A sample, the stem of its output files, and the height and width of the images it came from."""

    sample: Sample
    stem: Path
    size: tuple[int, int]

    def file(self, ending: str) -> Path:
        """The output file whose name is the stem's with this ending."""
        return self.stem.with_name(self.stem.name + ending)


def sample_of(
    task: Task, images: Sequence[UInt8[Tensor, "3 h w"]], size_px: int, annotations: dict[str, Any]
) -> Sample:
    """A task's sample, without labels, from images of any size.

    Args:
        images: the context images, 0-255.
        size_px: height and width of the frames, a multiple of 16.
        annotations: further fields of the sample.

    Raises:
        DataError: too few or too many images, images of different sizes, or a field the task needs or
            does not know.
    """
    least, most = task.context_images
    if not least <= len(images) <= most:
        expected = f"{least}" if least == most else f"{least} to {most}"
        raise DataError(f"{task.name} for {len(images)} images", expected=f"{expected} images per query")
    sizes = {tuple(image.shape[1:]) for image in images}
    if len(sizes) > 1:
        listed = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise DataError(f"images of different sizes: {listed}", expected="one size in a query")
    known = task.sample_type.__annotations__
    for name in annotations:
        if name not in known:
            raise DataError(f"{task.name} does not use {name}", expected=f"only {', '.join(known)}")
    height, width = images[0].shape[1:]
    sample = {
        "images": torch.stack([resize_image(image, (size_px, size_px)) for image in images]),
        **annotations,
    }
    scale_x, scale_y = size_px / width, size_px / height
    if "cameras" in sample:
        sample["cameras"] = [camera.resized(scale_x, scale_y) for camera in sample["cameras"]]
    if "query_camera" in sample:
        sample["query_camera"] = sample["query_camera"].resized(scale_x, scale_y)
    missing = sorted(task.sample_type.__required_keys__ - set(sample))  # type: ignore[attr-defined]
    if missing:
        raise DataError(
            f"{task.name} needs {', '.join(missing)} beside the images", next_step=_advice(missing)
        )
    return sample


def read_queries(config: PredictConfig, task: Task) -> Iterator[Query]:
    """The queries that the settings ask for, each checked as far as it can be without the model.

    Raises:
        TransframerError: an unreadable image, fields that do not fit the images or the task.
    """
    from transframer.training.checkpoint import stored_config

    size_px = config.size_px or stored_config(config.run).size_px
    files = list(_image_files(config.images))
    groups = [[file] for file in files] if task.context_images == (1, 1) else [files]
    given = _annotations(config, files)
    names = [f"{group[0].stem}_{task.name}" for group in groups]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{count} images would be written as {name}", expected="names that differ without suffix"
        )
    for name, group in zip(names, groups, strict=True):
        images = [load_image(file) for file in group]
        sample = sample_of(task, images, size_px, given)
        task.format(sample)
        yield Query(sample, Path(config.out) / name, (images[0].shape[1], images[0].shape[2]))


def _image_files(given: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, given):
        if not path.is_dir():
            yield path
            continue
        found = files_in(path, IMAGE_SUFFIXES)
        if not found:
            run = any((path / name).is_file() for name in ("config.yaml", "config.json"))
            raise DataError(
                "no image in the folder",
                file=path,
                expected=", ".join(sorted(IMAGE_SUFFIXES)),
                next_step=f"a run to predict with is given as --run {path}" if run else None,
            )
        yield from found


def _annotations(config: PredictConfig, files: Sequence[Path]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if config.times is not None:
        if len(config.times) != len(files):
            raise ConfigError(f"{len(config.times)} times for {len(files)} images", field="--times")
        given["times"] = torch.tensor(config.times, dtype=torch.float64)
    if config.query_time is not None:
        given["query_time"] = config.query_time
    if config.cameras is not None:
        cameras: tuple[list[Camera], Camera] = read_cameras(config.cameras, [str(file) for file in files])
        given["cameras"], given["query_camera"] = cameras
    return given


def _advice(missing: Sequence[str]) -> str:
    options = {
        "cameras": "--cameras",
        "query_camera": "--cameras",
        "times": "--times",
        "query_time": "--query-time",
    }
    flags = sorted({options[name] for name in missing if name in options})
    return (
        f"give {' and '.join(flags)}"
        if flags
        else "build the sample in Python: transframer.predict.predict_samples"
    )
