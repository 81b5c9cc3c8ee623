import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.srn import SRN
from transframer.errors import DataError
from transframer.task import Clip

from .contract import check_records

VIEW = Clip(frames=3, context=((0,), (0, 1)), target=(2,))
SIZE = (24, 32)


def pose_of(seed):
    """A camera on a sphere of radius 1.3 that looks at the origin: x right, y down, z forward."""
    direction = np.random.default_rng(seed).normal(size=3)
    centre = 1.3 * direction / np.linalg.norm(direction)
    forward = -centre / np.linalg.norm(centre)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = centre
    return pose


def write_object(folder, seed=0, views=4, flag=None):
    for part in ("rgb", "pose"):
        (folder / part).mkdir(parents=True)
    for view in range(views):
        pose = pose_of(10 * seed + view)
        stored = np.linalg.inv(pose) if flag else pose
        (folder / "pose" / f"{view:06d}.txt").write_text(" ".join(f"{value:.9f}" for value in stored.ravel()))
        pixels = np.random.default_rng(view).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
        pixels[..., 3] = 255
        pixels[0, 0, 3] = 0  # the background of the renderings is transparent
        Image.fromarray(pixels).save(folder / "rgb" / f"{view:06d}.png")
    last = "" if flag is None else f"{int(flag)}\n"
    (folder / "intrinsics.txt").write_text(f"131.25 64.0 64.0 0.\n0. 0. 0.\n1.\n96 128\n{last}")


@pytest.fixture
def root(tmp_path):
    for place in range(4):
        write_object(tmp_path / "cars_train" / f"car{place}", place)
    for part in ("val", "test"):
        for place in range(2):
            write_object(tmp_path / f"cars_{part}" / f"{part}{place}", 7, views=7)
    return tmp_path


def objects(dataset):
    return {dataset.files(index)[0].parents[1].name for index in range(len(dataset))}


@pytest.mark.parametrize("clip", [Clip(), VIEW])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_records_keep_the_contract(root, split, clip):
    check_records(SRN(root, split, clip))


def test_cameras_and_views_by_hand(root):
    """Focal length 131.25 for 96 x 128; the images are a quarter of that, so 32.8125 and a centre of 16."""
    dataset = SRN(root, "test", VIEW)
    record = dataset.record(1, dataset.fields)  # the first window's other choice: two views
    for place, camera in enumerate([*record["cameras"], record["query_camera"]]):
        expected = torch.tensor([[32.8125, 0, 16], [0, 32.8125, 16], [0, 0, 1]])
        torch.testing.assert_close(camera.intrinsics, expected)
        torch.testing.assert_close(camera.world_from_camera, torch.from_numpy(pose_of(70 + place)).float())
        # The middle of the picture is the object's: the ray through it meets the origin.
        origin = torch.linalg.inv(camera.world_from_camera.double())[:3, 3]
        torch.testing.assert_close(origin, torch.tensor([0, 0, 1.3]).double(), atol=1e-6, rtol=0)
    files = dataset.files(1)
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    target = np.array(Image.open(files[2]).convert("RGB"))
    target[0, 0] = 255
    assert np.array_equal(record["target"].permute(1, 2, 0).numpy(), target)


def test_windows_do_not_overlap(root):
    dataset = SRN(root, "test", VIEW)
    assert len(dataset) == 2 * 2 * 2  # objects, windows of 3 in 7 views, choices of context
    assert [file.stem for file in dataset.files(2)] == ["000003", "000005"]
    assert len(SRN(root, "test", VIEW, window_stride=1)) == 2 * 5 * 2


def test_views_have_no_time(root):
    dataset = SRN(root, "test", VIEW)
    assert dataset.fields == {"images", "cameras", "target", "query_camera"}
    assert set(dataset.record(0, {"images", "times", "query_time"})) == {"images"}


def test_objects_stay_together_and_val_is_left_alone(root):
    train, validation, test = (objects(SRN(root, split)) for split in ("train", "validation", "test"))
    assert train | validation == {f"car{place}" for place in range(4)}
    assert train.isdisjoint(validation)
    assert test == {"test0", "test1"}


def test_the_flag_says_that_poses_are_inverse(tmp_path):
    write_object(tmp_path / "cars_test" / "plain", 1)
    write_object(tmp_path / "cars_test" / "unlike", 1, flag=True)
    write_object(tmp_path / "cars_test" / "zero", 1, flag=False)
    dataset = SRN(tmp_path, "test", Clip(frames=4, context=((0, 1, 2, 3),)))
    poses = [
        torch.stack([camera.world_from_camera for camera in dataset.record(index, {"cameras"})["cameras"]])
        for index in range(3)
    ]
    torch.testing.assert_close(poses[0], poses[1], atol=1e-5, rtol=0)
    assert torch.equal(poses[0], poses[2])


def test_roots_and_sets(root):
    assert objects(SRN(root / "cars_train", "test")) == {"test0", "test1"}
    # The published chairs have one folder more.
    for place in range(3):
        write_object(root / "chairs_train" / "chairs_2.0_train" / f"chair{place}", place)
    chairs = SRN(root, "train", objects="chairs"), SRN(root, "validation", objects="chairs")
    assert objects(chairs[0]) | objects(chairs[1]) == {"chair0", "chair1", "chair2"}
    both = objects(SRN(root, "train")) | objects(SRN(root, "validation"))
    assert both == {*(f"car{place}" for place in range(4)), "chair0", "chair1", "chair2"}
    with pytest.raises(DataError, match="planes_train"):
        SRN(root, objects="planes")
    with pytest.raises(DataError, match="chairs_test"):
        SRN(root, "test", objects="chairs")


def test_looks_and_pickle(root):
    assert guess_format(root) == "srn"
    assert guess_format(root / "cars_test") == "srn"
    assert not SRN.looks_like(root / "cars_test" / "test0")
    dataset = open_dataset(root, "test")
    dataset.record(0, {"cameras"})
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(
        copy.record(1, {"cameras"})["cameras"][0].world_from_camera,
        dataset.record(1, {"cameras"})["cameras"][0].world_from_camera,
    )


def test_damaged_files_are_named(root):
    dataset = SRN(root, "test")
    image = dataset.files(0)[0]
    scene = image.parents[1]
    pose = scene / "pose" / f"{image.stem}.txt"
    numbers = pose.read_text().split()
    for wrong in (
        numbers[:-1],
        [*numbers[:3], "x", *numbers[4:]],
        ["2", *numbers[1:]],
        [*numbers[:12], *"1111"],
    ):
        pose.write_text(" ".join(wrong))
        with pytest.raises(DataError, match=r"pose/000000\.txt"):
            dataset.record(0, {"cameras"})
    pose.unlink()
    with pytest.raises(DataError, match=r"pose/000000\.txt"):
        dataset.record(0, {"cameras"})
    (scene / "intrinsics.txt").write_text("131.25 64.0\n")
    assert set(dataset.record(0, {"images"})) == {"images"}, "needs no camera"
    with pytest.raises(DataError, match=r"intrinsics\.txt"):
        SRN(root, "test").record(0, {"cameras"})
    image.write_bytes(image.read_bytes()[:90])
    with pytest.raises(DataError, match=r"rgb/000000\.png"):
        dataset.record(0, {"images"})


def test_views_of_unlike_sizes_are_named(root):
    dataset = SRN(root, "test", VIEW)
    image = dataset.files(0)[-1]
    Image.open(image).resize((31, 24)).save(image)
    with pytest.raises(DataError, match=rf"{image.name}[\s\S]*32 x 24"):
        dataset.record(0, {"target"})


def test_missing_folders_are_named(root, tmp_path):
    shutil.rmtree(root / "cars_test")
    with pytest.raises(DataError, match="cars_test"):
        SRN(root, "test")
    with pytest.raises(DataError, match="SET_train"):
        SRN(tmp_path / "nowhere")
