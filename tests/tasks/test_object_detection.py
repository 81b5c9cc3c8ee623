import contextlib
import io
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from transframer.benchmarks.codec import ceiling
from transframer.codec import code_episodes, round_trip
from transframer.data.world import World
from transframer.errors import ConfigError, DataError
from transframer.tasks.detections import Detections, box_iou, merge
from transframer.tasks.object_detection import ObjectDetection


def sample(boxes, labels, size=(64, 64)):
    return {
        "images": torch.zeros(1, 3, *size, dtype=torch.uint8),
        "boxes": torch.as_tensor(boxes, dtype=torch.float32).view(-1, 4),
        "box_labels": torch.as_tensor(labels, dtype=torch.int64),
    }


def random_boxes(generator, count, size=(64, 64)):
    height, width = size
    extent = 0.08 + 0.5 * torch.rand(count, 2, generator=generator)
    low = torch.rand(count, 2, generator=generator) * (1 - extent)
    return torch.cat([low, low + extent], 1) * torch.tensor([width, height, width, height])


def coded(task, given_sample):
    episode = task.format(given_sample)
    return task.decode(round_trip(episode), episode.without_target())


def test_ceiling_and_tokens_on_the_world():
    task = ObjectDetection()
    samples = World("test", 3).samples(range(192), task.sample_type, task.clip)
    overlapping = [s for s in samples if box_iou(s["boxes"], s["boxes"]).triu(1).sum() > 0.1]
    assert len(overlapping) > 30
    metrics, tokens = ceiling(task, overlapping)
    assert metrics["ap"] >= 0.97
    assert metrics["ap75"] == 1.0
    assert tokens <= 30
    assert ceiling(task, samples)[1] <= 15


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 8),
    size=st.sampled_from([(64, 64), (48, 112), (70, 50), (128, 128)]),
)
def test_random_boxes_come_back(seed, count, size):
    task = ObjectDetection()
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, count, size)
    labels = torch.randint(4, (count,), generator=generator)
    found = coded(task, sample(boxes, labels, size))
    assert len(found.boxes) == count
    iou = box_iou(boxes, found.boxes) * (labels[:, None] == found.labels)
    assert (iou.amax(1) > 0.8).all() if count else True


def test_equal_boxes_stay_apart():
    found = coded(ObjectDetection(), sample([[20, 12, 41, 47]] * 9, [0, 1, 2, 3, 0, 1, 2, 3, 0]))
    assert sorted(found.labels.tolist()) == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert box_iou(found.boxes, torch.tensor([[20.0, 12, 41, 47]])).min() > 0.85


def test_the_target_is_what_the_codec_gives_back():
    """Pixels are rounded and limited, yet no coefficient moves: there is nothing for the codec to lose."""
    task = ObjectDetection(classes=tuple(map(str, range(80))))
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(80, (8,), generator=generator)
        episode = task.format(sample(random_boxes(generator, 8), labels))
        assert torch.equal(round_trip(episode).image, episode.target.image)
        assert code_episodes([episode]).count_nonzero() <= 5 * 8
        assert sorted(task.decode(episode.target, episode).labels.tolist()) == sorted(labels.tolist())


@pytest.mark.parametrize("quality", [50, 60, 70, 85])
def test_corners_of_the_lattice_stay_inside_the_grey_range(quality):
    task = ObjectDetection(quality=quality)
    boxes = [[0, 0, 64, 64], [0, 0, 2, 2], [62, 0, 64, 64], [0, 62, 64, 64], [62, 62, 64, 64], [3, 5, 64, 7]]
    episode = task.format(sample(boxes, [0, 3, 1, 2, 0, 3]))
    assert torch.equal(round_trip(episode).image, episode.target.image)


def test_whole_pixel_centres_are_exact():
    boxes = torch.tensor([[10.0, 12, 21, 40], [33, 9, 52, 20]])
    found = coded(ObjectDetection(), sample(boxes, [1, 2])).boxes
    found = found[found[:, 0].argsort()]
    assert torch.allclose(found[:, :2] + found[:, 2:], boxes[:, :2] + boxes[:, 2:], atol=1e-4)


@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([[5, 5, 5, 9]], [0], "a box without area"),
        ([[5, 5, 9, 9]], [4], "expected 0 to 3"),
        ([[5, 5, 9, 9]] * 65, [0] * 65, "65 boxes in an image of 64 x 64 pixels\nexpected at most 64"),
    ],
)
def test_boxes_that_cannot_be_held_are_refused(boxes, labels, message):
    with pytest.raises(DataError, match=message):
        ObjectDetection().format(sample(boxes, labels))


@pytest.mark.parametrize(("quality", "classes"), [(95, 4), (10, 4), (75, 300)])
def test_a_lattice_without_room_is_refused(quality, classes):
    task = ObjectDetection(quality=quality, classes=tuple(map(str, range(classes))))
    with pytest.raises(ConfigError, match="no room"):
        task.format(sample([[5, 5, 9, 9]], [0]))


def detection_set(seed=0, images=24):
    """True boxes, and detections near them, doubled, missed, of wrong classes and at random, with scores."""
    generator = torch.Generator().manual_seed(seed)
    samples, predictions = [], []
    for _ in range(images):
        count = int(torch.randint(0, 5, (1,), generator=generator))
        boxes, labels = random_boxes(generator, count), torch.randint(4, (count,), generator=generator)
        kept = torch.rand(count, generator=generator) > 0.2
        near = boxes[kept] + 2.5 * torch.randn(int(kept.sum()), 4, generator=generator)
        extra = random_boxes(generator, int(torch.randint(0, 3, (1,), generator=generator)))
        found = torch.cat([near, near[:1] + 1, extra])
        found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
        found_labels = torch.cat([labels[kept], labels[kept][:1], torch.zeros(len(extra), dtype=torch.int64)])
        scores = torch.rand(len(found), generator=generator).mul(8).round() / 8  # ties, too
        samples.append(sample(boxes, labels))
        predictions.append(Detections(found, found_labels, scores, (64, 64)))
    return samples, predictions


def coco_eval(samples, predictions):
    """Plain COCOeval over the whole set."""

    def xywh(box):
        x0, y0, x1, y1 = box.tolist()
        return {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}

    truth, results = [], []
    for image, (given_sample, found) in enumerate(zip(samples, predictions, strict=True)):
        for box, label in zip(given_sample["boxes"], given_sample["box_labels"].tolist(), strict=True):
            truth.append({"id": len(truth) + 1, "image_id": image, "category_id": label} | xywh(box))
        for box, label, score in zip(found.boxes, found.labels.tolist(), found.scores.tolist(), strict=True):
            results.append({"image_id": image, "category_id": label, "score": score} | xywh(box))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": k} for k in range(len(samples))],
            "categories": [{"id": k} for k in range(4)],
            "annotations": truth,
            "info": {},
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: float(evaluation.stats[at]) for name, at in (("ap", 0), ("ap50", 1), ("ap75", 2), ("ar", 8))
    }


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_plain_cocoeval(seed):
    task = ObjectDetection()
    samples, predictions = detection_set(seed)
    scores = [
        task.score(found, given_sample) for found, given_sample in zip(predictions, samples, strict=True)
    ]
    metrics = task.summarise(scores)
    assert 0.05 < metrics["ap"] < 0.95
    assert metrics == pytest.approx(coco_eval(samples, predictions), abs=1e-12)


def test_a_resampling_is_plain_cocoeval_too():
    task = ObjectDetection()
    samples, predictions = detection_set()
    chosen = torch.randint(len(samples), (40,), generator=torch.Generator().manual_seed(1)).tolist()
    scores = [
        task.score(found, given_sample) for found, given_sample in zip(predictions, samples, strict=True)
    ]
    oracle = coco_eval([samples[k] for k in chosen], [predictions[k] for k in chosen])
    assert task.summarise([scores[k] for k in chosen]) == pytest.approx(oracle, abs=1e-12)


def test_nothing_to_find_is_nan_and_nothing_found_is_zero():
    task = ObjectDetection()
    empty = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0), (64, 64))
    nothing, something = sample([], []), sample([[5, 5, 20, 20]], [1])
    assert all(math.isnan(value) for value in task.summarise([task.score(empty, nothing)]).values())
    assert all(math.isnan(value) for value in task.summarise([]).values())
    scores = [task.score(empty, something), task.score(empty, nothing)]
    assert task.summarise(scores) == {"ap": 0, "ap50": 0, "ap75": 0, "ar": 0}


def detections(*rows):
    boxes, labels, scores = zip(*rows, strict=True)
    return Detections(torch.tensor(boxes), torch.tensor(labels), torch.tensor(scores), (64, 64))


def test_samples_merge_by_class_and_overlap():
    one = detections(([10.0, 10, 20, 20], 0, 1.0), ([10.0, 10, 20, 20], 1, 1.0))
    two = detections(([12.0, 10, 22, 20], 0, 1.0), ([40.0, 40, 50, 50], 1, 1.0))
    merged = merge([one, two])
    assert merged.boxes.tolist() == [[11, 10, 21, 20], [10, 10, 20, 20], [40, 40, 50, 50]]
    assert merged.labels.tolist() == [0, 1, 1]
    assert merged.scores.tolist() == pytest.approx([9 / 11, 0.5, 0.5])


def test_boxes_merge_from_the_densest_on_and_become_their_median():
    """Not from the first, which reaches only some; nor their mean, which one far off draws away."""
    far, near = [10.0, 10, 24, 20], [[10.0, 10, 20, 20], [10.0, 10, 20, 20], [10.0, 10, 16, 20]]
    merged = merge([detections((box, 0, 1.0)) for box in (far, *near)])
    assert merged.boxes.tolist() == [[10, 10, 20, 20]]
    assert merged.scores.tolist() == pytest.approx([(1 + 1 + 6 / 10 + 10 / 14) / 4])
    chain = [[0.0, 0, 10, 10], [4.0, 0, 14, 10], [5.0, 0, 15, 10], [6.0, 0, 16, 10]]
    merged = merge([detections((box, 0, 1.0)) for box in chain], min_iou=0.6)
    assert merged.boxes.tolist() == [[0, 0, 10, 10], [5, 0, 15, 10]]
    assert merged.scores.tolist() == pytest.approx([0.25, (1 + 2 * 9 / 11) / 4])


def test_equal_boxes_of_one_sample_do_not_merge():
    twice = detections(([10.0, 10, 20, 20], 0, 1.0), ([10.0, 10, 20, 20], 0, 1.0))
    assert merge([twice, twice]).scores.tolist() == [1, 1]


def test_floor_is_a_mean_box_per_class_with_its_frequency():
    task = ObjectDetection()
    seen = [sample([[0, 0, 32, 32]], [2]), sample([[32, 32, 64, 64], [0, 0, 8, 8]], [2, 0]), sample([], [])]
    found = task.floor(seen)(task.format({"images": torch.zeros(1, 3, 64, 128, dtype=torch.uint8)}))
    assert found.labels.tolist() == [0, 2]
    assert found.boxes.tolist() == [[0, 0, 16, 8], [32, 16, 96, 48]]
    assert found.scores.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert found.size == (64, 128)


def test_a_picture_leaves_out_boxes_that_few_draws_hold():
    image = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    boxes = torch.tensor([[8.0, 8, 24, 24], [32, 32, 56, 56]])

    def drawn(boxes, scores):
        labels = torch.arange(len(boxes))
        return ObjectDetection().draw(
            {"images": image}, Detections(boxes, labels, torch.tensor(scores), (64, 64))
        )

    assert torch.equal(drawn(boxes, [0.6, 0.2]), drawn(boxes[:1], [0.6]))
    assert not torch.equal(drawn(boxes, [0.6, 0.3]), drawn(boxes[:1], [0.6]))


def test_the_file_is_coco_results_in_the_photo_s_pixels(tmp_path):
    found = detections(([8.0, 16, 24, 32], 3, 0.5))
    (path,) = ObjectDetection().write(found, tmp_path / "photo", (128, 640))
    (entry,) = json.loads(path.read_text())
    assert entry == {
        "image_id": 0,
        "category_id": 3,
        "category": "cone",
        "bbox": [80, 32, 160, 32],
        "score": 0.5,
    }
