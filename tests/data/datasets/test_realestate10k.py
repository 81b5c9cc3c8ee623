import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.realestate10k import RealEstate10K
from transframer.errors import DataError
from transframer.task import Clip

from .contract import check_records

VIEW = Clip(frames=3, context=((0,), (0, 1)), target=(2,), step_s=0.01)
SIZE = (18, 32)
START, STEP = 52_553_000, 33_367  # microseconds, as of a video of 29.97 frames a second


def camera_from_world(frame):
    """A turn about the y axis and a move, as a 3 x 4 matrix."""
    angle = 0.1 * frame
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return np.concatenate([turn, [[0.2 * frame], [0.1], [-0.3 * frame]]], axis=1)


def stamp_of(frame):
    return START + STEP * frame


def write_clip(root, part, name, frames=7, missing=(), place="frames", suffix=".png"):
    (root / part).mkdir(parents=True, exist_ok=True)
    lines = ["https://www.youtube.com/watch?v=abcdefghijk"]
    folder = root / "frames" / part / name if place == "frames" else root / part / name
    for frame in range(frames):
        pose = " ".join(f"{value:.9f}" for value in camera_from_world(frame).ravel())
        lines.append(f"{stamp_of(frame)} 0.474812461 0.844111024 0.500000000 0.500000000 0.0 0.0 {pose}")
        if frame not in missing:
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(frame).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{stamp_of(frame)}{suffix}")
    (root / part / f"{name}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path):
    for place in range(5):
        write_clip(tmp_path, "train", f"000c3ab189999a8{place}")
    write_clip(tmp_path, "test", "000db54a47bd43fe")
    write_clip(tmp_path, "test", "00c5a6cc3ec6e6a8", missing=(1, 4))
    write_clip(tmp_path, "test", "nothing_left", missing=range(7))
    return tmp_path


def clips(dataset):
    return {dataset.files(index)[0].parent.name for index in range(len(dataset))}


@pytest.mark.parametrize("clip", [Clip(), VIEW])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_records_keep_the_contract(root, split, clip):
    check_records(RealEstate10K(root, split, clip))


def test_cameras_by_hand(root):
    dataset = RealEstate10K(root, "test", VIEW)
    record = dataset.record(1, dataset.fields)
    for frame, camera in enumerate([*record["cameras"], record["query_camera"]]):
        # fx = 0.474812461 x 32, fy = 0.844111024 x 18
        expected = torch.tensor([[15.19399875, 0, 16], [0, 15.19399843, 9], [0, 0, 1]])
        torch.testing.assert_close(camera.intrinsics, expected)
        inverse = np.linalg.inv(np.concatenate([camera_from_world(frame), [[0, 0, 0, 1]]]))
        torch.testing.assert_close(camera.world_from_camera, torch.from_numpy(inverse).float())


def test_frames_follow_their_time_stamps(root):
    dataset = RealEstate10K(root, "test", VIEW)
    record = dataset.record(1, dataset.fields)
    assert record["times"].tolist() == pytest.approx([52.553, 52.586367])
    assert record["query_time"] == pytest.approx(52.619734)
    pixels = np.random.default_rng(2).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    assert np.array_equal(record["target"].permute(1, 2, 0).numpy(), pixels)


def test_missing_frames_are_left_out_with_their_times(root):
    dataset = RealEstate10K(root, "test", Clip(frames=5, context=((0, 1, 2, 3, 4),), step_s=0.01))
    assert clips(dataset) == {"000db54a47bd43fe", "00c5a6cc3ec6e6a8"}
    record = dataset.record(1, dataset.fields)
    expected = [stamp_of(frame) / 1e6 for frame in (0, 2, 3, 5, 6)]
    assert record["times"].tolist() == pytest.approx(expected)
    moves = [torch.linalg.inv(camera.world_from_camera)[0, 3].item() for camera in record["cameras"]]
    assert moves == pytest.approx([0.2 * frame for frame in (0, 2, 3, 5, 6)], abs=1e-5)


def test_the_clips_time_step_is_kept(root):
    """0.1 s are three frames at 29.97 a second."""
    dataset = RealEstate10K(root, "test", Clip(frames=3, context=((0, 1),), target=(2,), step_s=0.1))
    stamps = [int(file.stem) for file in dataset.files(0)]
    assert stamps == [stamp_of(0), stamp_of(3), stamp_of(6)]


def test_clips_stay_together(root):
    train, validation = (clips(RealEstate10K(root, split)) for split in ("train", "validation"))
    assert train | validation == {f"000c3ab189999a8{place}" for place in range(5)}
    assert train.isdisjoint(validation)


@pytest.mark.parametrize(("place", "suffix"), [("beside", ".png"), ("frames", ".jpg")])
def test_frames_may_lie_beside_and_be_jpeg(tmp_path, place, suffix):
    for number in range(2):
        write_clip(tmp_path, "test", f"clip{number}", place=place, suffix=suffix)
    dataset = RealEstate10K(tmp_path, "test", VIEW)
    check_records(dataset)
    assert clips(dataset) == {"clip0", "clip1"}


def test_looks_and_pickle(root):
    assert guess_format(root) == "realestate10k"
    assert not RealEstate10K.looks_like(root / "frames")
    dataset = open_dataset(root, "test")
    dataset.record(0, {"cameras"})
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.record(1, {"times"})["times"], dataset.record(1, {"times"})["times"])


def test_other_text_is_not_taken_for_clips(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("a\nb c\n")
    assert not RealEstate10K.looks_like(tmp_path)


def test_without_any_frames_the_error_counts_the_clips(root):
    shutil.rmtree(root / "frames" / "test")
    with pytest.raises(DataError, match="3 clips"):
        RealEstate10K(root, "test")


def test_damaged_files_are_named(root):
    dataset = RealEstate10K(root, "test")
    image = dataset.files(0)[0]
    table = root / "test" / f"{image.parent.name}.txt"
    lines = table.read_text().splitlines()
    words = lines[1].split()
    for wrong in ([], words[:-1], [words[0], "-1", *words[2:]], [*words[:7], "3", *words[8:]]):
        table.write_text("\n".join([lines[0], " ".join(wrong), *lines[2:]]))
        with pytest.raises(DataError, match=rf"{table.name}: {stamp_of(0)}"):
            RealEstate10K(root, "test").record(0, {"cameras"})
    table.write_bytes(b"\xff\xfe\x00")
    assert set(dataset.record(0, {"images"})) == {"images"}, "needs no camera"
    with pytest.raises(DataError, match=table.name):
        RealEstate10K(root, "test").record(0, {"cameras"})
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match=image.name):
        dataset.record(0, {"images"})


def test_missing_folders_are_named(root, tmp_path):
    shutil.rmtree(root / "test")
    with pytest.raises(DataError, match="test"):
        RealEstate10K(root, "test")
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="no clips"):
        RealEstate10K(tmp_path, "test")
