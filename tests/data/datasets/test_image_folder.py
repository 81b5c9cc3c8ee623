import json
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from transframer.data.catalog import guess_format
from transframer.data.datasets.image_folder import ImageFolder
from transframer.errors import DataError

from .contract import check_records

SPLITS = ("train", "validation", "test")
COLOURS = {"apple": (200, 30, 30), "banana": (230, 220, 40), "cherry": (90, 0, 20)}


def write_class(folder, count, name, suffix=".png"):
    """Images of the class's own colour, each of another size, none square."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((6 + number % 5, 20 + number % 3, 3), COLOURS[name], np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}_{number}{suffix}")


def names_of(dataset):
    return {dataset.files(index)[0].relative_to(dataset.root).as_posix() for index in range(len(dataset))}


def check_labels(dataset):
    """The label is the class of the folder, and the image has its colour."""
    for index in range(len(dataset)):
        record = dataset.record(index, {"images", "label"})
        name = dataset.classes["label"][record["label"]]
        assert dataset.files(index)[0].parent.name == name
        assert (record["images"].float().mean((0, 2, 3)) - np.array(COLOURS[name])).abs().max() < 3


def test_one_folder_is_cut_into_three(tmp_path):
    for name in COLOURS:
        write_class(tmp_path / name, 40, name)
    (tmp_path / "apple" / "notes.txt").write_text("no image")
    for name in (".cache", "__MACOSX"):
        (tmp_path / name).mkdir()
    (tmp_path / "apple" / "._apple_0.png").write_bytes(b"resource fork")
    write_class(tmp_path / "apple" / ".thumbnails", 1, "apple")
    assert guess_format(tmp_path) == "image_folder"
    parts = [ImageFolder(tmp_path, split) for split in SPLITS]
    for part in parts:
        check_records(part)
        check_labels(part)
        assert part.classes["label"] == ("apple", "banana", "cherry")
    train, validation, test = (names_of(part) for part in parts)
    assert len(train) + len(validation) + len(test) == 120 == len(train | validation | test)
    assert 4 <= len(test) <= 24
    assert 4 <= len(validation) <= 24
    write_class(tmp_path / "damson", 60, "apple")
    for part, names in zip(
        (ImageFolder(tmp_path, split) for split in SPLITS), (train, validation, test), strict=True
    ):
        assert names <= names_of(part), "an image that moved when another was added"


def test_only_a_train_folder_is_cut_into_three(tmp_path):
    for name in COLOURS:
        write_class(tmp_path / "train" / name, 8, name)
    parts = [names_of(ImageFolder(tmp_path, split)) for split in SPLITS]
    assert sum(map(len, parts)) == 24 == len(set.union(*parts))
    assert all(parts)


@pytest.mark.parametrize("held_out", ["val", "validation", "valid"])
def test_without_a_test_folder_val_is_test(tmp_path, held_out):
    for name in COLOURS:
        write_class(tmp_path / "train" / name, 10, name, ".JPEG")
    write_class(tmp_path / held_out / "banana" / "deeper", 3, "banana")
    (tmp_path / "test").mkdir()  # images without classes, as ImageNet's
    write_class(tmp_path / "test", 2, "apple")
    train, validation, test = (ImageFolder(tmp_path, split) for split in SPLITS)
    for dataset in (train, validation, test):
        check_records(dataset)
    assert len(test) == 3
    assert {test.record(index, {"label"})["label"] for index in range(3)} == {1}
    assert names_of(test) == {f"{held_out}/banana/deeper/banana_{number}.png" for number in range(3)}
    theirs = {f"train/{name}/{name}_{number}.JPEG" for name in COLOURS for number in range(10)}
    assert names_of(train) | names_of(validation) == theirs
    assert not names_of(train) & names_of(validation)
    assert len(validation) >= 1


def test_with_both_test_is_test_and_agrees_with_torchvision(tmp_path):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        for name in COLOURS:
            write_class(tmp_path / part / name, count, name)
    assert guess_format(tmp_path) == "image_folder"
    test = ImageFolder(tmp_path, "test")
    check_records(test)
    theirs = datasets.ImageFolder(tmp_path / "test")
    assert tuple(theirs.classes) == test.classes["label"]
    assert [
        (str(test.files(index)[0]), test.record(index, {"label"})["label"]) for index in range(len(test))
    ] == theirs.samples
    assert not any(
        name.startswith("val/") for split in SPLITS for name in names_of(ImageFolder(tmp_path, split))
    )


def test_only_the_held_out_folder_serves_test(tmp_path):
    for name in COLOURS:
        write_class(tmp_path / "val" / name, 2, name)
    check_labels(ImageFolder(tmp_path, "test"))
    with pytest.raises(DataError, match="no train folder"):
        ImageFolder(tmp_path, "validation")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("LOC_synset_mapping.txt", "n01 crane\nn02 tench, Tinca tinca\nn03 crane\nn09 other\n"),
        (
            "imagenet_class_index.json",
            json.dumps({"0": ["n01", "crane"], "1": ["n02", "tench, Tinca tinca"], "2": ["n03", "crane"]}),
        ),
        ("Labels.json", json.dumps({"n01": "crane", "n02": "tench, Tinca tinca", "n03": "crane"})),
    ],
)
def test_imagenet_folders_get_the_names_of_a_file(tmp_path, file, content):
    for wnid in ("n01", "n02", "n03"):
        write_class(tmp_path / "train" / wnid, 4, "apple")
    assert ImageFolder(tmp_path).classes["label"] == ("n01", "n02", "n03")
    (tmp_path / file).write_text(content)
    assert ImageFolder(tmp_path).classes["label"] == ("crane (n01)", "tench, Tinca tinca", "crane (n03)")
    if file.endswith(".json"):
        (tmp_path / file).write_text("[1, 2")
        with pytest.raises(DataError, match="names of classes"):
            ImageFolder(tmp_path)


def test_wrong_layouts_are_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no class folders"):
        ImageFolder(tmp_path)
    (tmp_path / "apple").mkdir()
    (tmp_path / "banana").mkdir()
    assert not ImageFolder.looks_like(tmp_path)
    with pytest.raises(DataError, match="no image"):
        ImageFolder(tmp_path)
    write_class(tmp_path / "data" / "train" / "apple", 4, "apple")
    write_class(tmp_path / "data" / "val" / "cherry", 4, "cherry")
    with pytest.raises(DataError, match="'cherry'"):
        ImageFolder(tmp_path / "data", "test")


def test_a_damaged_image_is_named_and_the_dataset_survives_pickling(tmp_path):
    for name in COLOURS:
        write_class(tmp_path / "train" / name, 2, name)
        write_class(tmp_path / "test" / name, 2, name)
    path = tmp_path / "test" / "banana" / "banana_1.png"
    path.write_bytes(path.read_bytes()[:40])
    dataset = pickle.loads(pickle.dumps(ImageFolder(tmp_path, "test")))
    index = [file.name for number in range(6) for file in dataset.files(number)].index("banana_1.png")
    with pytest.raises(DataError, match=r"banana_1\.png"):
        dataset.record(index, {"images"})
    assert dataset.record(index - 1, {"label"})["label"] == 1
