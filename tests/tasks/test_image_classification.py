import json
import math
from dataclasses import replace

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from transframer.codec import code_episodes, round_trips
from transframer.errors import ConfigError, DataError
from transframer.frames import Frame
from transframer.tasks.image_classification import ImageClassification


def image(height, width):
    return torch.zeros(1, 3, height, width, dtype=torch.uint8)


def named(count):
    return ImageClassification(classes=tuple(f"class {k}" for k in range(count)))


@pytest.mark.parametrize(
    ("count", "height", "width", "step"),
    [(12, 64, 64, 1), (64, 64, 64, 1), (18, 25, 50, 1), (1024, 256, 256, 37)],
)
@pytest.mark.parametrize("quality", [5, 10, 50, 95])
def test_every_class_is_one_token_and_comes_back(count, height, width, step, quality):
    task = replace(named(count), quality=quality)
    labels = range(0, count, step)
    episodes = [task.format({"images": image(height, width), "label": label}) for label in labels]
    grid = code_episodes(episodes)
    assert (grid.flatten(1).count_nonzero(1) == 1).all()
    assert (grid[:, 0].flatten(1).count_nonzero(1) == 1).all()  # channel 0: luma DC
    found = [
        task.decode(frame, e).argmax().item()
        for frame, e in zip(round_trips(episodes), episodes, strict=True)
    ]
    assert found == list(labels)


def test_the_position_is_the_class():
    task = ImageClassification()
    episodes = [task.format({"images": image(64, 64), "label": label}) for label in range(12)]
    assert code_episodes(episodes)[:, 0].flatten(1).abs().argmax(1).tolist() == list(range(12))


def test_too_many_classes_are_refused():
    with pytest.raises(ConfigError, match="65 classes in a frame of 64 x 64 pixels\nexpected at most 64"):
        named(65).format({"images": image(64, 64), "label": 0})


@pytest.mark.parametrize("label", [-1, 12])
def test_unknown_class_is_refused(label):
    with pytest.raises(DataError, match="expected 0 to 11"):
        ImageClassification().format({"images": image(64, 64), "label": label})


def test_mean_frame_gives_the_shares_of_its_frames():
    task = ImageClassification()
    episode = task.format({"images": image(64, 64)})
    frames = torch.stack([task.candidates(episode)[label].image for label in (3, 3, 3, 7)])
    mean = Frame(frames.float().mean(0).round().to(torch.uint8), episode.query)
    found = task.decode(mean, episode)
    assert found[3].item() == pytest.approx(0.75, abs=0.01)
    assert found[7].item() == pytest.approx(0.25, abs=0.01)


def test_a_dark_frame_tells_nothing():
    task = ImageClassification()
    episode = task.format({"images": image(64, 64)})
    dark = Frame(torch.full((3, 64, 64), 100, dtype=torch.uint8), episode.query)
    assert torch.allclose(task.decode(dark, episode), torch.full((12,), 1 / 12))


def test_metrics_agree_with_torchmetrics():
    task = ImageClassification()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(12, (200,), generator=generator)
    scores = torch.randn(200, 12, generator=generator) * 2
    scores[torch.arange(200), labels] += 1.5
    scores = scores.softmax(1)
    pairs = zip(scores, labels.tolist(), strict=True)
    metrics = task.summarise([task.score(p, {"images": image(64, 64), "label": label}) for p, label in pairs])
    for name, k in (("top1", 1), ("top5", 5)):
        oracle = MulticlassAccuracy(12, top_k=k, average="micro")(scores, labels)
        assert metrics[name] == pytest.approx(oracle.item())
    oracle = MulticlassCalibrationError(12, n_bins=15, norm="l1")(scores, labels)
    assert metrics["ece"] == pytest.approx(oracle.item(), abs=1e-6)
    assert metrics["nll"] == pytest.approx(
        torch.nn.functional.nll_loss(scores.clamp(min=1e-4).log(), labels).item(), rel=1e-5
    )


def test_a_certain_error_costs_finite_nats_and_is_not_in_the_top_five():
    task = ImageClassification()
    wrong = task.truth({"images": image(64, 64), "label": 3})
    metrics = task.summarise([task.score(wrong, {"images": image(64, 64), "label": 0})])
    assert metrics == pytest.approx({"top1": 0, "top5": 0, "ece": 1, "nll": math.log(1e4)})


def test_floor_is_the_class_frequencies():
    task = ImageClassification()
    floor = task.floor([{"images": image(64, 64), "label": label} for label in (5, 5, 5, 2)])
    found = floor(task.format({"images": image(32, 64)}))
    assert found.argmax() == 5
    assert found[[5, 2]].tolist() == [0.75, 0.25]


def test_the_file_lists_the_best_five(tmp_path):
    task = ImageClassification()
    (path,) = task.write(torch.arange(12) / 66, tmp_path / "photo", (64, 64))
    best = json.loads(path.read_text())
    assert [entry["id"] for entry in best] == [11, 10, 9, 8, 7]
    assert best[0]["class"] == "dots cone"
    assert best[0]["probability"] == pytest.approx(11 / 66, abs=1e-6)
