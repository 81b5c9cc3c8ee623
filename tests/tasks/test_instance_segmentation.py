"""Objects there and back, AP of masks against pycocotools run on files, and what is written."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from transframer.codec import round_trip, token_count
from transframer.data.world import World
from transframer.errors import DataError
from transframer.tasks.instance_colours import InstanceColours
from transframer.tasks.instance_masks import Instances, mask_iou, mean_instances, merge, numbers_of
from transframer.tasks.instance_segmentation import InstanceSegmentation

TASK = InstanceSegmentation()


def sample(instances, labels):
    image = torch.full((1, 3, *instances.shape), 100, dtype=torch.uint8)
    return {
        "images": image,
        "instances": instances,
        "instance_labels": torch.tensor(labels, dtype=torch.int64),
    }


def scene(*boxes, size=(64, 96)):
    instances = torch.zeros(size, dtype=torch.int64)
    for number, (x0, y0, x1, y1) in enumerate(boxes, 1):
        instances[y0:y1, x0:x1] = number
    return instances


def coded(item, task=TASK):
    episode = task.format(item)
    return task.decode(round_trip(episode), episode.without_target())


def best_ious(found, true):
    iou = mask_iou(true.masks, found.masks) * (true.labels[:, None] == found.labels)
    return iou.amax(1).tolist()


@pytest.mark.parametrize("labels", [[0, 0], [2, 2], [0, 3], [1, 0]])
def test_objects_that_touch_stay_apart(labels):
    item = sample(scene((10, 10, 40, 50), (40, 20, 80, 60)), labels)
    found = coded(item)
    assert sorted(found.labels.tolist()) == sorted(labels)
    assert min(best_ious(found, TASK.truth(item))) > 0.9


def test_an_object_that_another_one_cuts_in_two_is_one():
    instances = scene((10, 20, 80, 44))
    instances[10:60, 40:46] = 2
    item = sample(instances, [1, 2])
    found = coded(item)
    assert len(found.labels) == 2
    assert min(best_ious(found, TASK.truth(item))) > 0.85


def test_a_row_of_objects_of_one_class_has_few_colours_and_stays_apart():
    item = sample(scene(*((16 * i, 8, 16 * i + 16, 56) for i in range(6))), [1] * 6)
    colours = TASK.format(item).target.image.flatten(1).unique(dim=1)
    assert colours.shape[1] == 3, "grey, and two that alternate"
    found = coded(item)
    assert len(found.labels) == 6
    assert min(best_ious(found, TASK.truth(item))) > 0.85


def test_no_object_is_grey_and_costs_no_token():
    empty = sample(scene(), [])
    assert token_count([TASK.format(empty)]).item() == 0
    assert len(coded(empty).labels) == 0
    assert coded(empty).masks.shape == (0, 64, 96)
    assert math.isnan(TASK.summarise([TASK.score(coded(empty), empty)])["ap"])


def test_specks_of_noise_are_no_objects():
    episode = TASK.format(sample(scene((10, 10, 40, 50)), [0]))
    frame = round_trip(episode)
    frame.image[:, 60:62, 80:83] = 255
    assert len(TASK.decode(frame, episode).labels) == 1


@pytest.mark.parametrize(
    ("classes", "levels", "quality"), [(1, 3, 12), (4, 3, 12), (6, 3, 12), (7, 5, 36), (80, 7, 60)]
)
def test_levels_grow_with_the_number_of_classes(classes, levels, quality):
    colours = InstanceColours(classes, gap_px=8)
    assert (colours.levels, colours.quality) == (levels, quality)
    first = colours._order[0]
    assert first == levels**3 // 2, "the middle of the cube"
    assert sorted(colours._order.tolist()) == list(range(levels**3))


def test_eighty_classes_come_back_too():
    task = InstanceSegmentation(classes=tuple(map(str, range(80))))
    for labels in ([0, 79, 79], [41, 17, 3]):
        item = sample(scene((2, 4, 40, 40), (50, 6, 90, 34), (20, 40, 70, 60)), labels)
        found = coded(item, task)
        assert sorted(found.labels.tolist()) == sorted(labels)
        assert min(best_ious(found, task.truth(item))) > 0.9


def test_more_close_objects_than_colours_are_written_all_the_same():
    task = InstanceSegmentation(classes=tuple(map(str, range(6))), gap_px=64)
    item = sample(scene(*((12 * i, 8, 12 * i + 12, 56) for i in range(8))), [5] * 8)
    assert 1 <= len(coded(item, task).labels) <= 8


def _official(pairs, classes, folder):
    """COCOeval as everybody runs it: from a dataset's file and a results file."""
    truth = {"images": [], "categories": [{"id": k} for k in range(classes)], "annotations": []}
    results = []

    def entry(image, mask, label):
        code = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        code["counts"] = code["counts"].decode()
        return {"image_id": image, "category_id": int(label), "segmentation": code}

    for image, (found, true) in enumerate(pairs):
        height, width = true.masks.shape[1:]
        truth["images"].append({"id": image, "height": height, "width": width})
        for mask, label in zip(true.masks, true.labels, strict=True):
            more = {"id": len(truth["annotations"]) + 1, "area": int(mask.sum()), "iscrowd": 0}
            truth["annotations"].append(entry(image, mask, label) | more)
        for mask, label, score in zip(found.masks, found.labels, found.scores, strict=True):
            results.append(entry(image, mask, label) | {"score": float(score)})
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    coco = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(folder / "results.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(("ap", "ap50", "ap75"), evaluation.stats[:3], strict=True)) | {"ar": evaluation.stats[8]}


def test_metrics_are_those_of_cocoeval(tmp_path):
    generator = torch.Generator().manual_seed(0)
    samples = World("validation").samples(range(12), TASK.sample_type, TASK.clip)
    pairs = []
    for item in samples:
        true = TASK.truth(item)
        moved = true.masks.roll(int(torch.randint(0, 4, (), generator=generator)), 2)
        scores = torch.rand(len(true.labels), generator=generator)
        labels = torch.where(scores < 0.15, (true.labels + 1) % 4, true.labels)
        pairs.append((Instances(moved, labels, scores), true))
    found = TASK.summarise([TASK.score(each, item) for (each, _), item in zip(pairs, samples, strict=True)])
    expected = _official(pairs, 4, tmp_path)
    assert 0.1 < expected["ap"] < 0.9
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-9), key
    assert found["best_iou"] == pytest.approx(
        np.mean([best for each, true in pairs for best in best_ious(each, true)]), abs=1e-6
    )


def test_several_predictions_are_merged_by_vote():
    def one(*masks, labels):
        return Instances(torch.stack(masks), torch.tensor(labels), torch.ones(len(masks)))

    left, right = scene((0, 0, 10, 10)) > 0, scene((40, 0, 60, 10)) > 0
    wider, far = scene((0, 0, 14, 10)) > 0, scene((70, 40, 80, 50)) > 0
    merged = merge([one(left, right, labels=[0, 1]), one(wider, labels=[0]), one(left, far, labels=[0, 1])])
    assert merged.labels.tolist() == [0, 1, 1]
    assert merged.scores.tolist() == pytest.approx([1, 1 / 3, 1 / 3])
    assert torch.equal(merged.masks[0], left), "what more than half of them have"
    assert torch.equal(merged.masks[2], far)
    other = merge([one(left, labels=[0]), one(left, labels=[1])])
    assert other.scores.tolist() == [0.5, 0.5], "a class votes for itself only"


def test_floor_is_a_mean_object_of_each_class_that_occurs():
    a, b = scene((10, 10, 20, 20)) > 0, scene((10, 10, 20, 30)) > 0
    images = [
        Instances(a[None], torch.tensor([2]), torch.ones(1)),
        Instances(b[None], torch.tensor([2]), torch.ones(1)),
        Instances(a[:0, None].new_zeros(0, 64, 96), torch.zeros(0, dtype=torch.int64), torch.ones(0)),
    ]
    mean = mean_instances(images, 4)
    assert mean.labels.tolist() == [2]
    assert mean.scores.tolist() == pytest.approx([2 / 3])
    assert (mean.masks[0] | b).sum() == b.sum()
    assert (mean.masks[0] & a).sum() == a.sum()
    assert mean_instances(images[2:], 4).masks.shape == (0, 64, 96)


def test_files_hold_the_masks_at_the_images_size(tmp_path):
    item = sample(scene((10, 10, 40, 50), (50, 20, 80, 60)), [3, 0])
    json_path, png = TASK.write(TASK.truth(item), tmp_path / "a.b", (128, 192))
    results = json.loads(json_path.read_text())
    assert [result["category"] for result in results] == ["cone", "sphere"]
    assert [result["category_id"] for result in results] == [3, 0]
    masks = [coco_mask.decode(result["segmentation"]) for result in results]
    assert masks[0].shape == (128, 192)
    assert masks[0].sum() == 60 * 80
    numbers = np.asarray(Image.open(png))
    assert (numbers == masks[0] + 2 * masks[1]).all()
    assert torch.equal(numbers_of(TASK.truth(item).masks), item["instances"])


def test_labels_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="no true objects"):
        TASK.truth({"images": torch.zeros(1, 3, 16, 16)})
    with pytest.raises(DataError, match=r"instances.*\n.*0 to 1"):
        TASK.truth(sample(scene((0, 0, 9, 9), (20, 20, 30, 30)), [0]))
    with pytest.raises(DataError, match=r"instance_labels.*\n.*0 to 3"):
        TASK.truth(sample(scene((0, 0, 9, 9)), [4]))
