import pickle

import numpy as np
import pytest
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.frame_folders import FrameFolders
from transframer.errors import ConfigError, DataError
from transframer.registry import get_task
from transframer.task import Clip

from .contract import check_records

SPLITS = ("train", "validation", "test")
PAIR = Clip(frames=2, context=((0,),), target=(1,), step_s=0.1)


def write(folder, frames=6, width=13, name="{}.png"):
    """Grey frames whose value is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(frames):
        Image.fromarray(np.full((8, width, 3), number, np.uint8)).save(folder / name.format(number))


def sequences_of(dataset):
    return {sequence.name for sequence in pickle.loads(pickle.dumps(dataset)).sequences}


def test_sequences_are_cut_by_their_names(tmp_path):
    names = {f"clip {number}" for number in range(10)} | {"deep/one"}
    for width, name in enumerate(sorted(names), 10):
        write(tmp_path / name, width=width)
    assert guess_format(tmp_path) == "frames"
    found = []
    for split in SPLITS:
        dataset = open_dataset(tmp_path, split, get_task("frame_interpolation"))
        assert dataset.fields == {"images", "times", "target", "query_time"}
        check_records(dataset)
        found += sorted(sequences_of(dataset))
    assert sorted(found) == sorted(names)


def test_natural_order_and_rate(tmp_path):
    write(tmp_path / "test" / "a", 12, name="frame{}.png")
    write(tmp_path / "train" / "b", 4)
    dataset = FrameFolders(tmp_path, "test", PAIR)
    values = [int(dataset.record(index, {"images"})["images"][0, 0, 0, 0]) for index in range(len(dataset))]
    assert values == [0, 2, 4, 6, 8, 10]
    rated = FrameFolders(tmp_path, "test", PAIR, frames_per_s=30.0)
    record = rated.record(2, rated.fields)
    assert record["images"][0, 0, 0, 0] == 8  # every third frame: windows start at 0, 4, 8
    assert record["target"][0, 0, 0] == 11
    assert record["times"].tolist() == pytest.approx([8 / 30])
    assert record["query_time"] == pytest.approx(11 / 30)


def test_folders_of_splits(tmp_path):
    for split, count in (("train", 5), ("val", 2)):
        for number in range(count):
            write(tmp_path / split / f"{split}{number}")
    parts = {split: sequences_of(FrameFolders(tmp_path, split)) for split in SPLITS}
    assert parts["test"] == {"val0", "val1"}
    assert parts["train"] | parts["validation"] == {f"train{number}" for number in range(5)}
    assert not parts["train"] & parts["validation"]


def test_one_sequence_is_cut_in_time(tmp_path):
    write(tmp_path, 40)
    assert guess_format(tmp_path) == "frames"
    found = {}
    for split in SPLITS:
        dataset = FrameFolders(tmp_path, split, PAIR)
        check_records(dataset)
        (sequence,) = dataset.sequences
        found[split] = [int(image[0, 0, 0]) for image in sequence.images(range(len(sequence)))]
    assert found == {"train": [*range(32)], "validation": [*range(32, 36)], "test": [*range(36, 40)]}


def test_one_sequence_to_train_on_beside_one_to_test_on(tmp_path):
    write(tmp_path / "train", 20)
    write(tmp_path / "test", 5)
    found = [len(FrameFolders(tmp_path, split).sequences[0]) for split in SPLITS]
    assert found == [18, 2, 5]


def test_what_is_no_sequence(tmp_path):
    write(tmp_path / "cats", 3, name="cat.{}.jpg")
    assert FrameFolders.looks_like(tmp_path)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "cats" / "cat.1.jpg")
    assert not FrameFolders.looks_like(tmp_path)  # photographs, of several sizes
    write(tmp_path / "other" / "a", 3, name="{}.png")
    (tmp_path / "other" / "a" / "1.png").rename(tmp_path / "other" / "a" / "7.png")
    assert not FrameFolders.looks_like(tmp_path / "other")  # numbers that leave gaps of several sizes


def test_damaged_frames(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / split / "a", 4)
    path = tmp_path / "test" / "a" / "1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    with pytest.raises(DataError, match=r"1\.png"):
        FrameFolders(tmp_path, "test", PAIR).record(0, {"target"})
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match=r"1\.png: 12 x 8 pixels"):
        FrameFolders(tmp_path, "test", PAIR).record(0, {"target"})


def test_missing_and_wrong(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        FrameFolders(tmp_path / "none")
    with pytest.raises(DataError, match="no frame"):
        FrameFolders(tmp_path)
    write(tmp_path / "a", 2)
    write(tmp_path / "b", 2)
    with pytest.raises(DataError, match="2 to divide among 3"):
        FrameFolders(tmp_path)
    with pytest.raises(ConfigError, match="frames_per_s"):
        FrameFolders(tmp_path, frames_per_s=0.0)
