import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes as Published

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.cityscapes import Cityscapes
from transframer.errors import DataError

from .contract import check_records

# The table of the benchmark, as torchvision carries it.
PUBLISHED = {entry.id: entry for entry in Published.classes if entry.id >= 0}
JUDGED = [entry for entry in PUBLISHED.values() if entry.train_id < 255]
assert [entry.train_id for entry in JUDGED] == list(range(19))
THINGS = [entry.id for entry in JUDGED if entry.has_instances]


def write_city(root, part, city, count, instances=True):
    """Label ids, and instance ids: id * 1000 + number, or the id alone of a group."""
    drawn = {}
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / part / city).mkdir(parents=True)
    for number in range(count):
        draws = np.random.default_rng([number, *city.encode()])
        size = (10 + number % 3, 24)
        labels = draws.integers(0, 34, size)
        counted = np.isin(labels, [entry.id for entry in PUBLISHED.values() if entry.has_instances])
        objects = np.where(
            counted & draws.integers(0, 2, size).astype(bool),
            labels * 1000 + draws.integers(0, 3, size),
            labels,
        )
        stem = f"{city}_{number:06}_000019"
        pixels = draws.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png")
        target = root / "gtFine" / part / city
        Image.fromarray(labels.astype(np.uint8)).save(target / f"{stem}_gtFine_labelIds.png")
        if instances:
            Image.fromarray(objects.astype(np.uint16)).save(target / f"{stem}_gtFine_instanceIds.png")
        drawn[stem] = labels, objects
    return drawn


def city_of(dataset, index):
    return dataset.files(index)[0].parent.name


def test_splits_keep_the_contract_and_part_cities(tmp_path):
    for city in ("aachen", "bochum", "bremen", "cologne"):
        write_city(tmp_path, "train", city, 3)
    write_city(tmp_path, "val", "frankfurt", 2)
    assert guess_format(tmp_path) == "cityscapes"
    cities = {}
    for split in ("train", "validation", "test"):
        dataset = open_dataset(tmp_path, split)
        check_records(dataset)
        cities[split] = [city_of(dataset, index) for index in range(len(dataset))]
    assert set(cities["test"]) == {"frankfurt"}
    assert not set(cities["train"]) & set(cities["validation"])
    assert len(cities["train"] + cities["validation"]) == 12
    assert len(set(cities["validation"])) == 1


def test_a_single_city_is_parted_by_images(tmp_path):
    write_city(tmp_path, "train", "aachen", 5)
    train, validation = (Cityscapes(tmp_path, split) for split in ("train", "validation"))
    names = [dataset.files(index)[0] for dataset in (train, validation) for index in range(len(dataset))]
    assert len(set(names)) == 5
    assert len(validation) == 1


def test_masks_have_the_training_ids_of_the_benchmark(tmp_path):
    drawn = write_city(tmp_path, "val", "lindau", 4)
    dataset = Cityscapes(tmp_path, "test")
    assert dataset.classes["mask"] == tuple(entry.name for entry in JUDGED)
    for index in range(4):
        labels, _ = drawn[dataset.files(index)[0].name.removesuffix("_leftImg8bit.png")]
        mask = dataset.record(index, {"mask"})["mask"].numpy()
        assert np.array_equal(mask, np.vectorize(lambda label: PUBLISHED[label].train_id)(labels))


def test_instances_are_the_counted_objects_of_the_eight_classes(tmp_path):
    drawn = write_city(tmp_path, "val", "lindau", 4)
    dataset = Cityscapes(tmp_path, "test")
    assert dataset.classes["instance_labels"] == tuple(PUBLISHED[label].name for label in THINGS)
    for index in range(4):
        _, objects = drawn[dataset.files(index)[0].name.removesuffix("_leftImg8bit.png")]
        record = dataset.record(index, {"instances", "instance_labels"})
        assert set(record) == {"images", "instances", "instance_labels"}
        instances, labels = record["instances"].numpy(), record["instance_labels"]
        expected = [value for value in np.unique(objects) if value >= 1000 and value // 1000 in THINGS]
        assert len(labels) == len(expected) > 0
        for number, value in enumerate(expected, 1):
            assert np.array_equal(instances == number, objects == value)
            assert THINGS[labels[number - 1]] == value // 1000
        assert np.array_equal(instances == 0, ~np.isin(objects, expected))


def test_instances_are_a_field_only_where_all_their_files_are_there(tmp_path):
    write_city(tmp_path, "val", "lindau", 2, instances=False)
    dataset = Cityscapes(tmp_path, "test")
    check_records(dataset)
    assert dataset.fields == {"images", "mask"}
    assert set(dataset.classes) == {"mask"}
    write_city(tmp_path, "val", "munster", 2)
    assert Cityscapes(tmp_path, "test").fields == {"images", "mask"}


def test_damage_is_named(tmp_path):
    write_city(tmp_path, "val", "lindau", 3)
    folder = tmp_path / "gtFine" / "val" / "lindau"
    labels = folder / "lindau_000000_000019_gtFine_labelIds.png"
    labels.write_bytes(labels.read_bytes()[:90])
    Image.new("I;16", (23, 11)).save(folder / "lindau_000001_000019_gtFine_instanceIds.png")
    dataset = pickle.loads(pickle.dumps(Cityscapes(tmp_path, "test")))
    with pytest.raises(DataError, match=r"lindau_000000_000019_gtFine_labelIds\.png: cannot be read"):
        dataset.record(0, {"mask"})
    assert "instances" in dataset.record(0, {"instances"}), "a file that is not asked for is not read"
    with pytest.raises(DataError, match=r"lindau_000001_.*instanceIds\.png: labels of 23 x 11"):
        dataset.record(1, {"instances"})
    assert "mask" in dataset.record(1, {"mask"})
    (folder / "lindau_000002_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match=r"lindau_000002_000019_gtFine_labelIds\.png: no such file"):
        Cityscapes(tmp_path, "test")


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="leftImg8bit/train: no such folder"):
        Cityscapes(tmp_path)
    (tmp_path / "leftImg8bit" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="gtFine/train: no such folder"):
        Cityscapes(tmp_path)
    (tmp_path / "gtFine" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="leftImg8bit/train: no image"):
        Cityscapes(tmp_path)
