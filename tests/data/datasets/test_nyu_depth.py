import pickle

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.nyu_depth import NYUDepthV2
from transframer.errors import ConfigError, DataError, UnknownNameError
from transframer.task import Clip

from .contract import check_records

COUNT, HEIGHT, WIDTH = 12, 48, 64
SCENES = ["kitchen_0001"] * 3 + ["bath_0002", "office_0003"] + ["den_0004"] * 4 + ["test_0005"] * 3
TRAIN, TEST = [1, 2, 3, 4, 5, 6, 7, 9], [8, 10, 12]  # from 1, as MATLAB counts


def picture(number):
    """Row, column and frame can be read off every pixel."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([row, column, np.full_like(row, number)]).astype(np.uint8)


def depth(number):
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    return (0.5 + number + row / 100 + column / 1000).astype(np.float32)


@pytest.fixture
def labelled(tmp_path):
    """The two .mat files as MATLAB writes them: version 7.3 (HDF5, columns first, a header) and version 5."""
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = np.stack([picture(n).transpose(0, 2, 1) for n in range(COUNT)])
        filled = file.create_dataset(
            "depths",
            data=np.stack([depth(n).T for n in range(COUNT)]),
            chunks=(1, WIDTH, HEIGHT),
            compression="gzip",
        )
        raw = filled[()]
        raw[:, 5, 7] = 0
        file["rawDepths"] = raw
        cells = file.create_dataset("scenes", (1, COUNT), dtype=h5py.ref_dtype)
        for n, scene in enumerate(SCENES):
            file[f"#refs#/{n}"] = np.array([[ord(letter)] for letter in scene], dtype=np.uint16)
            cells[0, n] = file[f"#refs#/{n}"].ref
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    write_splits(tmp_path)
    return tmp_path


def write_splits(folder, train=TRAIN, test=TEST):
    numbers = {
        "trainNdxs": np.array(train, np.uint16)[:, None],
        "testNdxs": np.array(test, np.uint16)[:, None],
    }
    scipy.io.savemat(folder / "splits.mat", numbers)


@pytest.fixture
def folders(tmp_path):
    for part, scenes in {"train": ["attic_1", "cafe_1", "cafe_2"], "val": ["official"]}.items():
        for place, scene in enumerate(scenes):
            (tmp_path / part / scene).mkdir(parents=True)
            for n in range(2):
                with h5py.File(tmp_path / part / scene / f"{n:05d}.h5", "w") as file:
                    file["rgb"], file["depth"] = picture(10 * place + n), depth(10 * place + n)
    return tmp_path


def frames(dataset):
    """The numbers of the frames, as `picture` wrote them."""
    return [int(dataset.record(index, {"images"})["images"][0, 2, 0, 0]) for index in range(len(dataset))]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("layout", ["labelled", "folders"])
def test_records_keep_the_contract(layout, split, request):
    check_records(NYUDepthV2(request.getfixturevalue(layout), split))


def test_arrays_of_matlab_are_turned_upright(labelled):
    dataset = NYUDepthV2(labelled, "test")
    for index, number in enumerate([7, 9, 11]):
        record = dataset.record(index, dataset.fields)
        assert np.array_equal(record["images"][0].numpy(), picture(number))
        assert np.array_equal(record["depth_m"].numpy(), depth(number))


def test_h5_files_are_read_as_they_are(folders):
    record = NYUDepthV2(folders, "test").record(1, {"images", "depth_m"})
    assert np.array_equal(record["images"][0].numpy(), picture(1))
    assert np.array_equal(record["depth_m"].numpy(), depth(1))


def test_the_split_is_the_official_one_and_scenes_stay_together(labelled):
    parts = {split: frames(NYUDepthV2(labelled, split)) for split in ("train", "validation", "test")}
    assert [number + 1 for number in parts["test"]] == TEST
    assert sorted(number + 1 for number in parts["train"] + parts["validation"]) == TRAIN
    scenes = [{SCENES[number] for number in parts[split]} for split in ("train", "validation")]
    assert scenes[0].isdisjoint(scenes[1])
    assert scenes[1]


def test_folders_are_divided_by_scene(folders):
    train, validation = (
        {dataset.files(index)[0].parent.name for index in range(len(dataset))}
        for dataset in (NYUDepthV2(folders, "train"), NYUDepthV2(folders, "validation"))
    )
    assert train | validation == {"attic_1", "cafe_1", "cafe_2"}
    assert train.isdisjoint(validation)
    assert {file.parent.name for file in NYUDepthV2(folders, "test").files(0)} == {"official"}


def test_raw_depth_has_the_holes_of_the_sensor(labelled, folders):
    filled, raw = (
        NYUDepthV2(labelled, "test", depth=kind).record(0, {"depth_m"})["depth_m"]
        for kind in ("filled", "raw")
    )
    assert raw[7, 5] == 0
    assert (filled != raw).sum() == 1
    (labelled / "nyu_depth_v2_labeled.mat").unlink()
    with pytest.raises(ConfigError, match="raw"):
        NYUDepthV2(folders, depth="raw")
    with pytest.raises(UnknownNameError, match="filled"):
        NYUDepthV2(folders, depth="full")


def test_evaluation_keeps_eigens_crop_and_the_cap(tmp_path):
    values = np.full((480, 640), 3, np.float32)
    values[200, 300:304] = [10.0, 9.99, 1e-3, 0.01]
    (tmp_path / "val" / "official").mkdir(parents=True)
    with h5py.File(tmp_path / "val" / "official" / "00001.h5", "w") as file:
        file["rgb"], file["depth"] = np.zeros((3, 480, 640), np.uint8), values
    dataset = NYUDepthV2(tmp_path, "test")
    record = dataset.record(0, {"depth_m"})
    judged = dataset.evaluation(record)["depth_m"] > 0
    rows, columns = torch.nonzero(judged.any(1)).flatten(), torch.nonzero(judged.any(0)).flatten()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (44, 470, 40, 600)
    assert judged.sum() == 427 * 561 - 2  # the size of the crop that papers give
    assert judged[200, 300:304].tolist() == [False, True, False, True]
    assert record["depth_m"][0, 0] == 3, "the record itself is as it was"
    assert set(dataset.evaluation({"images": record["images"]})) == {"images"}


def test_what_is_not_positive_is_unknown(folders):
    path = folders / "val" / "official" / "00000.h5"
    with h5py.File(path, "r+") as file:
        file["depth"][0, :4] = [np.nan, np.inf, -1, 2]
    found = NYUDepthV2(folders, "test").record(0, {"depth_m"})["depth_m"]
    assert found[0, :4].tolist() == [0, 0, 0, 2]


def test_looks_and_pickle(labelled, folders, tmp_path):
    assert guess_format(labelled / "nyu_depth_v2_labeled.mat") == "nyu_depth_v2"
    assert guess_format(labelled) == "nyu_depth_v2"
    (labelled / "nyu_depth_v2_labeled.mat").unlink()
    assert guess_format(folders) == "nyu_depth_v2"
    assert not NYUDepthV2.looks_like(tmp_path / "splits.mat")
    dataset = open_dataset(folders, "test")
    dataset.record(0, {"images"})
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.record(1, {"depth_m"})["depth_m"], dataset.record(1, {"depth_m"})["depth_m"])


def test_the_file_itself_is_a_root(labelled):
    assert len(NYUDepthV2(labelled / "nyu_depth_v2_labeled.mat", "test")) == 3


def test_the_image_is_the_target_of_a_clip_with_one(folders):
    dataset = NYUDepthV2(folders, "test", Clip(target=(0,)))
    record = dataset.record(0, {"target"})
    assert torch.equal(record["target"], record["images"][0])


def test_damage_names_the_file(labelled):
    path = labelled / "nyu_depth_v2_labeled.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"nyu_depth_v2_labeled\.mat"):
        NYUDepthV2(labelled, "test")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        del file["scenes"]
    with pytest.raises(DataError, match=r"labeled\.mat"):
        NYUDepthV2(labelled, "train")
    with h5py.File(path, "r+") as file:
        del file["depths"]
    with pytest.raises(DataError, match="depths"):
        NYUDepthV2(labelled, "test")


def test_damaged_pixels_name_the_file(labelled):
    path = labelled / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "r") as file:
        chunk = file["depths"].id.get_chunk_info(TEST[0] - 1)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(bytes(data))
    dataset = NYUDepthV2(labelled, "test")
    assert set(dataset.record(0, {"images"})) == {"images"}, "needs no depth"
    with pytest.raises(DataError, match=r"labeled\.mat.*depths"):
        dataset.record(0, {"depth_m"})


def test_bad_splits_are_refused(labelled):
    write_splits(labelled, test=[0, 3])
    with pytest.raises(DataError, match="testNdxs"):
        NYUDepthV2(labelled, "test")
    write_splits(labelled, test=[COUNT + 1])
    with pytest.raises(DataError, match="testNdxs"):
        NYUDepthV2(labelled, "test")
    (labelled / "splits.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(40))
    with pytest.raises(DataError, match=r"splits\.mat"):
        NYUDepthV2(labelled, "test")
    (labelled / "splits.mat").unlink()
    with pytest.raises(DataError, match=r"splits\.mat"):
        NYUDepthV2(labelled, "test")


def test_damaged_h5_files_are_named(folders):
    folder = folders / "val" / "official"
    (folder / "00000.h5").write_bytes((folder / "00000.h5").read_bytes()[:300])
    with h5py.File(folder / "00001.h5", "r+") as file:
        del file["depth"]
        file["depth"] = np.ones((HEIGHT, WIDTH - 1), np.float32)
    dataset = NYUDepthV2(folders, "test")
    with pytest.raises(DataError, match=r"00000\.h5"):
        dataset.record(0, {"images"})
    with pytest.raises(DataError, match=r"00001\.h5[\s\S]*64 x 48"):
        dataset.record(1, {"depth_m"})


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="train"):
        NYUDepthV2(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="no scenes"):
        NYUDepthV2(tmp_path, "test")
