import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.middlebury import Middlebury, read_calibration
from transframer.data.formats.flo import write_flo
from transframer.errors import DataError
from transframer.task import Clip

from .contract import check_records

SPLITS = ("train", "validation", "test")
VIEW = Clip(frames=4, context=((0,), (0, 1)), target=(3,), static=True)
HEIGHT, WIDTH = 9, 14


def write_pfm(path, values):
    """The format by its definition: bottom row first, little-endian where the scale is negative."""
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-0.003922\n".encode() + values[::-1].astype("<f4").tobytes())


def write_scene(folder, seed=0, size=(HEIGHT, WIDTH), disparity="disp0.pfm"):
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    height, width = size
    for name in ("im0.png", "im1.png"):
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
    values = random.uniform(20, 60, size).astype(np.float32)
    values[2, 3], values[0, 0] = np.inf, 32.5
    write_pfm(folder / disparity, values)
    # As of "Motorcycle" of 2014, in a smaller size.
    (folder / "calib.txt").write_text(
        "cam0=[994.978 0 311.193; 0 994.978 254.877; 0 0 1]\n"
        "cam1=[994.978 0 342.279; 0 994.978 254.877; 0 0 1]\n"
        f"doffs=31.086\nbaseline=193.001\nwidth={width}\nheight={height}\nndisp=70\nisint=0\n"
        "vmin=7\nvmax=64\ndyavg=0.918\ndymax=1.516\n"
    )
    return values


@pytest.fixture
def stereo(tmp_path):
    for place, name in enumerate(["Adirondack-perfect", "Backpack-imperfect", "chess1", "chess2", "Piano"]):
        write_scene(tmp_path / name, place, (HEIGHT + place, WIDTH))
    (tmp_path / "readme").mkdir()
    return tmp_path


@pytest.fixture
def flow(tmp_path):
    for place, name in enumerate(["Dimetrodon", "Grove2", "RubberWhale", "Venus"]):
        size = (HEIGHT, WIDTH + place)
        for kind in ("other-data", "other-gt-flow"):
            (tmp_path / kind / name).mkdir(parents=True)
        for frame in (10, 11):
            pixels = np.random.default_rng(frame + place).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "other-data" / name / f"frame{frame}.png")
        values = torch.randn(2, *size)
        values[:, 1, 2] = 1.6666666752e9  # as Middlebury marks it
        write_flo(tmp_path / "other-gt-flow" / name / "flow10.flo", values)
    return tmp_path


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("layout", "clip"), [("stereo", Clip()), ("stereo", VIEW), ("flow", Clip())])
def test_records_keep_the_contract(layout, clip, split, request):
    check_records(Middlebury(request.getfixturevalue(layout), split, clip))


def test_depth_and_flow_by_hand(tmp_path):
    """A disparity of 32.5: depth = 994.978 x 0.193001 / (32.5 + 31.086) = 3.0200 m, flow (-32.5, 0)."""
    values = write_scene(tmp_path / "Piano")
    dataset = Middlebury(tmp_path / "Piano", "test")
    record = dataset.record(0, dataset.fields)
    assert record["depth_m"][0, 0].item() == pytest.approx(3.0200, abs=1e-4)
    assert record["flow"][:, 0, 0].tolist() == [-32.5, 0]
    known = np.isfinite(values)
    assert np.array_equal(record["flow_valid"].numpy(), known)
    assert np.array_equal(record["flow"][0].numpy(), np.where(known, -values, 0))
    assert torch.equal(record["depth_m"] > 0, record["flow_valid"])
    assert record["depth_m"][2, 3] == 0


def test_cameras_lead_from_one_photograph_to_the_other(tmp_path):
    """A pixel, lifted by its depth and seen by the second camera, is where flow says."""
    write_scene(tmp_path / "Piano")
    dataset = Middlebury(tmp_path, "test", VIEW)
    record = dataset.record(0, dataset.fields)
    left, right = record["cameras"]
    for row, column in ((0, 0), (5, 11)):
        pixel = torch.tensor([column + 0.5, row + 0.5, 1.0]).double()
        point = torch.linalg.inv(left.intrinsics.double()) @ pixel * record["depth_m"][row, column]
        world = left.world_from_camera.double() @ torch.cat([point, torch.ones(1)])
        seen = right.intrinsics.double() @ (torch.linalg.inv(right.world_from_camera.double()) @ world)[:3]
        moved = seen[:2] / seen[2] - pixel[:2]
        torch.testing.assert_close(moved.float(), record["flow"][:, row, column], atol=1e-3, rtol=0)
    assert right.world_from_camera[0, 3].item() == pytest.approx(0.193001)


def test_keys_decide_between_one_photograph_and_two(stereo):
    dataset = Middlebury(stereo, "test", VIEW)
    files = dataset.files(0)
    left, right = (torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files[:2])
    view = dataset.record(0, {"images", "cameras", "query_camera", "target"})
    assert torch.equal(view["images"], left[None])
    assert torch.equal(view["target"], right)
    assert view["query_camera"].world_from_camera[0, 3] > 0
    both = dataset.record(0, {"images", "flow"})
    assert torch.equal(both["images"], torch.stack([left, right]))
    colour = Middlebury(stereo, "test", Clip(target=(0,))).record(0, {"images", "target"})
    assert torch.equal(colour["target"], left), "of a still, the target is the still itself"
    files[1].unlink()
    files[3].unlink()
    assert set(dataset.record(0, {"images", "cameras"})) == {"images", "cameras"}, "needs no other file"


@pytest.mark.parametrize("clip", [Clip(), Clip(frames=3, context=((0, 1),), target=(2,))])
def test_without_a_target_in_the_clip_or_of_a_video_there_is_none(stereo, clip):
    dataset = Middlebury(stereo, "test", clip)
    assert dataset.fields == {"images", "depth_m", "flow", "flow_valid", "cameras"}


def test_flow_layout(flow):
    dataset = Middlebury(flow, "test")
    record = dataset.record(0, dataset.fields)
    assert dataset.fields == {"images", "flow", "flow_valid"}
    assert torch.nonzero(~record["flow_valid"]).tolist() == [[1, 2]]
    assert [path.name for path in dataset.files(0)] == ["frame10.png", "frame11.png", "flow10.flo"]


@pytest.mark.parametrize("layout", ["stereo", "flow"])
def test_splits_divide_the_scenes_and_takes_stay_together(layout, request):
    root = request.getfixturevalue(layout)
    parts = [
        [dataset.files(index)[0].parent.name for index in range(len(dataset))]
        for dataset in (Middlebury(root, split) for split in SPLITS)
    ]
    assert all(parts)
    names = [name for part in parts for name in part]
    assert len(names) == len(set(names)) == (5 if layout == "stereo" else 4)
    if layout == "stereo":
        assert any({"chess1", "chess2"} <= set(part) for part in parts)


def test_one_scene_is_a_test_split_and_no_other(tmp_path):
    write_scene(tmp_path / "Piano")
    for root in (tmp_path, tmp_path / "Piano"):
        assert guess_format(root) == "middlebury"
        check_records(Middlebury(root, "test"))
        for split in ("train", "validation"):
            with pytest.raises(DataError, match="at least two"):
                Middlebury(root, split)


def test_the_benchmarks_training_part_has_another_name_of_disparity(tmp_path):
    write_scene(tmp_path / "PianoL", disparity="disp0GT.pfm")
    dataset = Middlebury(tmp_path, "test")
    check_records(dataset)
    assert dataset.files(0)[-1].name == "disp0GT.pfm"


@pytest.mark.parametrize("layout", ["stereo", "flow"])
def test_looks_and_pickle(layout, request):
    root = request.getfixturevalue(layout)
    assert guess_format(root) == "middlebury"
    assert not Middlebury.looks_like(root / "readme")
    dataset = open_dataset(root, "test")
    dataset.record(0, dataset.fields)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.record(0, {"flow"})["flow"], dataset.record(0, {"flow"})["flow"])


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("cam0=[994.978 0 311.193; 0 994.978 254.877]", "cam0"),
        ("cam1=[0 0 342.279; 0 0 254.877; 0 0 1]", "cam1"),
        ("doffs=much", "doffs"),
        ("doffs=nan", "doffs"),
        ("baseline=-193", "baseline"),
        ("baseline", "baseline"),
    ],
)
def test_bad_calibrations_are_named(tmp_path, line, field):
    write_scene(tmp_path / "Piano")
    path = tmp_path / "Piano" / "calib.txt"
    lines = [old for old in path.read_text().splitlines() if not old.startswith(field)]
    path.write_text("\n".join([*lines, line]))
    with pytest.raises(DataError, match=rf"calib\.txt: {field}"):
        read_calibration(path)


def test_a_calibration_of_another_size_is_refused(tmp_path):
    write_scene(tmp_path / "Piano")
    path = tmp_path / "Piano" / "calib.txt"
    path.write_text(path.read_text().replace(f"width={WIDTH}", "width=2964"))
    with pytest.raises(DataError, match=r"calib\.txt[\s\S]*14 x 9"):
        Middlebury(tmp_path, "test").record(0, {"depth_m"})


def test_damaged_files_are_named(stereo):
    dataset = Middlebury(stereo, "test", VIEW)
    left, right, calibration, disparity = dataset.files(0)
    disparity.write_bytes(disparity.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"disp0\.pfm"):
        dataset.record(0, {"depth_m"})
    write_pfm(disparity, np.ones((3, 4), np.float32))
    with pytest.raises(DataError, match="4 x 3"):
        dataset.record(0, {"flow"})
    calibration.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"calib\.txt"):
        dataset.record(0, {"cameras"})
    right.write_bytes(right.read_bytes()[:100])
    with pytest.raises(DataError, match=r"im1\.png"):
        dataset.record(0, {"query_camera", "target"})
    left.write_bytes(left.read_bytes()[:100])
    with pytest.raises(DataError, match=r"im0\.png"):
        dataset.record(0, {"images"})
    right.unlink()
    with pytest.raises(DataError, match=r"im1\.png"):
        Middlebury(stereo, "test")


def test_missing_folders_are_named(flow, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        Middlebury(tmp_path / "nowhere")
    shutil.rmtree(flow / "other-data")
    with pytest.raises(DataError, match=r"frame10\.png"):
        Middlebury(flow, "test")
    with pytest.raises(DataError, match="no stereo scene"):
        Middlebury(flow / "other-gt-flow")
