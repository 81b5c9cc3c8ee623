"""Prediction on people's own images: sample, decode, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.answers import Answer, answer_samples
from transframer.data.formats.atomic import whole_file, write_json
from transframer.data.formats.images import resize_image, save_png
from transframer.errors import ConfigError
from transframer.predict_config import PredictConfig
from transframer.predictor import FramePredictor
from transframer.progressive import contact_sheet, progressive_steps
from transframer.queries import Query, read_queries, sample_of
from transframer.sampling_settings import sampling_in_force
from transframer.task import Sample, Task
from transframer.task_settings import configured_task
from transframer.tasks.drawing import heat

PICTURE_PX = 384


def predict(
    predictor: FramePredictor,
    task: Task,
    images: Sequence[UInt8[Tensor, "3 h w"]],
    *,
    size_px: int = 64,
    samples_per_query: int | None = None,
    temperature: float | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    **annotations: Any,
) -> Any:
    """One task's prediction for one query.

    Args:
        images: the context images, 0-255, of any size but all the same (`load_image` reads them).
        size_px: height and width of the frames the model sees, a multiple of 16.
        samples_per_query: frames drawn and combined into one prediction; as many as the task wants if not
            given (`Task.draws`).
        temperature: of sampling, 0 gives the task's point estimate; by default 0 for one sample per query, 1
            for several.
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
    sampling = sampling_in_force(temperature, top_p, samples_per_query, task.draws)
    return predict_samples(
        predictor,
        task,
        [sample],
        **sampling._asdict(),
        top_p=top_p,
        generator=torch.Generator().manual_seed(seed),
    )[0]


def predict_samples(
    predictor: FramePredictor, task: Task, samples: Sequence[Sample], **sampling: Any
) -> list[Any]:
    """A task's predictions for samples of one frame size, labels unused.

    Args:
        sampling: as of `transframer.answers.answer_samples`.
    """
    return [answer.prediction for answer in answer_samples(predictor, task, samples, **sampling)]


def predict_files(config: PredictConfig) -> list[Path]:
    """Predicts on image files and writes the results; every input is checked before the model is loaded.

    Returns:
        The files written: what the task writes, the uncertainty and the progressive frames where they are
        asked for, and a picture of context and prediction for each query.

    Raises:
        TransframerError: an unknown task, an unreadable image, a run that is none, a full disk.
    """
    from transframer.training.checkpoint import load_run, stored_config
    from transframer.training.distributed import choose_device

    task = configured_task(config.task, stored_config(config.run).task_settings)

    queries = list(read_queries(config, task))
    if config.progressive:
        _check_progressive(config, task, queries)
    predictor, _ = load_run(config.run)
    device = choose_device(config.device)
    predictor.to(device)
    Path(config.out).mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device).manual_seed(config.seed)
    sampling = config.sampling(task.draws)
    together = max(1, config.batch_size // sampling.samples_per_query)
    written = []
    for start in range(0, len(queries), together):
        batch = queries[start : start + together]
        answers = answer_samples(
            predictor,
            task,
            [query.sample for query in batch],
            **sampling._asdict(),
            top_p=config.top_p,
            generator=generator,
            batch_size=config.batch_size,
        )
        for query, answer in zip(batch, answers, strict=True):
            more = _write_progressive(task, query, answer) if config.progressive else []
            if len(answer.each) > 1:
                more += _write_uncertainty(task, query, answer)
            picture = query.file("_picture.png")
            files = [*task.write(answer.prediction, query.stem, query.size), *more, picture]
            save_png(picture, _picture(query, task.draw(query.sample, answer.prediction)))
            written += files
            print(f"{query.stem.name}: {', '.join(path.name for path in files)}", flush=True)
    print(f"{len(written)} files in {config.out}")
    return written


def _check_progressive(config: PredictConfig, task: Task, queries: Sequence[Query]) -> None:
    if config.sampling(task.draws).temperature == 0 and all(
        task.candidates(task.format(query.sample)) for query in queries
    ):
        raise ConfigError(
            f"{task.name} is answered by an exact posterior: no frame is drawn",
            field="--progressive",
            expected="a task whose answer is drawn, or a temperature above 0",
            next_step="add --temperature 1, or leave --progressive out",
        )


def _write_uncertainty(task: Task, query: Query, answer: Answer) -> list[Path]:
    """A picture from dark (none) to light (most), and the values in the unit of the task."""
    uncertainty = task.uncertainty(answer.each, query.size)
    if uncertainty is None:
        return []
    png, npy = query.file("_uncertainty.png"), query.file("_uncertainty.npy")
    save_png(png, heat(uncertainty))
    with whole_file(npy) as temporary:
        np.save(temporary, uncertainty.numpy())
    return [png, npy]


def _write_progressive(task: Task, query: Query, answer: Answer) -> list[Path]:
    """The first frame drawn, after each of its frequency bands, and how many triples each took."""
    if answer.draws is None or answer.draws.grid is None:
        raise ConfigError(
            "the model does not tell the coefficients of the frames that it draws",
            field="--progressive",
            expected="a predictor whose Samples have a grid",
            next_step="leave --progressive out",
        )
    steps = progressive_steps(answer.draws.grid[0], task.format(query.sample))
    png, listing = query.file("_progressive.png"), query.file("_progressive.json")
    save_png(png, contact_sheet(steps, query.size))
    write_json(listing, [step.to_json() for step in steps])
    return [png, listing]


def _picture(query: Query, drawn: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 h2 w2"]:
    """What the model saw, and its prediction, side by side at the aspect of the user's image."""
    height, width = query.size
    scale = PICTURE_PX / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return torch.cat([resize_image(image, size) for image in (*query.sample["images"], drawn)], dim=2)
