import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as torchvision_datasets

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.dataset import SPLITS, three_parts
from transframer.data.datasets.flow_pairs import FlyingChairs, KITTIFlow, Sintel
from transframer.data.formats.flo import write_flo
from transframer.data.formats.png16 import write_kitti_flow
from transframer.errors import DataError, UnknownNameError

from .contract import check_records

SIZE = (10, 16)


def write_image(path, seed, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def flow_of(seed, size=SIZE):
    """Multiples of 1/64 pixel, which KITTI's PNG stores exactly."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-640, 640, (2, *size)) / 64).float()


def write_flow(path, seed, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_flo(path, flow_of(seed, size))


@pytest.fixture
def chairs(tmp_path):
    root = tmp_path / "FlyingChairs"
    for number in range(1, 9):
        for place in (1, 2):
            write_image(root / "data" / f"{number:05d}_img{place}.ppm", 2 * number + place)
        write_flow(root / "data" / f"{number:05d}_flow.flo", number)
    (root / "FlyingChairs_train_val.txt").write_text("1\n1\n2\n1\n1\n2\n1\n1\n")
    return root


@pytest.fixture
def sintel(tmp_path):
    """Six scenes of different length and, as in no real copy, of different size."""
    root = tmp_path / "Sintel"
    for place in range(6):
        scene, size = f"alley_{place}", (10, 16 + place)
        for frame in range(1, 3 + place % 2 + 1):
            for number, rendering in enumerate(("clean", "final")):
                name = f"frame_{frame:04d}.png"
                write_image(
                    root / "training" / rendering / scene / name, 100 * number + 10 * place + frame, size
                )
            if frame > 1:
                write_flow(
                    root / "training" / "flow" / scene / f"frame_{frame - 1:04d}.flo",
                    10 * place + frame - 1,
                    size,
                )
    return root


@pytest.fixture
def kitti(tmp_path):
    root = tmp_path / "KittiFlow"
    for number in range(5):
        size = (10 + number, 30)
        for place in (10, 11):
            write_image(root / "training" / "image_2" / f"{number:06d}_{place}.png", number + place, size)
        (root / "training" / "flow_occ").mkdir(exist_ok=True)
        valid = flow_of(number + 50, size)[0] > 2
        path = root / "training" / "flow_occ" / f"{number:06d}_10.png"
        write_kitti_flow(path, flow_of(number, size), valid)
    return root


CLASSES = {"chairs": FlyingChairs, "sintel": Sintel, "kitti": KITTIFlow}


@pytest.fixture(params=CLASSES)
def layout(request):
    return CLASSES[request.param], request.getfixturevalue(request.param)


def flows(dataset):
    return [dataset.files(index)[2] for index in range(len(dataset))]


@pytest.mark.parametrize("split", SPLITS)
def test_records_keep_the_contract(layout, split):
    cls, root = layout
    check_records(cls(root, split))


def test_splits_divide_all_flow(layout):
    cls, root = layout
    parts = [flows(cls(root, split)) for split in SPLITS]
    assert all(parts)
    assert sorted(flow for part in parts for flow in part) == sorted(
        root.rglob("*flow*/*_1*0*.png")
    ) + sorted(root.rglob("*.flo"))


def test_the_parent_of_the_folder_is_a_root_too(layout):
    cls, root = layout
    assert flows(cls(root.parent, "test")) == flows(cls(root, "test"))
    assert cls.looks_like(root.parent)


def test_looks_and_pickle(layout):
    cls, root = layout
    assert guess_format(root) == cls.name
    assert not any(other.looks_like(root) for other in CLASSES.values() if other is not cls)
    assert not cls.looks_like(root / "nothing")
    dataset = open_dataset(root, "test", format=cls.name)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.record(0, {"flow"})["flow"], dataset.record(0, {"flow"})["flow"])


def peer(cls, root, split):
    """torchvision's own reading of the layout."""
    if cls is FlyingChairs:
        return torchvision_datasets.FlyingChairs(
            str(root.parent), split="val" if split == "test" else "train"
        )
    if cls is Sintel:
        return torchvision_datasets.Sintel(str(root.parent), split="train", pass_name="clean")
    return torchvision_datasets.KittiFlow(str(root.parent), split="train")


def test_records_are_those_of_torchvision(layout):
    cls, root = layout
    for split in SPLITS:
        theirs = peer(cls, root, split)
        by_flow = {path: index for index, path in enumerate(theirs._flow_list)}
        dataset = cls(root, split)
        for index, path in enumerate(flows(dataset)):
            record = dataset.record(index, dataset.fields)
            first, second, flow, *valid = theirs[by_flow[str(path)]]
            for image, expected in zip(record["images"], (first, second), strict=True):
                assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))
            known = np.asarray(valid[0]).astype(bool) if valid else np.ones(flow.shape[1:], bool)
            assert np.array_equal(record["flow_valid"].numpy(), known)
            assert np.array_equal(record["flow"].numpy(), flow * known)
            assert known.any()


def test_the_official_marks_decide_the_test_part_of_chairs(chairs):
    assert [path.name for path in flows(FlyingChairs(chairs, "test"))] == ["00003_flow.flo", "00006_flow.flo"]


def test_a_part_of_chairs_keeps_its_marks(chairs):
    """The mark belongs to the number of the pair and not to its place among the files that there are."""
    for path in (chairs / "data").glob("00001_*"):
        path.unlink()
    assert [path.name for path in flows(FlyingChairs(chairs, "test"))] == ["00003_flow.flo", "00006_flow.flo"]


def test_scenes_of_sintel_stay_together(sintel):
    scenes = [{path.parent.name for path in flows(Sintel(sintel, split))} for split in SPLITS]
    assert sum(map(len, scenes)) == len(set.union(*scenes)) == 6


def test_renderings_of_sintel(sintel):
    clean, final = (Sintel(sintel, "test", rendering=rendering) for rendering in ("clean", "final"))
    assert flows(clean) == flows(final)
    assert clean.files(0)[0].parts[-3:-1] == ("clean", final.files(0)[0].parts[-2])
    assert not torch.equal(clean.record(0, set())["images"], final.record(0, set())["images"])
    with pytest.raises(UnknownNameError, match="clean"):
        Sintel(sintel, rendering="albedo")


def test_invalid_pixels_of_sintel_are_not_valid(sintel):
    dataset = Sintel(sintel, "test")
    first = dataset.files(0)[0]
    mask = np.zeros((10, Image.open(first).width), np.uint8)
    mask[2:5, 3] = 255
    path = sintel / "training" / "invalid" / first.parent.name / first.name
    path.parent.mkdir(parents=True)
    Image.fromarray(mask).save(path)
    dataset = Sintel(sintel, "test")
    assert path in dataset.files(0)
    record = dataset.record(0, dataset.fields)
    assert np.array_equal(record["flow_valid"].numpy(), mask == 0)
    assert (record["flow"][:, 2:5, 3] == 0).all()
    check_records(dataset)


def test_unknown_flow_is_not_valid(chairs):
    path = chairs / "data" / "00003_flow.flo"
    flow = flow_of(3)
    flow[0, 1, 2], flow[1, 3, 4], flow[1, 5, 6] = 1e10, torch.nan, -1e10
    write_flo(path, flow)
    record = FlyingChairs(chairs, "test").record(0, {"flow", "flow_valid"})
    assert torch.nonzero(~record["flow_valid"]).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert torch.equal(record["flow"], flow.where(record["flow_valid"], torch.zeros(())))


@pytest.mark.parametrize("folder", ["colored_0", "image_0"])
def test_kitti_2012_has_other_names(kitti, folder):
    shutil.move(kitti / "training" / "image_2", kitti / "training" / folder)
    if folder == "image_0":
        for path in (kitti / "training" / folder).iterdir():
            Image.open(path).convert("L").save(path)
    dataset = KITTIFlow(kitti)
    check_records(dataset)
    assert dataset.files(0)[0].parent.name == folder


def test_three_parts_are_stable_where_files_are_added():
    names = [f"scene{number}" for number in range(400)]
    parts = [three_parts(names, names, split) for split in SPLITS]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert 15 < len(parts[1]) < 65
    assert 15 < len(parts[2]) < 65
    for split, part in zip(SPLITS, parts, strict=True):
        half = three_parts(names[:200], names[:200], split)
        assert half == [name for name in part if name in set(names[:200])]


def test_damaged_files_are_named(layout):
    cls, root = layout
    dataset = cls(root, "test")
    first, second, flow = dataset.files(0)
    flow.write_bytes(flow.read_bytes()[:-40])
    assert set(dataset.record(0, {"images"})) == {"images"}, "needs no flow"
    with pytest.raises(DataError, match=flow.name):
        dataset.record(0, {"flow_valid"})
    write_image(second, 1, (9, 16))
    with pytest.raises(DataError, match=second.name):
        dataset.record(0, {"images"})
    first.write_bytes(first.read_bytes()[:100])
    with pytest.raises(DataError, match=first.name):
        dataset.record(0, {"images"})


def test_flow_of_another_size_is_named(chairs):
    write_flow(chairs / "data" / "00003_flow.flo", 1, (10, 15))
    with pytest.raises(DataError, match=r"00003_flow\.flo[\s\S]*16 x 10"):
        FlyingChairs(chairs, "test").record(0, {"flow"})


def test_incomplete_pairs_are_named(layout):
    cls, root = layout
    second = cls(root, "test").files(0)[1]
    second.unlink()
    with pytest.raises(DataError, match=second.name):
        cls(root, "test")


def test_missing_folders_are_named(layout, tmp_path):
    cls, root = layout
    with pytest.raises(DataError, match="nowhere"):
        cls(tmp_path / "nowhere")
    shutil.rmtree(next(root.rglob("data" if cls is FlyingChairs else "flow*")))
    with pytest.raises(DataError, match="no folder"):
        cls(root)


def test_the_list_of_chairs_is_checked(chairs):
    path = chairs / "FlyingChairs_train_val.txt"
    path.write_text("1 2 1")
    with pytest.raises(DataError, match="1 to 3"):
        FlyingChairs(chairs)
    path.write_text("train val")
    with pytest.raises(DataError, match="1 and 2"):
        FlyingChairs(chairs)
    path.unlink()
    with pytest.raises(DataError, match="FlyingChairs_train_val"):
        FlyingChairs(chairs)
