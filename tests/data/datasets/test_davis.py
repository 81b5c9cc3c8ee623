import pickle

import numpy as np
import pytest
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.davis import DAVIS
from transframer.errors import DataError, UnknownNameError
from transframer.registry import get_task
from transframer.task import Clip

from .contract import check_records

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0] * 756
# Object 2 of bear is out of sight in frame 1; 255 is a border that belongs to nothing.
IDS = {
    "bear": [[[0, 1, 1, 2], [0, 0, 3, 3]], [[0, 0, 1, 255], [0, 3, 3, 3]]],
    "car": [[[0, 1, 1, 1, 0]] * 3] * 2,
    "dog": [[[1, 1, 0, 0, 0, 2]]] * 2,
}


def write_sequence(root, name, annotations, mode="P"):
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / name).mkdir(parents=True)
    for number, ids in enumerate(annotations):
        ids = np.array(ids, np.uint8)
        grey = np.repeat(ids[..., None] * 40, 3, axis=2).astype(np.uint8)
        Image.fromarray(grey).save(root / "JPEGImages" / "480p" / name / f"{number:05}.jpg")
        image = Image.fromarray(ids, mode="L")
        if mode == "P":
            image = Image.fromarray(ids, mode="P")
            image.putpalette(PALETTE)
        image.save(root / "Annotations" / "480p" / name / f"{number:05}.png")


@pytest.fixture
def root(tmp_path):
    for name, annotations in IDS.items():
        write_sequence(tmp_path, name, annotations)
    lists = tmp_path / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("car\ndog\n")
    (lists / "val.txt").write_text("bear\n")
    return tmp_path


def test_guessed_by_its_looks(root):
    assert DAVIS.looks_like(root)
    assert guess_format(root) == "davis"


def test_splits(root):
    found = {}
    for split in ("train", "validation", "test"):
        dataset = open_dataset(root, split, get_task("semantic_segmentation"), format="davis")
        check_records(dataset)
        found[split] = [sequence.name for sequence in pickle.loads(pickle.dumps(dataset)).sequences]
    assert found["test"] == ["bear"]
    assert sorted(found["train"] + found["validation"]) == ["car", "dog"]
    assert len(found["validation"]) == 1


def test_masks_and_instances_of_the_first_frame(root):
    dataset = DAVIS(root, "test")
    record = dataset.record(0, dataset.fields)
    assert record["mask"].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    assert record["instances"].tolist() == [[0, 1, 1, 2], [0, 0, 3, 3]]
    assert record["instance_labels"].tolist() == [1, 1, 1]
    record = dataset.record(1, dataset.fields)
    assert record["mask"].tolist() == [[0, 0, 1, 255], [0, 1, 1, 1]]
    assert record["instances"].tolist() == [[0, 0, 1, 0], [0, 2, 2, 2]]
    assert record["instance_labels"].tolist() == [1, 1]
    assert dataset.classes["mask"] == ("background", "object")


def test_windows_with_a_target(root):
    dataset = DAVIS(root, "test", Clip(frames=2, context=((0,),), target=(1,), step_s=1 / 24))
    assert len(dataset) == 1
    record = dataset.record(0, dataset.fields)
    assert record["query_time"] == pytest.approx(1 / 24)
    check_records(dataset)
    files = [file.relative_to(root).as_posix() for file in dataset.files(0)]
    assert files == [
        "JPEGImages/480p/bear/00000.jpg",
        "JPEGImages/480p/bear/00001.jpg",
        "Annotations/480p/bear/00000.png",
    ]


def test_release_of_2016(tmp_path):
    """White is the object, and the lists name every frame."""
    for name in ("bear", "bus", "car"):
        write_sequence(tmp_path, name, [[[0, 255, 255], [0, 0, 255]]] * 2, mode="L")
    lists = tmp_path / "ImageSets" / "480p"
    lists.mkdir(parents=True)

    def lines(*names):
        return "".join(
            f"/JPEGImages/480p/{name}/{n:05}.jpg /Annotations/480p/{name}/{n:05}.png \n"
            for name in names
            for n in range(2)
        )

    (lists / "train.txt").write_text(lines("bear", "bus"))
    (lists / "val.txt").write_text(lines("car"))
    dataset = DAVIS(tmp_path, "test")
    check_records(dataset)
    assert [sequence.name for sequence in dataset.sequences] == ["car"]
    record = dataset.record(0, dataset.fields)
    assert record["mask"].tolist() == record["instances"].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert len(DAVIS(tmp_path, "train", year="2016").sequences) == 1
    with pytest.raises(DataError, match="2017"):
        DAVIS(tmp_path, "test", year="2017")


def test_damaged_and_missing(root, tmp_path):
    annotation = root / "Annotations" / "480p" / "bear" / "00000.png"
    content = annotation.read_bytes()
    annotation.write_bytes(content[:50])
    with pytest.raises(DataError, match=r"Annotations/480p/bear/00000\.png"):
        DAVIS(root, "test").record(0, {"mask"})
    assert set(DAVIS(root, "test").record(0, {"images"})) == {"images"}
    Image.fromarray(np.zeros((2, 5), np.uint8)).save(annotation)
    with pytest.raises(DataError, match=r"labels of 5 x 2"):
        DAVIS(root, "test").record(0, {"mask"})
    annotation.unlink()
    with pytest.raises(DataError, match=r"bear/00000\.png"):
        DAVIS(root, "test").record(0, {"mask"})
    (root / "ImageSets" / "2017" / "val.txt").write_text("none\n")
    with pytest.raises(DataError, match="no frames of none"):
        DAVIS(root, "test")
    with pytest.raises(DataError, match="JPEGImages"):
        DAVIS(root / "ImageSets")
    with pytest.raises(UnknownNameError, match="2018"):
        DAVIS(root, year="2018")
    assert not DAVIS.looks_like(root / "ImageSets")
