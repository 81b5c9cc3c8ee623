import contextlib
import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as Reference

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.coco import COCO
from transframer.errors import ConfigError, DataError

from .contract import check_records

# Ids with gaps and out of order, as COCO's own.
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
NAMES = ("person", "dog", "toothbrush")
HEIGHT, WIDTH = 30, 40
L_SHAPE = [5, 5, 25, 5, 25, 10, 10, 10, 10, 25, 5, 25]


def annotation(number, image, category, bbox, segmentation, iscrowd=0):
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3],
        "segmentation": segmentation, "iscrowd": iscrowd,
    }  # fmt: skip


def first_image():
    """An object of two parts, fractions, run lengths of both kinds, and objects that are left out."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:28, 30:40] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    compressed["counts"] = compressed["counts"].decode()
    column = {"size": [HEIGHT, WIDTH], "counts": [3 * HEIGHT, 2 * HEIGHT, (WIDTH - 5) * HEIGHT]}
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    return [
        annotation(1, 7, 90, [5, 5, 20, 20], [L_SHAPE, [30, 2, 38, 2, 38, 8, 30, 8]]),
        annotation(
            2, 7, 1, [12.25, 11.5, 6.5, 9.25], [[12.25, 11.5, 18.75, 11.5, 18.75, 20.75, 12.25, 20.75]]
        ),
        annotation(3, 7, 18, [3, 0, 2, HEIGHT], column),
        annotation(4, 7, 18, [30, 20, 10, 8], compressed),
        annotation(5, 7, 1, [0, 0, WIDTH, HEIGHT], crowd, iscrowd=1),
        annotation(6, 7, 1, [20, 20, 0, 5], []),  # no width
        annotation(7, 7, 1, [WIDTH + 2, 3, 5, 5], []),  # outside
        annotation(8, 7, 18, [-3, 25, 10, 12], [[-3, 25, 7, 25, 7, 37, -3, 37]]),  # reaches over two edges
    ]


def write_part(root, part, images, annotations, folder=None):
    """Image id -> height and width; file names as those of COCO."""
    folder = folder or root / part
    folder.mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    entries = []
    for number, (height, width) in images.items():
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:012}.jpg")
        entries.append({"id": number, "file_name": f"{number:012}.jpg", "height": height, "width": width})
    content = {"info": {}, "images": entries[::-1], "annotations": annotations, "categories": CATEGORIES}
    path = root / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def root(tmp_path):
    images = {number: (20 + number % 9, 60 - number % 7) for number in range(100, 124)}
    boxes = [
        annotation(n, n, (1, 18, 90)[n % 3], [n % 7, 2, 9, 8], [[n % 7, 2, n % 7 + 9, 2, n % 7, 10]])
        for n in images
    ]
    write_part(tmp_path, "train2017", images, boxes)
    write_part(tmp_path, "val2017", {7: (HEIGHT, WIDTH), 3: (25, 31)}, first_image())
    return tmp_path


def test_splits_keep_the_contract_and_share_nothing(root):
    assert guess_format(root) == "coco"
    names = {}
    for split in ("train", "validation", "test"):
        dataset = open_dataset(root, split)
        check_records(dataset)
        names[split] = [dataset.files(index)[0].name for index in range(len(dataset))]
        assert dataset.classes == {"box_labels": NAMES, "instance_labels": NAMES}
    assert names["test"] == ["000000000003.jpg", "000000000007.jpg"]
    assert sorted(names["train"] + names["validation"]) == [f"{number:012}.jpg" for number in range(100, 124)]
    assert len(names["validation"]) >= 1


def test_labels_of_the_training_part_stay_with_their_images(root):
    dataset = COCO(root, "train")
    for index in range(len(dataset)):
        number = int(dataset.files(index)[0].stem)
        record = dataset.record(index, {"boxes", "box_labels"})
        assert record["boxes"].tolist() == [[number % 7, 2, number % 7 + 9, 10]]
        assert NAMES[record["box_labels"][0]] == ("person", "dog", "toothbrush")[number % 3]


def test_boxes_are_corners_clipped_without_crowds_and_empty_ones(root):
    record = COCO(root, "test").record(1, {"boxes", "box_labels"})
    expected = [[5, 5, 25, 25], [12.25, 11.5, 18.75, 20.75], [3, 0, 5, 30], [30, 20, 40, 28], [0, 25, 7, 30]]
    assert record["boxes"].tolist() == expected
    assert record["box_labels"].tolist() == [2, 0, 1, 1, 1]
    assert set(record) == {"images", "boxes", "box_labels"}


def test_an_image_without_annotations_is_kept(root):
    record = COCO(root, "test").record(0, {"boxes", "box_labels", "instances", "instance_labels"})
    assert record["boxes"].shape == (0, 4)
    assert len(record["box_labels"]) == len(record["instance_labels"]) == 0
    assert record["instances"].shape == (25, 31)
    assert not record["instances"].any()


def test_instances_are_the_masks_that_pycocotools_reads_the_smallest_in_front(root):
    record = COCO(root, "test").record(1, {"instances", "instance_labels"})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = Reference(root / "annotations" / "instances_val2017.json")
    things = [
        thing for thing in reference.loadAnns(reference.getAnnIds(7, iscrowd=False)) if thing["segmentation"]
    ]
    masks = [reference.annToMask(thing).astype(bool) for thing in things]
    names = [reference.cats[thing["category_id"]]["name"] for thing in things]
    assert len(record["instance_labels"]) == len(things) == 5
    for number, label in enumerate(record["instance_labels"], 1):
        mask, name = masks[number - 1], names[number - 1]
        smaller = [other for other in masks if other.sum() < mask.sum()]
        visible = mask & ~np.any([np.zeros_like(mask), *smaller], axis=0)
        assert visible.any()
        assert np.array_equal(record["instances"] == number, visible), name
        assert NAMES[label] == name
    none = ~np.any(masks, axis=0)
    assert np.array_equal(record["instances"] == 0, none)
    assert (record["instances"][20:28, 30:40] == 4).all(), "by hand: the compressed run lengths"
    assert (record["instances"][:25, 3:5] == 3).all(), "by hand: the run lengths in columns"


def test_a_hidden_object_is_no_instance_but_has_its_box(tmp_path):
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    left, right = [[2, 2, 7, 2, 7, 12, 2, 12]], [[7, 2, 12, 2, 12, 12, 7, 12]]
    annotations = [
        annotation(1, 1, 90, [2, 2, 10, 10], square),
        annotation(2, 1, 1, [2, 2, 5, 10], left),
        annotation(3, 1, 18, [7, 2, 5, 10], right),
    ]
    write_part(tmp_path, "val2017", {1: (20, 24)}, annotations)
    dataset = COCO(tmp_path, "test")
    check_records(dataset)
    record = dataset.record(0, dataset.fields)
    assert record["instance_labels"].tolist() == [0, 1]
    assert record["box_labels"].tolist() == [2, 0, 1]
    expected = torch.zeros(20, 24, dtype=torch.int64)
    expected[2:12, 2:7], expected[2:12, 7:12] = 1, 2
    assert torch.equal(record["instances"], expected)


def test_without_masks_there_are_only_boxes(tmp_path):
    write_part(tmp_path, "val2017", {1: (20, 24)}, [annotation(1, 1, 18, [1, 2, 3, 4], [])])
    dataset = COCO(tmp_path, "test")
    check_records(dataset)
    assert dataset.fields == {"images", "boxes", "box_labels"}
    assert set(dataset.classes) == {"box_labels"}


def test_folders_as_roboflow_exports_them(tmp_path):
    for part, images in (("train", range(10, 22)), ("valid", (5, 6)), ("test", (8,))):
        boxes = [annotation(n, n, 18, [1, 1, n, 3], [[1, 1, 1 + n, 1, 1 + n, 4, 1, 4]]) for n in images]
        path = write_part(tmp_path, part, {number: (20, 33) for number in images}, boxes, tmp_path / part)
        path.rename(tmp_path / part / "_annotations.coco.json")
    (tmp_path / "annotations").rmdir()
    assert guess_format(tmp_path) == "coco"
    for split in ("train", "validation", "test"):
        check_records(COCO(tmp_path, split))
    assert len(COCO(tmp_path, "train")) + len(COCO(tmp_path, "validation")) == 12
    assert COCO(tmp_path, "test").record(0, {"boxes"})["boxes"].tolist() == [[1, 1, 9, 4]]
    (tmp_path / "test" / "_annotations.coco.json").unlink()
    assert len(COCO(tmp_path, "test")) == 2


def test_of_several_years_one_is_chosen(root):
    write_part(root, "val2014", {1: (20, 24)}, [], root / "images" / "val2014")
    with pytest.raises(ConfigError, match=r"instances_val2014.json, instances_val2017.json"):
        COCO(root, "test")
    assert len(COCO(root, "test", year=2017)) == 2
    dataset = open_dataset(root, "test", format="coco", options={"year": 2014})
    assert dataset.files(0)[0] == root / "images" / "val2014" / "000000000001.jpg"
    check_records(dataset)


def test_missing_parts_are_named(root, tmp_path):
    with pytest.raises(DataError, match=r"instances_train\*\.json"):
        COCO(tmp_path / "nowhere")
    for path in (root / "train2017").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="train2017/0000000001"):
        COCO(root).record(0, {"images"})
    (root / "train2017").rmdir()
    with pytest.raises(DataError, match="train2017: no such folder"):
        COCO(root)


def test_damaged_files_are_named(root):
    dataset = pickle.loads(pickle.dumps(COCO(root, "test")))
    image = root / "val2017" / "000000000003.jpg"
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(DataError, match=r"000000000003\.jpg"):
        dataset.record(0, {"boxes"})
    Image.new("RGB", (31, 24)).save(image)
    with pytest.raises(DataError, match=r"000000000003.jpg: an image of 31 x 24 pixels\nexpected 31 x 25"):
        dataset.record(0, {"boxes"})
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match=r"instances_val2017\.json: not JSON, or truncated"):
        COCO(root, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "annotations: annotation 41 is malformed: KeyError: 99"),
        ({"category_id": 2}, "annotation 41 .*KeyError: 2"),
        ({"bbox": [1, 2, 3]}, "annotation 41 "),
        ({"bbox": "box"}, "annotation 41 "),
        ({"segmentation": [["a"] * 6]}, "annotation 41 "),
        ({"segmentation": 5}, "annotation 41 "),
    ],
)
def test_malformed_annotations_are_named(tmp_path, change, message):
    good = annotation(41, 1, 18, [1, 2, 3, 4], [])
    write_part(tmp_path, "val2017", {1: (20, 24)}, [good | change])
    with pytest.raises(DataError, match=message):
        COCO(tmp_path, "test")


@pytest.mark.parametrize(
    "segmentation",
    [
        [[0, 0, 1e9, 0, 5, 5]],
        [[0, 0, float("nan"), 0, 5, 5]],
        {"size": [20, 25], "counts": [500]},
        {"size": [20, 24], "counts": [479]},
        {"size": [20, 24], "counts": [481, -1]},
        {"size": [20, 24], "counts": "not run lengths"},
        {"counts": [480]},
    ],
)
def test_masks_that_cannot_be_read_are_an_error_when_they_are_asked_for(tmp_path, segmentation):
    write_part(tmp_path, "val2017", {1: (20, 24)}, [annotation(1, 1, 18, [1, 2, 3, 4], segmentation)])
    dataset = COCO(tmp_path, "test")
    assert len(dataset.record(0, {"boxes"})["boxes"]) == 1
    with pytest.raises(DataError, match=r"instances_val2017\.json: segmentation"):
        dataset.record(0, {"instances"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "images: no such list"),
        ({"images": []}, "images: no image"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": 4}]}, "images: an image that lacks 'width'"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}] * 2}, "an id that two images"),
        ({"categories": []}, "categories: no category"),
        ({"categories": [{"id": 1}]}, "categories: a category that lacks 'name'"),
        ({"categories": [*CATEGORIES, {"id": 1, "name": "twin"}]}, "an id that two categories have"),
    ],
)
def test_malformed_lists_are_named(tmp_path, change, message):
    path = write_part(tmp_path, "val2017", {1: (20, 24)}, [])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        COCO(tmp_path, "test")
