import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.folder import Folder
from transframer.data.formats.cameras import write_cameras
from transframer.data.formats.flo import write_flo
from transframer.data.formats.pfm import write_pfm
from transframer.data.formats.png16 import write_kitti_flow
from transframer.errors import DataError
from transframer.frames import Camera
from transframer.registry import get_task
from transframer.task import Clip

from .contract import check_records

SPLITS = ("train", "validation", "test")
NAMES = ("sky", "ground", "car")
WIDTH, HEIGHT = 6, 4
PAIR = Clip(frames=2, context=((0, 1),))


def picture(path, value=0, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def names_of(dataset):
    return {sequence.name for sequence in pickle.loads(pickle.dumps(dataset)).sequences}


@pytest.fixture
def root(tmp_path):
    """One image "a" in the test part, to which each test adds labels."""
    picture(tmp_path / "test" / "images" / "a.png", 7)
    return tmp_path


def only_record(root, **options):
    dataset = Folder(root, "test", **options)
    check_records(dataset)
    assert len(dataset) == 1
    return dataset.record(0, dataset.fields)


def test_splits_by_hash(tmp_path):
    names = {f"{number}.x" for number in range(30)}  # names may have dots
    for number, name in enumerate(sorted(names)):
        picture(
            tmp_path / "images" / f"{name}.{'jpg' if number % 2 else 'png'}", number, (8 + number % 3, 11)
        )
    assert guess_format(tmp_path) == "folder"
    found = []
    for split in SPLITS:
        dataset = open_dataset(tmp_path, split)
        assert dataset.fields == {"images", "times"}
        check_records(dataset)
        found.append(names_of(dataset))
    assert set().union(*found) == names
    assert sum(map(len, found)) == 30
    assert len(found[0]) > 20


def test_splits_by_table(tmp_path):
    parts = {"a": "train", "b": "train", "c": "train", "d": "test", "e": "validation"}
    for name in parts:
        picture(tmp_path / "images" / f"{name}.png")
    text(
        tmp_path / "splits.csv", "name,split\n" + "".join(f"{name},{part}\n" for name, part in parts.items())
    )
    found = {split: names_of(Folder(tmp_path, split)) for split in SPLITS}
    assert found == {"train": {"a", "b", "c"}, "validation": {"e"}, "test": {"d"}}
    text(
        tmp_path / "splits.csv", "name,split\r\na.png,train\r\nb.png,train\r\nc,train\r\nd,test\r\ne,test\r\n"
    )
    found = {split: names_of(Folder(tmp_path, split)) for split in SPLITS}
    assert found["test"] == {"d", "e"}
    assert found["train"] | found["validation"] == {"a", "b", "c"}
    assert len(found["validation"]) == 1
    text(tmp_path / "splits.csv", "name,split\na,train\nb,train\nc,train\nd,test\n")
    with pytest.raises(DataError, match=r"splits\.csv: no row for e"):
        Folder(tmp_path, "train")
    text(tmp_path / "splits.csv", "name,split\na,train\nb,train\nc,train\nd,test\ne,val\n")
    with pytest.raises(DataError, match=r"e is of the split 'val'"):
        Folder(tmp_path, "train")


def test_splits_by_folders(tmp_path):
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        for number in range(count):
            picture(tmp_path / part / "images" / f"{part}{number}.png")
    assert guess_format(tmp_path) == "folder"
    found = {split: names_of(Folder(tmp_path, split)) for split in SPLITS}
    expected = {"train": {f"train{n}" for n in range(4)}, "validation": {"val0"}, "test": {"test0", "test1"}}
    assert found == expected


def test_masks(root):
    ids = np.array([[0, 1, 2, 255, 0, 0]] * HEIGHT, np.uint8)
    image = Image.fromarray(ids, mode="P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200] + [0] * 759)  # all 256: Pillow packs shorter ones
    (root / "test" / "masks").mkdir()
    image.save(root / "test" / "masks" / "a.png")
    with pytest.raises(DataError, match=r"classes\.txt"):
        Folder(root, "test")
    text(root / "classes.txt", "\n".join(NAMES) + "\n")
    dataset = open_dataset(root, "test", get_task("semantic_segmentation"))
    assert dataset.classes == {"mask": NAMES}
    assert torch.equal(only_record(root)["mask"], torch.from_numpy(ids.astype(np.int64)))
    save(root / "test" / "masks" / "a.png", ids + 1)
    with pytest.raises(DataError, match=r"(?s)masks/a\.png: class 3.*0 to 2"):
        Folder(root, "test").record(0, {"mask"})


def test_labels_have_the_same_classes_in_all_parts(tmp_path):
    for part, labels in (("train", ["dog", "10", "2"]), ("test", ["eel"])):
        for number in range(len(labels)):
            picture(tmp_path / part / "images" / f"{number}.png")
        rows = "".join(f"{number},{label}\n" for number, label in enumerate(labels))
        text(tmp_path / part / "labels.csv", f"name,label\n{rows}")
    dataset = open_dataset(tmp_path, "test", get_task("image_classification"))
    check_records(dataset)
    assert dataset.classes == {"label": ("2", "10", "dog", "eel")}
    assert dataset.record(0, {"label"})["label"] == 3


def coco(boxes, names=("car", "dog"), file_name="a.png"):
    annotations = [
        {"image_id": 5, "category_id": category, "bbox": box, "iscrowd": crowd}
        for box, category, crowd in boxes
    ]
    categories = [{"id": 10 * place, "name": name} for place, name in enumerate(names, 1)]
    images = [{"id": 5, "file_name": file_name}]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_boxes(root):
    """The image is 6 x 4: one box is cut to it, one lies outside, one is a crowd."""
    boxes = [([1, 1, 2, 3], 20, 0), ([4, 2, 9, 9], 10, 0), ([7, 0, 2, 2], 10, 0), ([0, 0, 3, 3], 10, 1)]
    text(root / "test" / "boxes.json", coco(boxes))
    record = only_record(root)
    assert record["boxes"].tolist() == [[1, 1, 3, 4], [4, 2, 6, 4]]
    assert record["box_labels"].tolist() == [1, 0]
    assert Folder(root, "test").classes == {"box_labels": ("car", "dog")}
    text(root / "test" / "boxes.json", coco([]))
    assert only_record(root)["boxes"].shape == (0, 4)
    text(root / "test" / "boxes.json", coco([], file_name="b.png"))
    with pytest.raises(DataError, match=r"boxes\.json: images: no image a\.png"):
        Folder(root, "test")
    text(root / "test" / "boxes.json", coco([([1, 1, 2, 3], 30, 0)]))
    with pytest.raises(DataError, match=r"boxes\.json: an entry that lacks 30"):
        Folder(root, "test")


@pytest.mark.parametrize("suffix", ["png", "npy", "pfm", "PNG", "NPY", "PFM"])
def test_depth(root, suffix):
    depth = np.linspace(0.5, 9.5, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    depth[0, 0] = 0
    path = root / "test" / "depth" / f"a.{suffix}"
    written = path.with_suffix(path.suffix.lower())
    if written.suffix == ".png":
        save(written, np.round(depth * 1000).astype(np.uint16))
    elif written.suffix == ".npy":
        save(written, np.where(depth == 0, np.nan, depth).astype(np.float64))
    else:
        path.parent.mkdir()
        write_pfm(written, torch.from_numpy(np.where(depth == 0, np.inf, depth))[None])
    written.rename(path)
    assert np.allclose(only_record(root)["depth_m"], depth, atol=6e-4 if suffix in ("png", "PNG") else 1e-6)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"depth/a\.{suffix}"):
        Folder(root, "test").record(0, {"depth_m"})


@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_normals(root, suffix):
    """Facing the camera, to the right, and unknown."""
    normals = np.tile(np.array([0, 0, -1], np.float32), (HEIGHT, WIDTH, 1))
    normals[0, 0] = [1, 0, 0]
    normals[1, 1] = 0
    stored = np.round((normals + 1) * 127.5).astype(np.uint8) if suffix == "png" else 3 * normals
    stored[1, 1] = 0
    save(root / "test" / "normals" / f"a.{suffix}", stored)
    found = only_record(root)["normals"]
    assert np.allclose(found.permute(1, 2, 0), normals, atol=0.01)
    known = torch.ones(HEIGHT, WIDTH)
    known[1, 1] = 0
    torch.testing.assert_close(found.norm(dim=0), known)


def test_instances(root):
    numbers = np.array([[0, 1, 1, 2, 2, 0]] * HEIGHT, np.uint16) * 1
    numbers[0, 0] = 300
    save(root / "test" / "instances" / "a.png", numbers)
    text(root / "classes.txt", "\n".join(NAMES))
    text(root / "test" / "instances" / "a.json", ["car", 1] + ["ground"] * 298)
    record = only_record(root)
    assert torch.equal(record["instances"], torch.from_numpy(numbers.astype(np.int64)))
    assert record["instance_labels"].tolist() == [2] + [1] * 299
    for content, word in (
        (["car"], "instance 300"),
        (["cat"] * 300, "a.json"),
        ([3] * 300, "class 3"),
        ("[", "a.json"),
    ):
        text(root / "test" / "instances" / "a.json", content)
        with pytest.raises(DataError, match=word):
            Folder(root, "test").record(0, {"instances"})


@pytest.mark.parametrize("suffix", ["flo", "png"])
def test_flow_between_the_first_two_of_a_folder(tmp_path, suffix):
    for number in range(3):
        picture(tmp_path / "test" / "images" / "a" / f"{number}.png", number)
    flow = torch.stack([torch.full((HEIGHT, WIDTH), 1.5), torch.full((HEIGHT, WIDTH), -2.0)])
    valid = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    valid[0, 1] = False
    (tmp_path / "test" / "flow").mkdir()
    if suffix == "flo":
        write_flo(tmp_path / "test" / "flow" / "a.flo", flow.where(valid, torch.full((), 1e10)))
    else:
        write_kitti_flow(tmp_path / "test" / "flow" / "a.png", flow, valid)
    assert guess_format(tmp_path) == "folder"
    dataset = open_dataset(tmp_path, "test", get_task("optical_flow"))
    check_records(dataset)
    record = dataset.record(0, dataset.fields)
    assert len(dataset) == 1
    assert record["images"][:, 0, 0, 0].tolist() == [0, 1]
    assert torch.equal(record["flow_valid"], valid)
    assert torch.equal(record["flow"], flow * valid)


def test_video_in_a_folder_gives_all_its_windows(tmp_path):
    for number in range(7):
        picture(tmp_path / "test" / "images" / "a" / f"{number + 6}.png", number)
    text(tmp_path / "test" / "labels.csv", "name,label\na,run\n")
    dataset = Folder(tmp_path, "test", Clip(frames=3, context=((0, 1),), target=(2,)))
    check_records(dataset)
    records = [dataset.record(index, dataset.fields) for index in range(len(dataset))]
    assert [int(record["target"][0, 0, 0]) for record in records] == [2, 5]
    assert [record["query_time"] for record in records] == pytest.approx([0.2, 0.5])
    assert records[0]["label"] == 0
    assert "label" not in records[1]  # it is of the first image
    assert len(Folder(tmp_path, "test", PAIR)) == 1


def test_cameras(tmp_path):
    cameras = {}
    for number in range(2):
        picture(tmp_path / "test" / "images" / "a" / f"{number}.png", number)
        pose = torch.eye(4)
        pose[0, 3] = number
        cameras[f"{number}.png"] = Camera(torch.tensor([[5.0, 0, 3], [0, 5, 2], [0, 0, 1]]), pose)
    write_cameras(tmp_path / "test" / "images" / "a" / "cameras.json", cameras, cameras["0.png"])
    dataset = Folder(tmp_path, "test", Clip(frames=2, context=((1,),), target=(0,)))
    check_records(dataset)
    record = dataset.record(0, dataset.fields)
    assert torch.equal(record["cameras"][0].world_from_camera, cameras["1.png"].world_from_camera)
    assert torch.equal(record["query_camera"].world_from_camera, cameras["0.png"].world_from_camera)


def test_the_image_itself_as_target(root):
    record = only_record(root, clip=Clip(target=(0,)))
    assert torch.equal(record["target"], record["images"][0])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("masks", r"masks/b\.png"),
        ("depth", r"depth/b\.png or depth/b\.npy or depth/b\.pfm"),
        ("flow", r"flow/b\.flo"),
    ],
)
def test_image_that_lacks_a_label(root, kind, expected):
    picture(root / "test" / "images" / "b.png")
    text(root / "classes.txt", "x")
    save(root / "test" / kind / "a.png", np.zeros((HEIGHT, WIDTH), np.uint16))
    with pytest.raises(DataError, match=rf"(?s)b\.png has no label in {kind}.*{expected}"):
        Folder(root, "test")


def test_tables_that_are_wrong(root):
    for content, word in (
        ("name,label\nb,x\n", "no row for a.png"),
        ("file,class\na,x\n", "the header 'file,class'"),
        ("name,label\na,x\na,y\n", "row 3 is 'a,y'"),
        ("name,label\na\n", "row 2 is 'a'"),
        ("", "the header ''"),
    ):
        text(root / "test" / "labels.csv", content)
        with pytest.raises(DataError, match=word):
            Folder(root, "test")


def test_label_of_another_size(root):
    text(root / "classes.txt", "x")
    save(root / "test" / "masks" / "a.png", np.zeros((WIDTH, HEIGHT), np.uint8))
    save(root / "test" / "depth" / "a.npy", np.ones((WIDTH, HEIGHT), np.float32))
    for key in ("mask", "depth_m"):
        with pytest.raises(DataError, match=r"(?s)labels of 4 x 6.*6 x 4"):
            Folder(root, "test").record(0, {key})
    assert set(Folder(root, "test").record(0, {"images"})) == {"images"}


def test_damaged_image(root):
    path = root / "test" / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(DataError, match=r"images/a\.png"):
        Folder(root, "test").record(0, {"images"})


def test_missing_folders_and_other_layouts(tmp_path):
    for folder, word in (("none", "no such folder"), (".", "no folder of images")):
        with pytest.raises(DataError, match=word):
            Folder(tmp_path / folder, "test")
    for number in range(2):  # the layout of YOLO, and class folders
        picture(tmp_path / "yolo" / "images" / "train" / f"{number}.png")
        picture(tmp_path / "classes" / "images" / "cat" / f"{number}.png")
    with pytest.raises(DataError, match=r"train: a split inside images"):
        Folder(tmp_path / "yolo")
    assert not Folder.looks_like(tmp_path / "yolo")
    assert not Folder.looks_like(tmp_path / "classes")
    picture(tmp_path / "twice" / "images" / "a.png")
    picture(tmp_path / "twice" / "images" / "a.jpg")
    with pytest.raises(DataError, match="two images of the name a"):
        Folder(tmp_path / "twice")
