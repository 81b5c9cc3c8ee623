"""Prediction on people's own images: fit them to the model, sample, decode, write.

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

from transframer.data.formats.cameras import read_cameras
from transframer.data.formats.images import load_image, resize_image, save_png
from transframer.errors import ConfigError, DataError
from transframer.frames import Camera, Episode
from transframer.predict_config import PredictConfig
from transframer.predictor import FramePredictor
from transframer.registry import get_task
from transframer.task import Sample, Task

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
PICTURE_PX = 384


def predict(
    predictor: FramePredictor,
    task: Task,
    images: Sequence[UInt8[Tensor, "3 h w"]],
    *,
    size_px: int = 64,
    samples_per_query: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    **annotations: Any,
) -> Any:
    """One task's prediction for one query.

    Args:
        images: the context images, 0-255, of any size but all the same (`load_image` reads them).
        size_px: height and width of the frames the model sees, a multiple of 16.
        samples_per_query: frames drawn and combined into one prediction.
        temperature: of sampling, 0 gives the task's point estimate.
        top_p: nucleus of each categorical distribution that is sampled from, in (0, 1].
        seed: of sampling.
        annotations: further fields of the task's sample (`times`, `query_time`, `cameras`,
            `query_camera`); cameras are those of the images as given.

    Returns:
        The prediction in the task's own form, at the size the model sees.

    Raises:
        DataError: too few or too many images, images of different sizes, or a field the task needs or
            does not know.
    """
    sample = sample_of(task, images, size_px, annotations)
    return predict_samples(
        predictor,
        task,
        [sample],
        samples_per_query=samples_per_query,
        temperature=temperature,
        top_p=top_p,
        generator=torch.Generator().manual_seed(seed),
    )[0]


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


def predict_samples(
    predictor: FramePredictor,
    task: Task,
    samples: Sequence[Sample],
    *,
    samples_per_query: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[Any]:
    """A task's predictions for samples of one frame size, labels unused."""
    episodes = [task.format(sample).without_target() for sample in samples]
    exact = exact_answers(predictor, task, episodes) if temperature == 0 else None
    if exact is not None:
        return exact
    draws = [
        predictor.sample(
            episodes, temperature=temperature, top_p=top_p, estimate=task.estimate, generator=generator
        ).frames
        for _ in range(samples_per_query)
    ]
    return [
        task.combine([task.decode(frame, episode) for frame in frames])
        for episode, *frames in zip(episodes, *draws, strict=True)
    ]


def exact_answers(predictor: FramePredictor, task: Task, episodes: Sequence[Episode]) -> list[Any] | None:
    """The predictions that the exact posteriors amount to; None where the task names no candidates."""
    candidates = [task.candidates(episode) for episode in episodes]
    if not all(candidates):
        return None
    posteriors = predictor.posteriors(episodes, candidates)
    return [task.from_posterior(p, episode) for p, episode in zip(posteriors, episodes, strict=True)]


@dataclass(frozen=True)
class _Query:
    """A sample, the stem of its output files, and the height and width of the images it came from."""

    sample: Sample
    stem: Path
    size: tuple[int, int]


def predict_files(config: PredictConfig) -> list[Path]:
    """Predicts on image files and writes the results; every input is checked before the model is loaded.

    Returns:
        The files written: what the task writes, and a picture of context and prediction for each query.

    Raises:
        TransframerError: an unknown task, an unreadable image, a run that is none, a full disk.
    """
    task = get_task(config.task)
    from transframer.training.checkpoint import load_run
    from transframer.training.distributed import choose_device

    queries = list(_queries(config, task, config.size_px or _frame_size(Path(config.run))))
    predictor, _ = load_run(config.run)
    device = choose_device(config.device)
    predictor.to(device)
    Path(config.out).mkdir(parents=True, exist_ok=True)
    temperature = config.sampling_temperature
    generator = torch.Generator(device).manual_seed(config.seed)
    written = []
    for start in range(0, len(queries), config.batch_size):
        batch = queries[start : start + config.batch_size]
        predictions = predict_samples(
            predictor,
            task,
            [query.sample for query in batch],
            samples_per_query=config.samples_per_query,
            temperature=temperature,
            top_p=config.top_p,
            generator=generator,
        )
        for query, prediction in zip(batch, predictions, strict=True):
            picture = query.stem.with_name(query.stem.name + "_picture.png")
            files = task.write(prediction, query.stem, query.size)
            save_png(picture, _picture(query, task.draw(query.sample, prediction)))
            written += [*files, picture]
            print(f"{query.stem.name}: {', '.join(path.name for path in files)}, {picture.name}", flush=True)
    print(f"{len(written)} files in {config.out}")
    return written


def _frame_size(run: Path) -> int:
    from transframer.training.checkpoint import CONFIG, MODEL, load_config
    from transframer.training.config import TrainConfig

    for folder in (run / MODEL, run):
        if (folder / CONFIG).is_file():
            return load_config(folder).size_px
    return TrainConfig().size_px


def _queries(config: PredictConfig, task: Task, size_px: int) -> Iterator[_Query]:
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
        yield _Query(sample, Path(config.out) / name, (images[0].shape[1], images[0].shape[2]))


def _image_files(given: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, given):
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError("no image in the folder", file=path, expected=", ".join(sorted(IMAGE_SUFFIXES)))
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


def _picture(query: _Query, drawn: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 h2 w2"]:
    """What the model saw, and its prediction, side by side at the aspect of the user's image."""
    height, width = query.size
    scale = PICTURE_PX / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return torch.cat([resize_image(image, size) for image in (*query.sample["images"], drawn)], dim=2)
