"""The contract that every task keeps, as checks that take any task: also one of another package."""

import dataclasses
import math

import torch

from transframer.codec import round_trip
from transframer.data.world import World

NOT_LABELS = {
    "times",
    "query_time",
    "cameras",
    "query_camera",
}  # optional in some tasks, yet known beforehand


def world_samples(task, count=6, size=64, split="validation"):
    return World(split, 0, size).samples(range(count), task.sample_type, task.clip)


def edge_samples(task):
    """Labels at the ends of what can occur, by the names of the common sample fields."""
    keys = task.sample_type.__optional_keys__ | task.sample_type.__required_keys__
    base = world_samples(task, 1)[0]
    height, width = base["images"].shape[-2:]
    square = torch.zeros(height, width, dtype=torch.int64)
    square[16:40, 12:50] = 1
    same_box = torch.tensor([10.0, 12.0, 30.0, 41.0])
    edges = {
        "mask": {
            "one class": {"mask": torch.zeros(height, width, dtype=torch.int64)},
            "nothing labelled": {"mask": torch.full((height, width), 255)},
            "half labelled": {"mask": square.index_fill(1, torch.arange(width // 2), 255)},
        },
        "boxes": {
            "no boxes": {"boxes": torch.zeros(0, 4), "box_labels": torch.zeros(0, dtype=torch.int64)},
            "eight equal boxes": {
                "boxes": same_box.repeat(8, 1),
                "box_labels": torch.arange(8) % 2,
            },
            "the whole image": {
                "boxes": torch.tensor([[0.0, 0.0, width, height]]),
                "box_labels": torch.zeros(1, dtype=torch.int64),
            },
        },
        "label": {"first class": {"label": 0}},
        "depth_m": {"all unknown": {"depth_m": torch.zeros(height, width)}},
        "flow": {
            "no motion": {"flow": torch.zeros(2, height, width)},
            "nothing valid": {"flow_valid": torch.zeros(height, width, dtype=torch.bool)},
        },
        "target": {"black": {"target": torch.zeros(3, height, width, dtype=torch.uint8)}},
    }
    return {name: base | change for key in sorted(keys & set(edges)) for name, change in edges[key].items()}


def without_labels(task, sample):
    given = task.sample_type.__required_keys__ | NOT_LABELS
    return {key: value for key, value in sample.items() if key in given}


def coded(task, sample):
    """What the task reads off its own target, coded and decoded."""
    episode = task.format(sample)
    return task.decode(round_trip(episode), episode.without_target())


def headline(task, scores):
    return task.summarise(scores)[task.headline.name]


def meets_bound(task, value):
    bound = task.round_trip_bound
    return value >= bound if task.headline.higher_is_better else value <= bound


def check_round_trip(task, samples):
    value = headline(task, [task.score(coded(task, sample), sample) for sample in samples])
    assert meets_bound(task, value), f"{task.headline.name} {value}, bound {task.round_trip_bound}"


def check_edge(task, sample):
    """An edge sample meets the bound too, or leaves nothing to judge."""
    value = headline(task, [task.score(coded(task, sample), sample)])
    assert math.isnan(value) or meets_bound(task, value), f"{task.headline.name} {value}"


def check_inference(task, sample):
    """Without labels there is no target, and the context and query are the same."""
    asked, known = task.format(without_labels(task, sample)), task.format(sample)
    assert asked.target is None
    assert known.target is not None
    assert known.target.annotation == known.query
    assert same(asked, known.without_target())
    low, high = task.context_images
    assert low <= len(known.context) <= high


def check_truth_is_best(task, sample):
    """The truth scores at least as well as its own coded form, and perfectly where perfection is finite."""
    best = headline(task, [task.score(task.truth(sample), sample)])
    value = headline(task, [task.score(coded(task, sample), sample)])
    assert best >= value if task.headline.higher_is_better else best <= value


def check_combine(task, sample):
    prediction = coded(task, sample)
    for count in (1, 3):
        assert same(task.combine([prediction] * count), prediction)


def check_uncertainty(task, sample):
    """Both maps or neither: 0 where draws agree, 0 of the truth where it is judged, at the size asked for."""
    prediction, truth = coded(task, sample), task.truth(sample)
    uncertainty, error = task.uncertainty([prediction] * 3), task.pixel_error(truth, sample)
    assert (uncertainty is None) == (error is None)
    if uncertainty is not None:
        size = sample["images"].shape[-2:]
        assert uncertainty.shape == error.shape == size
        assert uncertainty.abs().max() < 1e-4
        assert error.nan_to_num().abs().max() == 0
        assert task.uncertainty([prediction] * 3, (70, 90)).shape == (70, 90)
        assert task.uncertainty_metric.name != "uncertainty"
        assert task.error_metric.name != "error"


def check_floor(task, samples):
    """Fitted once, it answers from an episode without a target, at another size too."""
    floor = task.floor(samples)
    other = world_samples(task, 2, size=(48, 80))
    for sample in [*samples[:2], *other]:
        prediction = floor(task.format(sample).without_target())
        assert math.isfinite(headline(task, [task.score(prediction, sample)]))


def check_metrics(task, samples):
    """The headline is among the metrics, is never nan over labelled samples, and knows a bootstrap."""
    scores = [task.score(coded(task, sample), sample) for sample in samples]
    metrics = task.summarise(scores)
    assert math.isfinite(metrics[task.headline.name])
    assert all(isinstance(value, float) for value in metrics.values())
    repeated = task.summarise([scores[0], scores[0], *scores[1:]])
    assert set(repeated) == set(metrics)


def check_drawing(task, sample):
    for prediction in (task.truth(sample), coded(task, sample)):
        picture = task.draw(sample, prediction)
        assert picture.dtype == torch.uint8
        assert picture.ndim == 3
        assert picture.shape[0] == 3
        assert min(picture.shape[1:]) >= min(sample["images"].shape[-2:])


def check_writing(task, sample, folder):
    written = task.write(coded(task, sample), folder / "a.photo", (90, 70))
    assert written
    assert sorted(written) == sorted(folder.iterdir())
    assert all(path.name.startswith("a.photo") and path.stat().st_size for path in written)


def same(a, b):
    """Equality of nested dataclasses, sequences and tensors, floats to 1e-5."""
    if dataclasses.is_dataclass(a):
        pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)]
        return type(a) is type(b) and all(same(x, y) for x, y in pairs)
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-5)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
