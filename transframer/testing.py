"""The contract that every task keeps, as checks for the tests of any package: `check_task(MyTask())`.

A check raises AssertionError and says what is wrong. `check_task` runs all of them; called one by one, they
make a test report with a line for each.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from transframer.codec import round_trip
from transframer.data.world import World
from transframer.errors import TransframerError
from transframer.task import Sample, Task

# Optional in some tasks' samples, yet known before the answer is.
NOT_LABELS = frozenset({"times", "query_time", "cameras", "query_camera"})


def check_task(task: Task, samples: Sequence[Sample] | None = None) -> None:
    """Checks everything that the rest of transframer relies on.

    Args:
        samples: labelled ones of one image size, at least two; scenes of the world if not given.

    Raises:
        AssertionError: the task breaks the contract; says how.
        DataError: there are no samples, and the world does not have the fields of the task's.
    """
    others = world_samples(task, 2, (48, 80)) if samples is None else ()
    samples = world_samples(task) if samples is None else samples
    check_round_trip(task, samples)
    for name, sample in edge_samples(task, samples[0]).items():
        check_edge(task, sample, name)
    check_inference(task, samples[0])
    check_missing_truth(task, samples[0])
    check_truth_is_best(task, samples[0])
    check_combine(task, samples[0])
    check_uncertainty(task, samples[0])
    check_floor(task, samples, others)
    check_metrics(task, samples)
    check_drawing(task, samples[0])
    with tempfile.TemporaryDirectory() as folder:
        check_writing(task, samples[0], Path(folder))


def world_samples(
    task: Task, count: int = 6, size: int | tuple[int, int] = 64, split: str = "validation"
) -> list[dict[str, Any]]:
    """Labelled samples for a task from the procedural world.

    Args:
        size: side of the images, or height and width; multiples of 16.

    Raises:
        DataError: the task's samples have a field that the world does not have.
    """
    return World(split, 0, size).samples(range(count), task.sample_type, task.clip)


def edge_samples(task: Task, sample: Sample) -> dict[str, dict[str, Any]]:
    """Labels at the ends of what can occur, for those fields of the task's samples that have a common name.

    Args:
        sample: a labelled one, whose labels are replaced.
    """
    height, width = sample["images"].shape[-2:]
    square, black = torch.zeros(height, width, dtype=torch.int64), torch.zeros(3, height, width).byte()
    square[height // 4 : height * 5 // 8, width // 5 : width * 4 // 5] = 1
    halves = 1 + (torch.arange(width) >= width // 2).long().expand(height, width)
    zero = torch.zeros(1, dtype=torch.int64)
    same_box = torch.tensor([10.0, 12.0, 30.0, 41.0])
    facing = torch.zeros(3, height, width)
    facing[2] = -1
    edges: dict[str, dict[str, dict[str, Any]]] = {
        "mask": {
            "one class": {"mask": torch.zeros_like(square)},
            "nothing labelled": {"mask": torch.full((height, width), 255)},
            "half labelled": {"mask": square.index_fill(1, torch.arange(width // 2), 255)},
        },
        "boxes": {
            "no boxes": {"boxes": torch.zeros(0, 4), "box_labels": zero[:0]},
            "eight equal boxes": {"boxes": same_box.repeat(8, 1), "box_labels": torch.arange(8) % 2},
            "the whole image": {"boxes": torch.tensor([[0.0, 0.0, width, height]]), "box_labels": zero},
        },
        "instances": {
            "no objects": {"instances": torch.zeros_like(square), "instance_labels": zero[:0]},
            "one object": {"instances": torch.ones_like(square), "instance_labels": zero},
            "two that touch": {"instances": halves, "instance_labels": zero.repeat(2)},
        },
        "label": {"first class": {"label": 0}},
        "depth_m": {"all unknown": {"depth_m": torch.zeros(height, width)}},
        "normals": {
            "all normals unknown": {"normals": torch.zeros(3, height, width)},
            "facing the camera": {"normals": facing},
        },
        "flow": {
            "no motion": {"flow": torch.zeros(2, height, width)},
            "nothing valid": {"flow_valid": torch.zeros(height, width, dtype=torch.bool)},
        },
        "target": {"black": {"target": black} | ({"images": black[None]} if _shows_target(task) else {})},
    }
    keys = sorted(_keys(task) & set(edges))
    return {name: {**sample, **change} for key in keys for name, change in edges[key].items()}


def without_labels(task: Task, sample: Sample) -> dict[str, Any]:
    """The sample as it is when the answer is asked for."""
    given = task.sample_type.__required_keys__ | NOT_LABELS  # type: ignore[attr-defined]
    return {key: value for key, value in sample.items() if key in given}


def coded(task: Task, sample: Sample) -> Any:
    """What the task reads off its own target, coded and decoded."""
    episode = task.format(sample)
    return task.decode(round_trip(episode), episode.without_target())


def headline(task: Task, scores: Sequence[Any]) -> float:
    """The task's headline metric of these scores."""
    return float(task.summarise(scores)[task.headline.name])


def check_round_trip(task: Task, samples: Sequence[Sample]) -> None:
    """The coded truth of samples meets the task's own `round_trip_bound`."""
    value = headline(task, [task.score(coded(task, sample), sample) for sample in samples])
    _require(_meets_bound(task, value), f"coded truth: {_of_bound(task, value)}")


def check_edge(task: Task, sample: Sample, name: str = "edge") -> None:
    """An edge sample meets the bound too, or leaves nothing to judge."""
    value = headline(task, [task.score(coded(task, sample), sample)])
    _require(math.isnan(value) or _meets_bound(task, value), f"{name}: {_of_bound(task, value)}")


def check_inference(task: Task, sample: Sample) -> None:
    """Without labels there is no target, and what the model sees is the same.

    Where the target is one of the clip's context frames, `format` hides part of it (as colorization hides
    the colour), and must take what is left of it as it is.
    """
    known, question = task.format(sample), without_labels(task, sample)
    if known.target is None:
        raise AssertionError("a labelled sample gives no target")
    _require(known.target.annotation == known.query, "the target is not annotated by the query")
    if _shows_target(task):
        shown = any(same(frame.image, known.target.image) for frame in known.context)
        _require(not shown, "the context is the answer")
        question["images"] = torch.stack([frame.image for frame in known.context])
    asked = task.format(question)
    _require(asked.target is None, "a sample without labels gives a target")
    _require(same(asked, known.without_target()), "context or query depend on the label")
    low, high = task.context_images
    _require(low <= len(known.context) <= high, f"{len(known.context)} context frames, not {low} to {high}")


def check_missing_truth(task: Task, sample: Sample) -> None:
    """The truth of a sample without labels is an error of transframer's."""
    try:
        task.truth(without_labels(task, sample))
    except TransframerError:
        return
    except Exception as error:
        raise AssertionError(f"truth without labels: {type(error).__name__}, not a DataError") from error
    raise AssertionError("truth without labels: no error")


def check_truth_is_best(task: Task, sample: Sample) -> None:
    """The truth scores at least as well as its own coded form."""
    best = headline(task, [task.score(task.truth(sample), sample)])
    value = headline(task, [task.score(coded(task, sample), sample)])
    better = best >= value if task.headline.higher_is_better else best <= value
    _require(better, f"the truth scores {best}, its coded form {value}")


def check_combine(task: Task, sample: Sample) -> None:
    """Equal predictions combine to themselves."""
    prediction = coded(task, sample)
    for count in (1, 3):
        _require(
            same(task.combine([prediction] * count), prediction), f"{count} equal predictions combined differ"
        )


def check_uncertainty(task: Task, sample: Sample) -> None:
    """Both maps or neither: 0 where draws agree, 0 of the truth where it is judged, at the size asked for."""
    prediction, truth = coded(task, sample), task.truth(sample)
    uncertainty, error = task.uncertainty([prediction] * 3), task.pixel_error(truth, sample)
    _require((uncertainty is None) == (error is None), "only one of uncertainty and pixel_error")
    if uncertainty is None or error is None:
        return
    size = sample["images"].shape[-2:]
    _require(uncertainty.shape == error.shape == size, f"maps of {uncertainty.shape}, {error.shape}")
    _require(bool(uncertainty.abs().max() < 1e-4), "equal predictions are uncertain")
    _require(bool(error.nan_to_num().abs().max() == 0), "the truth has errors")
    large = task.uncertainty([prediction] * 3, (70, 90))
    _require(large is not None and large.shape == (70, 90), "uncertainty is not of the size asked for")
    named = task.uncertainty_metric.name != "uncertainty" and task.error_metric.name != "error"
    _require(named, "uncertainty_metric and error_metric do not say what they are")


def check_floor(task: Task, samples: Sequence[Sample], others: Sequence[Sample] = ()) -> None:
    """Fitted once, the floor answers from an episode without a target.

    Args:
        others: samples of another image size, which it must answer too.
    """
    floor = task.floor(samples)
    for sample in [*samples[:2], *others]:
        prediction = floor(task.format(sample).without_target())
        value = headline(task, [task.score(prediction, sample)])
        _require(math.isfinite(value), f"the floor's {task.headline.name} is {value}")


def check_metrics(task: Task, samples: Sequence[Sample]) -> None:
    """The headline is among the metrics, is finite over labelled samples, and knows a bootstrap."""
    scores = [task.score(coded(task, sample), sample) for sample in samples]
    metrics = task.summarise(scores)
    _require(math.isfinite(metrics[task.headline.name]), f"{task.headline.name} is not finite")
    _require(all(isinstance(value, float) for value in metrics.values()), "a metric is not a float")
    repeated = task.summarise([scores[0], scores[0], *scores[1:]])
    _require(set(repeated) == set(metrics), "the metrics depend on the samples")


def check_drawing(task: Task, sample: Sample) -> None:
    """Truth and prediction are drawn as RGB, at least as large as the image."""
    for prediction in (task.truth(sample), coded(task, sample)):
        picture = task.draw(sample, prediction)
        _require(
            picture.dtype == torch.uint8 and picture.ndim == 3 and picture.shape[0] == 3,
            "not uint8 3 x h x w",
        )
        _require(min(picture.shape[1:]) >= min(sample["images"].shape[-2:]), f"a picture of {picture.shape}")


def check_writing(task: Task, sample: Sample, folder: Path) -> None:
    """`write` makes the files it names, and no others, in an empty folder."""
    written = task.write(coded(task, sample), folder / "a.photo", (90, 70))
    _require(bool(written), "nothing is written")
    _require(
        sorted(written) == sorted(folder.iterdir()), f"{written} named, {sorted(folder.iterdir())} written"
    )
    for path in written:
        _require(
            path.name.startswith("a.photo") and path.stat().st_size > 0, f"{path.name} for the stem a.photo"
        )


def same(a: Any, b: Any) -> bool:
    """Equality of nested dataclasses, sequences and tensors, floats to 1e-5."""
    if dataclasses.is_dataclass(a):
        pairs = [(getattr(a, f.name), getattr(b, f.name, None)) for f in dataclasses.fields(a)]
        return type(a) is type(b) and all(same(x, y) for x, y in pairs)
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-5)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _keys(task: Task) -> frozenset[str]:
    kind = task.sample_type
    return kind.__optional_keys__ | kind.__required_keys__  # type: ignore[attr-defined]


def _shows_target(task: Task) -> bool:
    """The answer is among the images of a labelled sample."""
    return "target" in _keys(task) and bool({f for c in task.clip.context for f in c} & set(task.clip.target))


def _meets_bound(task: Task, value: float) -> bool:
    bound = task.round_trip_bound
    return value >= bound if task.headline.higher_is_better else value <= bound


def _of_bound(task: Task, value: float) -> str:
    return f"{task.headline.name} {value}, round_trip_bound {task.round_trip_bound}"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
