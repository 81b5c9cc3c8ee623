import gzip
import pickle
import struct

import numpy as np
import pytest
import torch
from torchvision import datasets

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.small_images import CIFAR10, CIFAR100, MNIST, FashionMNIST
from transframer.errors import DataError
from transframer.task import Clip

from .contract import check_records

SPLITS = ("train", "validation", "test")


def write_idx(path, values):
    """As the format is specified: 0, 0, type 8, dimensions, big-endian sizes, values."""
    content = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(content)


def write_mnist(folder, suffix=""):
    folder.mkdir(parents=True)
    draws, parts = np.random.default_rng(0), {}
    for part, count in (("train", 30), ("t10k", 12)):
        images = draws.integers(0, 256, (count, 28, 28), np.uint8)
        labels = draws.integers(0, 10, count).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
        parts[part] = images, labels
    return parts


def write_cifar(folder, fine, monkeypatch):
    """The batches as the authors pickled them, in rows of 3072 bytes, red first; checksums are not asked."""
    folder.mkdir(parents=True)
    published = datasets.CIFAR100 if fine else datasets.CIFAR10
    count, draws, rows = (100 if fine else 10), np.random.default_rng(1), {}
    for name in (name for name, _ in [*published.train_list, *published.test_list]):
        data, labels = draws.integers(0, 256, (12, 3072), np.uint8), draws.integers(0, count, 12).tolist()
        labelled = {"fine_labels": labels, "coarse_labels": [0] * 12} if fine else {"labels": labels}
        (folder / name).write_bytes(pickle.dumps({"data": data, **labelled}))
        rows[name] = data, labels
    names = [f"class {number}" for number in range(count)]
    meta = {("fine_label_names" if fine else "label_names"): names}
    (folder / published.meta["filename"]).write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(published, "train_list", [[name, None] for name, _ in published.train_list])
    monkeypatch.setattr(published, "test_list", [[name, None] for name, _ in published.test_list])
    monkeypatch.setattr(published, "meta", published.meta | {"md5": None})
    return rows


def together(first, second):
    """All images and labels of two splits, sorted so that they compare with those written."""
    pairs = [
        (record["images"][0].numpy().tobytes(), record["label"])
        for dataset in (first, second)
        for record in (dataset.record(index, {"images", "label"}) for index in range(len(dataset)))
    ]
    return sorted(pairs)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("inside", ["MNIST/raw", "raw", "."])
def test_mnist_gives_what_was_written(tmp_path, suffix, inside):
    root = tmp_path / "digits"
    parts = write_mnist(root / inside, suffix)
    assert guess_format(root) == "mnist"
    train, validation, test = (open_dataset(root, split) for split in SPLITS)
    for dataset in (train, validation, test):
        check_records(dataset)
    assert (len(train), len(test)) == (30 - len(validation), 12)
    assert 1 <= len(validation) < 12
    images, labels = parts["train"]
    written = zip(images[:, None].repeat(3, 1), labels, strict=True)
    assert together(train, validation) == sorted((image.tobytes(), int(label)) for image, label in written)
    images, labels = parts["t10k"]
    for index in range(12):
        record = test.record(index, {"images", "label"})
        assert all(np.array_equal(channel, images[index]) for channel in record["images"][0])
        assert record["label"] == labels[index]


def test_mnist_agrees_with_torchvision(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    theirs = datasets.MNIST(tmp_path, train=False)
    ours = MNIST(tmp_path, "test")
    for index, (image, label) in enumerate(theirs):
        assert np.array_equal(ours.image(index)[0], np.asarray(image))
        assert ours.label_fields(index, {"label"}) == {"label": label}


def test_the_classes_are_those_of_the_format_that_the_user_names(tmp_path):
    write_mnist(tmp_path / "files", ".gz")
    digits = open_dataset(tmp_path / "files", "test", format="mnist")
    clothes = open_dataset(tmp_path / "files", "test", format="fashion_mnist")
    assert digits.classes["label"][9] == "9"
    assert clothes.classes["label"][9] == "ankle boot"
    theirs = [name.lower() for name in datasets.FashionMNIST.classes]
    assert [name.lower() for name in clothes.classes["label"]] == theirs
    assert torch.equal(digits.image(3), clothes.image(3))


def test_a_folder_called_fashion_is_not_taken_for_digits(tmp_path):
    for root in (tmp_path / "fashion-mnist", tmp_path / "data"):
        write_mnist(root if root.name == "fashion-mnist" else root / "FashionMNIST" / "raw")
        assert FashionMNIST.looks_like(root)
        assert not MNIST.looks_like(root)
    assert not MNIST.looks_like(tmp_path / "data" / "FashionMNIST" / "raw")


def test_the_image_is_the_target_where_the_clip_asks(tmp_path):
    write_mnist(tmp_path / "raw")
    dataset = MNIST(tmp_path, "test", Clip(target=(0,)))
    check_records(dataset)
    record = dataset.record(0, {"target"})
    assert torch.equal(record["target"], record["images"][0])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_idx_file_is_named(tmp_path, suffix):
    write_mnist(tmp_path / "raw", suffix)
    path = tmp_path / "raw" / f"train-images-idx3-ubyte{suffix}"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no idx file, but text", whole[:3]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="train-images"):
            MNIST(tmp_path)
    assert len(MNIST(tmp_path, "test")) == 12


def test_missing_files_and_labels_out_of_range_are_named(tmp_path):
    with pytest.raises(DataError, match="no idx files"):
        MNIST(tmp_path)
    write_mnist(tmp_path / "raw")
    labels = tmp_path / "raw" / "train-labels-idx1-ubyte"
    write_idx(labels, np.full(30, 10, np.uint8))
    with pytest.raises(DataError, match=r"train-labels.*label 10"):
        MNIST(tmp_path)
    write_idx(labels, np.zeros(29, np.uint8))
    with pytest.raises(DataError, match="30 images and 29 labels"):
        MNIST(tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="train-labels"):
        MNIST(tmp_path)


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("itself", [False, True])
def test_cifar_gives_what_was_written(tmp_path, monkeypatch, fine, itself):
    folder = tmp_path / ("cifar-100-python" if fine else "cifar-10-batches-py")
    rows = write_cifar(folder, fine, monkeypatch)
    root = folder if itself else tmp_path
    assert guess_format(root) == ("cifar100" if fine else "cifar10")
    train, validation, test = (open_dataset(root, split) for split in SPLITS)
    for dataset in (train, validation, test):
        check_records(dataset)
        assert dataset.classes["label"][-1] == f"class {99 if fine else 9}"
    test_name = "test" if fine else "test_batch"
    written = [
        (image.tobytes(), label)
        for name, batch in rows.items()
        if name != test_name
        for image, label in zip(*batch, strict=True)
    ]
    assert together(train, validation) == sorted(written)
    data, labels = rows[test_name]
    assert len(test) == 12
    for index in range(12):
        assert np.array_equal(test.image(index).flatten(), data[index])
        assert test.label_fields(index, {"label"})["label"] == labels[index]
    names = {"train"} if fine else {f"data_batch_{number}" for number in range(1, 6)}
    assert {file.name for file in train.files(0)} == names
    assert [file.name for file in test.files(0)] == [test_name]


def test_a_cifar_file_that_is_not_the_published_one_is_not_unpickled(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        CIFAR10(tmp_path)
    folder = tmp_path / "cifar-100-python"
    md5 = datasets.CIFAR100.test_list[0][1]
    write_cifar(folder, True, monkeypatch)
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", md5]])

    class Evil:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    (folder / "test").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=r"cifar-100-python/test: .*checksum"):
        CIFAR100(tmp_path, "test")
    assert not (tmp_path / "ran").exists()


def test_it_survives_pickling(tmp_path):
    write_mnist(tmp_path / "raw")
    dataset = MNIST(tmp_path, "validation")
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.image(0), dataset.image(0))
    assert copy.label_fields(0, {"label"}) == dataset.label_fields(0, {"label"})
