import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.kitti_depth import KITTIDepth
from transframer.errors import DataError, UnknownNameError

from .contract import check_records

TRAIN = [f"2011_09_26_drive_{number:04d}_sync" for number in (1, 9, 11)]
VAL = "2011_10_03_drive_0047_sync"
SIZE = (12, 40)


def write_photograph(path, seed, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_depth(path, seed, size=SIZE):
    """Sparse depth as KITTI stores it: 16-bit PNG, 256 to the metre."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    units = random.integers(1, 90 * 256, size).astype(np.uint16) * (random.random(size) < 0.3)
    Image.fromarray(units.astype(np.uint16)).save(path)
    return units / 256


@pytest.fixture
def root(tmp_path):
    """Annotated depth of four drives, and their raw recordings in `raw`."""
    for part, drives in {"train": TRAIN, "val": [VAL]}.items():
        for drive in drives:
            for number in (5, 6):
                for camera in ("image_02", "image_03"):
                    name = f"{number:010d}.png"
                    seed = 10 * int(drive[-9:-5]) + number
                    write_depth(tmp_path / part / drive / "proj_depth/groundtruth" / camera / name, seed)
                    write_photograph(tmp_path / "raw" / drive[:10] / drive / camera / "data" / name, seed)
            # The first frames have photographs and no depth.
            write_photograph(tmp_path / "raw" / drive[:10] / drive / "image_02/data/0000000000.png", 1)
    return tmp_path


@pytest.fixture
def selection(root):
    folder = root / "depth_selection" / "val_selection_cropped"
    for number in (8, 12):
        for camera in ("image_02", "image_03"):
            stem = f"2011_09_26_drive_0002_sync_{{}}_{number:010d}_{camera}.png"
            write_depth(folder / "groundtruth_depth" / stem.format("groundtruth_depth"), number)
            write_photograph(folder / "image" / stem.format("image"), number)
    return root


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_records_keep_the_contract(root, split):
    check_records(KITTIDepth(root, split))


def test_records_of_the_selection_keep_the_contract(selection):
    dataset = KITTIDepth(selection, "test")
    check_records(dataset)
    assert len(dataset) == 4


def test_depth_is_a_256th_of_the_stored_number_and_belongs_to_its_photograph(tmp_path):
    name = "0000000005.png"
    expected = write_depth(tmp_path / "val" / VAL / "proj_depth/groundtruth/image_02" / name, 3)
    pixels = write_photograph(tmp_path / "raw" / VAL[:10] / VAL / "image_02/data" / name, 3)
    record = KITTIDepth(tmp_path, "test").record(0, {"depth_m"})
    assert np.array_equal(record["depth_m"].double().numpy(), expected)
    assert np.array_equal(record["images"][0].permute(1, 2, 0).numpy(), pixels)
    assert (record["depth_m"] == 0).any()


def test_each_depth_has_the_photograph_of_its_number(root, selection):
    for split, camera in (("train", "image_02"), ("train", "image_03"), ("validation", "image_02")):
        dataset = KITTIDepth(root, split, camera=camera)
        for index in range(len(dataset)):
            photograph, depth = dataset.files(index)
            assert photograph.name == depth.name
            assert photograph.parents[2].name == depth.parents[3].name
            assert photograph.parents[1].name == depth.parent.name == camera
    for photograph, depth in map(KITTIDepth(selection, "test").files, range(4)):
        assert photograph.parent.name == "image"
        assert photograph.name.split("_")[-3:] == depth.name.split("_")[-3:]


def test_drives_stay_together(root):
    drives = {
        split: {dataset.files(index)[1].parents[3].name for index in range(len(dataset))}
        for split in ("train", "validation", "test")
        for dataset in [KITTIDepth(root, split)]
    }
    assert drives["train"] | drives["validation"] == set(TRAIN)
    assert drives["train"].isdisjoint(drives["validation"])
    assert drives["test"] == {VAL}


@pytest.mark.parametrize("place", ["elsewhere", ".", "beside"])
def test_places_of_the_photographs(root, place, tmp_path_factory):
    options = {}
    if place == "elsewhere":
        raw = tmp_path_factory.mktemp("kitti") / "recordings"
        shutil.move(root / "raw", raw)
        options = {"raw_root": str(raw)}
    elif place == ".":
        for date in list((root / "raw").iterdir()):
            shutil.move(date, root / date.name)
    else:
        drive = next((root / "raw").glob(f"*/{VAL}"))
        for camera in ("image_02", "image_03"):
            shutil.move(drive / camera, root / "val" / VAL / camera)
    check_records(open_dataset(root, "test", format="kitti_depth", options=options))


def test_photographs_may_be_jpeg(root):
    for path in (root / "raw").rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    assert KITTIDepth(root, "test").files(0)[0].suffix == ".jpg"
    check_records(KITTIDepth(root, "test"))


def test_evaluation_keeps_gargs_crop_and_the_cap(tmp_path):
    """The usual size, 375 x 1242: int(0.40810811 x 375) = 153, int(0.99189189 x 375) = 371, 44 and 1197."""
    name = "0000000005.png"
    path = tmp_path / "val" / VAL / "proj_depth/groundtruth/image_02" / name
    write_photograph(tmp_path / "raw" / VAL[:10] / VAL / "image_02/data" / name, 3, (375, 1242))
    units = np.full((375, 1242), 256 * 20, np.uint16)
    units[200, 300:303] = [80 * 256, 80 * 256 - 1, 0]
    path.parent.mkdir(parents=True)
    Image.fromarray(units).save(path)
    dataset = KITTIDepth(tmp_path, "test")
    judged = dataset.evaluation(dataset.record(0, {"depth_m"}))["depth_m"] > 0
    rows, columns = torch.nonzero(judged.any(1)).flatten(), torch.nonzero(judged.any(0)).flatten()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (153, 370, 44, 1196)
    assert judged[200, 300:303].tolist() == [False, True, False]


def test_looks_and_pickle(root, selection):
    assert guess_format(root) == "kitti_depth"
    assert guess_format(selection / "depth_selection") == "kitti_depth"
    assert not KITTIDepth.looks_like(root / "raw")
    copy = pickle.loads(pickle.dumps(KITTIDepth(root)))
    assert torch.equal(
        copy.record(0, {"depth_m"})["depth_m"], KITTIDepth(root).record(0, {"depth_m"})["depth_m"]
    )


def test_depth_without_photographs_is_an_error(root):
    dataset = KITTIDepth(root, "test")
    photograph = dataset.files(0)[0]
    photograph.unlink()
    with pytest.raises(DataError, match=r"0000000005\.png"):
        KITTIDepth(root, "test")
    shutil.rmtree(root / "raw" / VAL[:10])
    with pytest.raises(DataError, match="raw_root"):
        KITTIDepth(root, "test")


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="train"):
        KITTIDepth(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="no depth"):
        KITTIDepth(tmp_path, "test")
    with pytest.raises(UnknownNameError, match="image_02"):
        KITTIDepth(tmp_path, camera="image_00")


def test_damaged_files_are_named(root, selection):
    dataset = KITTIDepth(root, "validation")
    photograph, depth = dataset.files(0)
    depth.write_bytes(depth.read_bytes()[:-60])
    assert set(dataset.record(0, {"images"})) == {"images"}, "needs no depth"
    with pytest.raises(DataError, match=depth.name):
        dataset.record(0, {"depth_m"})
    write_depth(depth, 1, (12, 41))
    with pytest.raises(DataError, match="40 x 12"):
        dataset.record(0, {"depth_m"})
    photograph.write_bytes(photograph.read_bytes()[:80])
    with pytest.raises(DataError, match=photograph.name):
        dataset.record(0, {"images"})
    KITTIDepth(selection, "test").files(0)[0].unlink()
    with pytest.raises(DataError, match="no such photograph"):
        KITTIDepth(selection, "test")
