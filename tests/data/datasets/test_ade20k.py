import pickle

import numpy as np
import pytest
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.ade20k import ADE20K
from transframer.errors import DataError

from .contract import check_records


def write_part(base, part, count):
    """Colour JPEGs, a grey one, and a PNG of numbers 0 to 150 for each; returns the numbers by stem."""
    prefix = {"training": "ADE_train", "validation": "ADE_val"}[part]
    (base / "images" / part).mkdir(parents=True)
    (base / "annotations" / part).mkdir(parents=True)
    numbers = {}
    for index in range(1, count + 1):
        draws = np.random.default_rng(index)
        size = (12 + index % 4, 20 + index % 3)
        pixels = draws.integers(0, 256, size if index == 2 else (*size, 3), np.uint8)
        stem = f"{prefix}_{index:08}"
        numbers[stem] = draws.integers(0, 151, size, np.uint8)
        Image.fromarray(pixels).save(base / "images" / part / f"{stem}.jpg")
        Image.fromarray(numbers[stem]).save(base / "annotations" / part / f"{stem}.png")
    return numbers


@pytest.fixture
def base(tmp_path):
    base = tmp_path / "ADEChallengeData2016"
    write_part(base, "training", 22)
    write_part(base, "validation", 4)
    return base


@pytest.mark.parametrize("above", [False, True])
def test_splits_keep_the_contract_and_share_nothing(base, above):
    root = base.parent if above else base
    assert guess_format(root) == "ade20k"
    stems = {}
    for split in ("train", "validation", "test"):
        dataset = open_dataset(root, split)
        check_records(dataset)
        stems[split] = [dataset.files(index)[0].stem for index in range(len(dataset))]
        assert all(dataset.files(index)[1].stem == stem for index, stem in enumerate(stems[split]))
    assert stems["test"] == [f"ADE_val_{index:08}" for index in range(1, 5)]
    training = [f"ADE_train_{index:08}" for index in range(1, 23)]
    assert sorted(stems["train"] + stems["validation"]) == training
    assert len(stems["validation"]) >= 1


def test_number_0_is_not_labelled_and_150_is_the_last_class(tmp_path):
    numbers = write_part(tmp_path, "validation", 3)
    dataset = ADE20K(tmp_path, "test")
    for index in range(3):
        drawn = numbers[dataset.files(index)[0].stem].astype(int)
        mask = dataset.record(index, {"mask"})["mask"].numpy()
        assert np.array_equal(mask == 255, drawn == 0)
        assert np.array_equal((mask + 1)[drawn > 0], drawn[drawn > 0])
    image = dataset.record(1, ())["images"][0]
    assert (image[0] == image[2]).all(), "the grey one"


def test_labels_of_an_image_that_its_exif_tag_turns_have_its_upright_size(tmp_path):
    numbers = write_part(tmp_path, "validation", 1)["ADE_val_00000001"]
    path = tmp_path / "images" / "validation" / "ADE_val_00000001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", numbers.shape).save(path, exif=exif)
    record = ADE20K(tmp_path, "test").record(0, {"mask"})
    assert record["images"].shape[2:] == record["mask"].shape == numbers.shape


def test_names_are_known_and_read_from_the_file_where_it_is_there(base):
    names = ADE20K(base, "test").classes["mask"]
    assert len(set(names)) == 150
    assert (names[0], names[12], names[20], names[65], names[149]) == (
        "wall",
        "person",
        "car",
        "toilet",
        "flag",
    )
    rows = [f"{number}\t0.1\t9\t8\tname {number}, other {number}" for number in range(1, 151)]
    path = base / "objectInfo150.txt"
    path.write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]) + "\n")
    names = ADE20K(base, "test").classes["mask"]
    assert names == tuple(f"name {number}" for number in range(1, 151))
    path.write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows[:70]]) + "\n")
    with pytest.raises(DataError, match=r"objectInfo150\.txt: no row of class '71'"):
        ADE20K(base, "test")


def test_damage_is_named(tmp_path):
    write_part(tmp_path, "validation", 5)
    first, second, third, fourth = (
        tmp_path / "annotations" / "validation" / f"ADE_val_{index:08}.png" for index in (1, 2, 3, 4)
    )
    first.write_bytes(first.read_bytes()[:80])
    Image.fromarray(np.full((14, 22), 151, np.uint8)).save(second)
    Image.fromarray(np.zeros((9, 20), np.uint8)).save(third)
    Image.new("RGB", (21, 12)).save(fourth)
    image = tmp_path / "images" / "validation" / "ADE_val_00000005.jpg"
    image.write_bytes(b"no image")
    dataset = pickle.loads(pickle.dumps(ADE20K(tmp_path, "test")))
    messages = [
        r"ADE_val_00000001\.png: cannot be read",
        r"ADE_val_00000002\.png: the number 151, which stands for no class",
        r"ADE_val_00000003\.png: labels of 20 x 9 pixels\nexpected 20 x 15",
        r"ADE_val_00000004\.png: an image of mode RGB",
        r"ADE_val_00000005\.jpg: not an image",
    ]
    for index, message in enumerate(messages):
        with pytest.raises(DataError, match=message):
            dataset.record(index, {"mask"})


def test_wrong_layouts_are_named(tmp_path, base):
    with pytest.raises(DataError, match="not the folder of ADEChallengeData2016"):
        ADE20K(tmp_path / "nowhere")
    (base / "annotations" / "training" / "ADE_train_00000007.png").unlink()
    with pytest.raises(DataError, match=r"ADE_train_00000007\.png: 1 of 22 images have no mask"):
        ADE20K(base)
    for path in (base / "images" / "validation").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="images/validation: no image"):
        ADE20K(base, "test")
    (base / "images" / "validation").rmdir()
    with pytest.raises(DataError, match="images/validation: no such folder"):
        ADE20K(base, "test")
