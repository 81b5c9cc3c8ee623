import pickle
import struct

import numpy as np
import pytest

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.bair import BAIR
from transframer.errors import DataError
from transframer.registry import get_task

from .contract import check_records

CRC_TABLE = []
for byte in range(256):
    value = byte
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    CRC_TABLE.append(value)


def masked(data):
    crc = 0xFFFFFFFF
    for value in data:
        crc = CRC_TABLE[(crc ^ value) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def message(*fields):
    return b"".join(varint(number << 3 | 2) + varint(len(data)) + data for number, data in fields)


def frame(seed, number):
    """Flat colours and one pixel that says where rows and columns are."""
    image = np.full((64, 64, 3), (seed * 7 % 256, number * 8, 50), np.uint8)
    image[3, 10] = (255, 0, 1)
    return image


def trajectory(seed, frames=30):
    features = []
    for number in range(frames):
        image = frame(seed, number).tobytes()
        for name, data in (
            (f"{number}/image_aux1/encoded", image),
            (f"{number}/image_main/encoded", b"other"),
        ):
            features.append((1, message((1, name.encode()), (2, message((1, message((1, data))))))))
        action = struct.pack("<4f", 0, 1, 2, 3)
        features.append(
            (1, message((1, f"{number}/action".encode()), (2, message((2, message((1, action)))))))
        )
    return message((1, message(*features)))


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for data in records:
            length = struct.pack("<Q", len(data))
            file.write(length + masked(length) + data + masked(data))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("bair")
    folder = root / "softmotion30_44k"
    write(folder / "train" / "traj_0_to_1.tfrecords", [trajectory(0), trajectory(1)])
    write(folder / "train" / "traj_2_to_2.tfrecords", [trajectory(2)])
    write(folder / "test" / "traj_0_to_0.tfrecords", [trajectory(9)])
    return root


def seeds_of(dataset):
    return [int(sequence.images([0])[0, 0, 0, 0]) // 7 for sequence in dataset.sequences]


def test_splits_and_records(root):
    assert guess_format(root) == guess_format(root / "softmotion30_44k") == "bair"
    seeds = {}
    for split in ("train", "validation", "test"):
        dataset = open_dataset(root, split, get_task("video_prediction"))
        check_records(dataset)
        seeds[split] = seeds_of(pickle.loads(pickle.dumps(dataset)))
    assert seeds["test"] == [9]
    assert sorted(seeds["train"] + seeds["validation"]) == [0, 1, 2]
    assert len(seeds["validation"]) == 1


def test_frames_by_number(root):
    (sequence,) = BAIR(root, "test").sequences
    assert len(sequence) == 30
    for image, number in zip(sequence.images([29, 0, 7]), (29, 0, 7), strict=True):
        assert np.array_equal(image.permute(1, 2, 0), frame(9, number))


def test_damaged(tmp_path):
    path = tmp_path / "test" / "traj.tfrecords"
    write(path, [trajectory(3, frames=12)])
    dataset = BAIR(tmp_path, "test")
    assert len(dataset.sequences[0].images([11])) == 1
    with pytest.raises(DataError, match=r"traj\.tfrecords: 12/image_aux1/encoded"):
        dataset.sequences[0].images([12])
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(DataError, match=r"traj\.tfrecords"):
        len(BAIR(tmp_path, "test"))
    path.write_bytes(content[:5000] + b"?" + content[5001:])
    with pytest.raises(DataError, match=r"traj\.tfrecords: record 0 has a wrong checksum"):
        BAIR(tmp_path, "test").record(0, {"images"})


def test_missing_folder(root):
    with pytest.raises(DataError, match=r"no \*\.tfrecords"):
        BAIR(root / "softmotion30_44k" / "train")
    assert not BAIR.looks_like(root / "softmotion30_44k" / "train")
