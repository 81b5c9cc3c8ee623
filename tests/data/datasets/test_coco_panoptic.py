import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.coco_panoptic import COCOPanoptic
from transframer.errors import DataError

from .contract import check_records

CATEGORIES = [
    {"id": 200, "name": "rug", "isthing": 0},
    {"id": 18, "name": "dog", "isthing": 1},
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 92, "name": "banner", "isthing": 0},
]
NAMES, THINGS = ("person", "dog", "banner", "rug"), ("person", "dog")
CLASS_OF = {1: 0, 18: 1, 92: 2, 200: 3}
# Ids that need one, two and three bytes; the numbers of the second column are categories.
SEGMENTS = {3226956: (18, 0), 5: (92, 0), 700: (1, 0), 66000: (18, 0), 9: (1, 1), 300: (200, 0)}


def write_png(path, ids):
    """As panopticapi's id2rgb: the lowest byte in red."""
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(path)


def write_part(root, part, sizes, pngs="annotations"):
    (root / part).mkdir(parents=True)
    folder = root / pngs / f"panoptic_{part}"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations, drawn = [], [], {}
    for number, (height, width) in sizes.items():
        draws = np.random.default_rng(number)
        Image.fromarray(draws.integers(0, 256, (height, width, 3), np.uint8)).save(
            root / part / f"{number:012}.jpg"
        )
        ids = draws.choice([0, *SEGMENTS], (height, width))
        write_png(folder / f"{number:012}.png", ids)
        drawn[number] = ids
        images.append({"id": number, "file_name": f"{number:012}.jpg", "height": height, "width": width})
        segments = [
            {"id": segment, "category_id": category, "iscrowd": crowd}
            for segment, (category, crowd) in SEGMENTS.items()
            if (ids == segment).any()
        ]
        annotations.append({"image_id": number, "file_name": f"{number:012}.png", "segments_info": segments})
    path = root / "annotations" / f"panoptic_{part}.json"
    content = {"images": images, "annotations": annotations[::-1], "categories": CATEGORIES}
    path.write_text(json.dumps(content))
    return drawn, path


def test_splits_keep_the_contract_and_share_nothing(tmp_path):
    write_part(tmp_path, "train2017", {number: (12 + number % 5, 17) for number in range(50, 70)})
    write_part(tmp_path, "val2017", {8: (11, 16), 4: (14, 9)})
    assert guess_format(tmp_path) == "coco_panoptic"
    names = {}
    for split in ("train", "validation", "test"):
        dataset = open_dataset(tmp_path, split)
        check_records(dataset)
        names[split] = [dataset.files(index)[0].name for index in range(len(dataset))]
        assert all(
            dataset.files(index)[1].stem == dataset.files(index)[0].stem for index in range(len(dataset))
        )
        assert dataset.classes == {"mask": NAMES, "instance_labels": THINGS}
    assert names["test"] == ["000000000004.jpg", "000000000008.jpg"]
    assert sorted(names["train"] + names["validation"]) == [f"{number:012}.jpg" for number in range(50, 70)]
    assert len(names["validation"]) >= 1


@pytest.mark.parametrize("pngs", ["annotations", "."])
def test_masks_and_instances_are_those_drawn(tmp_path, pngs):
    drawn, _ = write_part(tmp_path, "val2017", {number: (11, 16) for number in range(6)}, pngs)
    dataset = COCOPanoptic(tmp_path, "test")
    for index in range(6):
        ids = drawn[int(dataset.files(index)[0].stem)]
        record = dataset.record(index, {"mask", "instances", "instance_labels"})
        mask, owner = np.full(ids.shape, 255), {}
        for row, column in np.ndindex(ids.shape):
            category, crowd = SEGMENTS.get(int(ids[row, column]), (None, 0))
            if category is not None:
                mask[row, column] = CLASS_OF[category]
            number = int(record["instances"][row, column])
            if category in (1, 18) and not crowd:
                assert owner.setdefault(number, ids[row, column]) == ids[row, column]
                assert THINGS[record["instance_labels"][number - 1]] == NAMES[CLASS_OF[category]]
            else:
                assert number == 0
        assert np.array_equal(record["mask"], mask)
        assert sorted(owner) == list(range(1, len(record["instance_labels"]) + 1))
        assert len(set(owner.values())) == len(owner)


def test_only_what_is_asked_for_is_given(tmp_path):
    write_part(tmp_path, "val2017", {1: (11, 16)})
    dataset = pickle.loads(pickle.dumps(COCOPanoptic(tmp_path, "test")))
    assert set(dataset.record(0, {"mask"})) == {"images", "mask"}
    assert set(dataset.record(0, {"instances"})) == {"images", "instances"}
    both = dataset.record(0, dataset.fields)
    assert torch.equal(both["instances"], dataset.record(0, {"instances"})["instances"])


def test_damage_is_named(tmp_path):
    _, path = write_part(tmp_path, "val2017", {1: (40, 50), 2: (40, 50), 3: (40, 50), 4: (40, 50)})
    pngs = tmp_path / "annotations" / "panoptic_val2017"
    first, second, third, fourth = (pngs / f"{number:012}.png" for number in (1, 2, 3, 4))
    first.write_bytes(first.read_bytes()[:200])
    write_png(second, np.full((40, 50), 4321))
    write_png(third, np.zeros((39, 50), np.int64))
    Image.new("L", (50, 40)).save(fourth)
    dataset = COCOPanoptic(tmp_path, "test")
    messages = ["000000000001.png: ", "02.png: segment 4321", "labels of 50 x 39 pixels", "04.png: .*mode L"]
    for index, message in enumerate(messages):
        with pytest.raises(DataError, match=message):
            dataset.record(index, {"mask"})
        assert set(dataset.record(index, {"images"})) == {"images"}
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"panoptic_val2017\.json: not JSON"):
        COCOPanoptic(tmp_path, "test")


def test_wrong_layouts_are_named(tmp_path):
    with pytest.raises(DataError, match=r"panoptic_train\*\.json"):
        COCOPanoptic(tmp_path)
    _, path = write_part(tmp_path, "val2017", {1: (11, 16)})
    good = json.loads(path.read_text())
    segment = {"id": 5, "category_id": 3}
    wrong = [
        ({"annotations": []}, "annotations: no annotation"),
        (
            {"annotations": [{"image_id": 1, "file_name": "a.png"}]},
            "image 1 is malformed: KeyError: 'segments_info'",
        ),
        ({"annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [segment]}]}, "KeyError: 3"),
        ({"annotations": [{"image_id": 2, "file_name": "a.png", "segments_info": []}]}, "KeyError: 2"),
        ({"categories": [{"id": number, "name": str(number)} for number in range(256)]}, "256 categories"),
    ]
    for change, message in wrong:
        path.write_text(json.dumps(good | change))
        with pytest.raises(DataError, match=message):
            COCOPanoptic(tmp_path, "test")
    path.write_text(json.dumps(good))
    (tmp_path / "annotations" / "panoptic_val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="annotations/panoptic_val2017: no such folder"):
        COCOPanoptic(tmp_path, "test")
