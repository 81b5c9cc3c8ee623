import pickle

import numpy as np
import pytest
import torch

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.moving_mnist import MovingMNIST
from transframer.errors import DataError
from transframer.registry import get_task
from transframer.task import Clip

from .contract import check_records


def frames(sequences):
    """20 x N x 64 x 64; a row and a column tell the sequence and the frame."""
    values = np.zeros((20, sequences, 64, 64), np.uint8)
    values[:, :, 0, :] = np.arange(sequences)[None, :, None]
    values[:, :, 1, :] = np.arange(20)[:, None, None]
    values[:, :, 2:, 5] = 200
    return values


def ids_of(dataset):
    return [int(sequence.images([0])[0, 0, 0, 0]) for sequence in dataset.sequences]


def test_the_published_file_is_a_test_set(tmp_path):
    np.save(tmp_path / "mnist_test_seq.npy", frames(7))
    assert guess_format(tmp_path) == guess_format(tmp_path / "mnist_test_seq.npy") == "moving_mnist"
    dataset = open_dataset(tmp_path, "test", get_task("video_prediction"))
    check_records(dataset)
    assert ids_of(dataset) == [*range(7)]
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"moving_mnist_train\.npy"):
            MovingMNIST(tmp_path, split)


def test_a_file_to_train_on(tmp_path):
    np.save(tmp_path / "mnist_test_seq.npy", frames(3))
    np.save(tmp_path / "moving_mnist_train.npy", frames(50))
    parts = [
        MovingMNIST(tmp_path, split, get_task("video_prediction").clip) for split in ("train", "validation")
    ]
    for part in parts:
        check_records(part)
    assert sorted(ids_of(parts[0]) + ids_of(parts[1])) == [*range(50)]
    assert 0 < len(ids_of(parts[1])) < 25


def test_records_hold_the_frames_of_the_clip(tmp_path):
    np.save(tmp_path / "mnist_test_seq.npy", frames(4))
    clip = Clip(frames=20, context=(tuple(range(10)),), target=tuple(range(10, 20)))
    dataset = MovingMNIST(tmp_path, "test", clip)
    assert len(dataset) == 4 * 10
    record = dataset.record(23, dataset.fields)
    assert record["images"].shape == (10, 3, 64, 64)
    assert record["images"][:, 1, 0, 9].tolist() == [2] * 10
    assert record["images"][:, 2, 1, 0].tolist() == [*range(10)]
    assert record["target"][0, 1, 0] == 13
    assert record["query_time"] == pytest.approx(1.3)
    assert record["target"][0, 9, 5] == 200
    assert record["target"][0, 5, 9] == 0


@pytest.mark.parametrize("order", ["20 N", "N 20"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_orders_and_suffixes(tmp_path, order, suffix):
    values = frames(6)
    stored = values if order == "20 N" else values.transpose(1, 0, 2, 3)
    (np.save if suffix == "npy" else np.savez)(tmp_path / f"mnist_test_seq.{suffix}", stored)
    dataset = MovingMNIST(tmp_path, "test")
    assert ids_of(dataset) == [*range(6)]
    found = dataset.sequences[4].images([19, 3])[:, 0].numpy()
    assert np.array_equal(found, values[[19, 3], 4])


def test_twenty_sequences_are_taken_in_the_published_order(tmp_path):
    np.save(tmp_path / "mnist_test_seq.npy", frames(20))
    assert ids_of(MovingMNIST(tmp_path, "test")) == [*range(20)]


def test_torchvision_puts_it_into_a_folder(tmp_path):
    (tmp_path / "MovingMNIST").mkdir()
    np.save(tmp_path / "MovingMNIST" / "mnist_test_seq.npy", frames(2))
    assert guess_format(tmp_path) == "moving_mnist"
    torchvision_data = pytest.importorskip("torchvision.datasets")
    expected = torchvision_data.MovingMNIST(str(tmp_path), split=None)
    dataset = MovingMNIST(tmp_path, "test")
    for number in range(2):
        found = dataset.sequences[number].images(range(20))
        assert torch.equal(found[:, :1], expected[number])


def test_pickled_without_its_values(tmp_path):
    np.save(tmp_path / "mnist_test_seq.npy", frames(30))
    dataset = MovingMNIST(tmp_path, "test")
    dataset.record(3, {"images"})
    content = pickle.dumps(dataset)
    assert len(content) < 30 * 20 * 64 * 64 / 10
    again = pickle.loads(content)
    assert torch.equal(again.record(3, {"images"})["images"], dataset.record(3, {"images"})["images"])


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.zeros((19, 5, 64, 64), np.uint8), "20 frames"),
        (np.zeros((20, 5, 64, 64), np.float32), "float32"),
        (np.zeros((20, 5, 32, 32), np.uint8), "20 x 5 x 32 x 32"),
        (np.zeros((20, 5), np.uint8), "20 x 5"),
    ],
)
def test_of_another_form(tmp_path, values, word):
    np.save(tmp_path / "mnist_test_seq.npy", values)
    with pytest.raises(DataError, match=rf"(?s)mnist_test_seq\.npy.*{word}"):
        MovingMNIST(tmp_path, "test")


def test_truncated_and_missing(tmp_path):
    for suffix, save in (("npy", np.save), ("npz", np.savez)):
        path = tmp_path / suffix / f"mnist_test_seq.{suffix}"
        path.parent.mkdir()
        save(path, frames(2))
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(DataError, match=rf"mnist_test_seq\.{suffix}"):
            MovingMNIST(path.parent, "test")
    with pytest.raises(DataError, match=r"mnist_test_seq\.npy"):
        MovingMNIST(tmp_path / "none", "test")
    assert not MovingMNIST.looks_like(tmp_path)
