import pickle
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.videos import Videos
from transframer.data.formats.video import write_video
from transframer.errors import DataError
from transframer.registry import get_task
from transframer.task import Clip

from .contract import check_records

SPLITS = ("train", "validation", "test")
PAIR = Clip(frames=2, context=((0,),), target=(1,), step_s=0.1)


def write(path, seed=0, frames=6, frames_per_s=10.0):
    """A video whose blue is 40 * its seed and whose red rises by 40 a frame; no two are of one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = torch.zeros(frames, 3, 32 + 2 * (seed % 3), 48, dtype=torch.uint8)
    images[:, 2] = seed * 40 % 256
    images[:, 0] = (torch.arange(frames) * 40)[:, None, None]
    if path.suffix == ".mp4":
        write_video(path, images, frames_per_s)
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(frames_per_s))
        stream.height, stream.width = images.shape[2:]
        stream.pix_fmt = "yuv420p"
        for image in images.permute(0, 2, 3, 1).numpy():
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def names_of(dataset):
    files = {file for index in range(len(dataset)) for file in dataset.files(index)}
    return {file.relative_to(dataset.root).as_posix() for file in files}


def splits_of(root, clip=PAIR):
    found = {}
    for split in SPLITS:
        dataset = Videos(root, split, clip)
        check_records(dataset)
        found[split] = names_of(pickle.loads(pickle.dumps(dataset)))
    return found


def test_flat_and_nested_folders_are_cut_by_a_hash(tmp_path):
    names = [f"{number}.mp4" for number in range(6)] + ["deep/er/a.mkv", "deep/b.avi"]
    for seed, name in enumerate(names):
        write(tmp_path / name, seed)
    assert guess_format(tmp_path) == "videos"
    found = splits_of(tmp_path)
    assert set().union(*found.values()) == set(names)
    assert sum(map(len, found.values())) == len(names)
    assert Videos(tmp_path).fields == {"images", "times"}


def test_windows_by_frame_number_at_the_step_of_the_task(tmp_path):
    for name, rate in (("train/a.mp4", 20.0), ("test/b.mp4", 10.0), ("train/c.mp4", 20.0)):
        write(tmp_path / name, 1, 6, rate)
    dataset = Videos(tmp_path, "test", PAIR)
    assert len(dataset) == 3
    record = dataset.record(1, dataset.fields)
    assert record["images"][0, 0].float().mean() == pytest.approx(80, abs=4)
    assert record["target"][0].float().mean() == pytest.approx(120, abs=4)
    assert record["images"][0, 2].float().mean() == pytest.approx(40, abs=4)
    assert record["times"].tolist() == pytest.approx([0.2])
    assert record["query_time"] == pytest.approx(0.3)
    train = Videos(tmp_path, "train", PAIR)
    assert len(train) == 2  # every second frame of 6, at 20 a second: frames 0 2 and 3 5
    assert train.record(0, {"target"})["target"][0].float().mean() == pytest.approx(80, abs=4)


def test_folders_of_splits(tmp_path):
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for number in range(count):
            write(tmp_path / split / f"{number}.mp4", number)
    found = splits_of(tmp_path)
    assert {split: len(names) for split, names in found.items()} == {"train": 3, "validation": 1, "test": 2}
    assert all(name.startswith("val/") for name in found["validation"])
    for file in (tmp_path / "test").iterdir():
        file.unlink()
    (tmp_path / "test").rmdir()
    found = splits_of(tmp_path)
    assert found["test"] == {"val/0.mp4"}
    assert sorted(found["train"] | found["validation"]) == [f"train/{number}.mp4" for number in range(3)]
    assert len(found["validation"]) == 1


def kinetics(root):
    """Two classes; train has four clips of three YouTube videos, val two, test one without a class."""
    names = [f"train/{name}" for name in ("run/x_000001", "run/x_000050", "sit/y_000001", "sit/z_000001")]
    names += ["val/run/v_000001", "val/sit/w_000001", "test/u_000001"]
    for seed, name in enumerate(names):
        # Kinetics names a clip by the video, and from which second to which.
        write(root / f"{name}_{int(name[-6:]) + 10:06}.mp4", seed, 2)


def test_kinetics(tmp_path):
    kinetics(tmp_path)
    found = {}
    for split in SPLITS:
        dataset = open_dataset(tmp_path, split, get_task("image_classification"))
        assert dataset.fields == {"images", "times", "label"}
        assert dataset.classes == {"label": ("run", "sit")}
        check_records(dataset)
        for index in range(len(dataset)):
            (file,) = dataset.files(index)
            label = dataset.record(index, {"label"})["label"]
            assert dataset.classes["label"][label] == file.parent.name
        found[split] = names_of(dataset)
    assert found["test"] == {"val/run/v_000001_000011.mp4", "val/sit/w_000001_000011.mp4"}
    assert len(found["train"] | found["validation"]) == 4
    of_one_video = {"train/run/x_000001_000011.mp4", "train/run/x_000050_000060.mp4"}
    assert any(of_one_video <= part for part in found.values())


def test_other_folders_are_no_classes(tmp_path):
    kinetics(tmp_path)
    write(tmp_path / "val" / "jump" / "a.mp4")
    assert Videos(tmp_path, "train").fields == {"images", "times"}


@pytest.fixture
def ucf101(tmp_path):
    """Two classes of three groups with two clips each; group 1 is the test list."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    classes = ("Typing", "Archery")
    (lists / "classInd.txt").write_text("".join(f"{n} {name}\r\n" for n, name in enumerate(classes, 1)))
    train, test = "", ""
    for number, name in enumerate(classes, 1):
        for group in range(1, 5):
            for clip in (1, 2):
                file = f"{name}/v_{name}_g{group:02}_c{clip:02}.avi"
                write(tmp_path / "UCF-101" / file, group, 2)
                train += f"{file} {number}\r\n" if group > 1 else ""
                test += f"{file}\r\n" if group == 1 else ""
    (lists / "trainlist01.txt").write_text(train)
    (lists / "testlist01.txt").write_text(test)
    return tmp_path


def test_ucf101(ucf101):
    assert guess_format(ucf101) == "videos"
    found = splits_of(ucf101, Clip())
    assert found["test"] == {
        f"UCF-101/{c}/v_{c}_g01_c0{n}.avi" for c in ("Typing", "Archery") for n in (1, 2)
    }
    assert len(found["train"]) + len(found["validation"]) == 12
    groups = {split: {name.rpartition("_c")[0] for name in names} for split, names in found.items()}
    assert not groups["train"] & groups["validation"]
    assert groups["validation"]
    dataset = Videos(ucf101, "test")
    assert dataset.classes == {"label": ("Typing", "Archery")}
    for index in range(len(dataset)):
        label = dataset.record(index, {"label"})["label"]
        assert dataset.classes["label"][label] == dataset.files(index)[0].parent.name


def test_ucf101_that_is_not_whole(ucf101):
    (ucf101 / "UCF-101" / "Typing" / "v_Typing_g01_c01.avi").unlink()
    with pytest.raises(DataError, match=r"v_Typing_g01_c01\.avi"):
        Videos(ucf101, "test")
    (ucf101 / "ucfTrainTestlist" / "trainlist01.txt").unlink()
    with pytest.raises(DataError, match=r"trainlist01\.txt"):
        Videos(ucf101, "train")


def test_damaged_video(tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.mp4", number)
    content = (tmp_path / "2.mp4").read_bytes()
    (tmp_path / "2.mp4").write_bytes(content[: len(content) // 2])
    failed = 0
    for split in SPLITS:
        dataset = Videos(tmp_path, split)
        if any(name == "2.mp4" for name in dataset._names):
            failed += 1
            with pytest.raises(DataError, match=r"2\.mp4"):
                len(dataset)
    assert failed == 1


def test_missing_empty_and_too_few(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        Videos(tmp_path / "none")
    with pytest.raises(DataError, match="no video"):
        Videos(tmp_path)
    write(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="1 to divide among 3 splits"):
        Videos(tmp_path)
    write(tmp_path / "test" / "b.mp4")
    with pytest.raises(DataError, match="no folder of the split train"):
        Videos(tmp_path, "train")


def test_images_with_a_stray_video_are_no_videos(tmp_path):
    for number in range(3):
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / f"{number}.png")
    assert not Videos.looks_like(tmp_path)
    write(tmp_path / "a.mp4")
    assert not Videos.looks_like(tmp_path)
