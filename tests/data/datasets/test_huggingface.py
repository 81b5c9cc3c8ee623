import io
import json
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.huggingface import HuggingFace
from transframer.errors import ConfigError, DataError, TransframerError
from transframer.registry import get_task
from transframer.task import Clip

from .contract import check_records

SPLITS = ("train", "validation", "test")
NAMES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def quiet_and_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def pixels(number):
    """Every row has an image of its own, of its own size."""
    return np.random.default_rng(number).integers(
        0, 256, (8 + number % 3, 13 + number % 2, 3), dtype=np.uint8
    )


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def labelled(count, first=0, label=lambda number: number % 3):
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), "id": datasets.Value("int64")}
    )
    rows = [{"img": png(pixels(n)), "label": label(n), "id": n} for n in range(first, first + count)]
    return datasets.Dataset.from_list(rows, features=features)


def numbers_of(dataset, total=40):
    """Which rows a split has, told by their pixels."""
    key = {pixels(n).tobytes(): n for n in range(total)}
    found = []
    for index in range(len(dataset)):
        record = dataset.record(index, {"label"})
        image = record["images"][0].permute(1, 2, 0).numpy()
        found.append(key[image.tobytes()])
        assert record["label"] == found[-1] % 3
    return found


def test_saved_splits(tmp_path):
    datasets.DatasetDict(train=labelled(30), test=labelled(10, 30)).save_to_disk(tmp_path / "a")
    assert guess_format(tmp_path / "a") == "huggingface"
    found = {}
    for split in SPLITS:
        dataset = open_dataset(tmp_path / "a", split, get_task("image_classification"))
        assert dataset.fields == {"images", "label"}
        assert dataset.classes == {"label": tuple(NAMES)}
        assert all(file.suffix == ".arrow" for file in dataset.files(0))
        check_records(dataset)
        found[split] = numbers_of(pickle.loads(pickle.dumps(dataset)))
    assert found["test"] == [*range(30, 40)]
    assert sorted(found["train"] + found["validation"]) == [*range(30)]
    assert 0 < len(found["validation"]) < 10


def test_one_split_is_cut_into_three(tmp_path):
    labelled(40).save_to_disk(tmp_path / "a")
    found = [numbers_of(HuggingFace(tmp_path / "a", split)) for split in SPLITS]
    assert sorted([*found[0], *found[1], *found[2]]) == [*range(40)]
    assert all(found)


def test_test_split_without_labels_gives_way_to_validation(tmp_path):
    hidden = labelled(5, 35, lambda number: -1)
    splits = datasets.DatasetDict(train=labelled(30), validation=labelled(5, 30), test=hidden)
    splits.save_to_disk(tmp_path / "a")
    assert numbers_of(HuggingFace(tmp_path / "a", "test")) == [*range(30, 35)]
    asked = HuggingFace(tmp_path / "a", "test", test_split="test")
    assert len(asked.record(0, {"images"})["images"]) == 1
    with pytest.raises(DataError, match=r"test\[0\]\.label: not labelled"):
        asked.record(0, {"label"})


def test_validation_is_never_test_and_test_alone_does_not_train(tmp_path):
    datasets.DatasetDict(validation=labelled(5)).save_to_disk(tmp_path / "a")
    assert len(HuggingFace(tmp_path / "a", "test")) == 5
    with pytest.raises(DataError, match="no split to train on"):
        HuggingFace(tmp_path / "a", "train")


@pytest.mark.parametrize("layout", ["parquet", "shards", "imagefolder", "file", "saved"])
@pytest.mark.parametrize("streaming", [False, True])
def test_what_datasets_reads(tmp_path, layout, streaming):
    root, rows = tmp_path / "a", labelled(24)
    (root / "data").mkdir(parents=True)
    if layout == "parquet":
        rows.to_parquet(root / "data" / "train-00000-of-00001.parquet")
    elif layout == "shards":
        for shard in range(3):
            rows.shard(3, shard, contiguous=True).to_parquet(root / f"train-{shard:05}-of-00003.parquet")
    elif layout == "file":
        root = root / "some.parquet"
        rows.to_parquet(root)
    elif layout == "saved":
        rows.save_to_disk(root)
    else:
        folder = root / "train"
        folder.mkdir()
        lines = []
        for n in range(24):
            Image.fromarray(pixels(n)).save(folder / f"{n:02}.png")
            lines.append(json.dumps({"file_name": f"{n:02}.png", "label": n % 3}))
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    assert guess_format(root) == "huggingface"
    options = {"streaming": True, "length": 24} if streaming else {}
    options |= {"class_names": {"label": NAMES}} if layout == "imagefolder" else {}
    found = []
    for split in SPLITS:
        dataset = open_dataset(
            root, split, format="huggingface", options={"columns": {"label": "label"}} | options
        )
        check_records(dataset)
        found += numbers_of(dataset)
        if layout == "imagefolder" and not streaming:
            assert dataset.files(0)[0].suffix == ".png"
    assert sorted(found) == [*range(24)]


def test_stream_reads_forward_once_and_shuffles_in_its_window(tmp_path):
    reads = []

    def rows():
        for n in range(700):
            reads.append(n)
            yield {"image": png(pixels(n % 40)), "label": n % 3}

    labelled(700).save_to_disk(tmp_path / "a")
    dataset = HuggingFace(tmp_path / "a", "train", streaming=True)
    window = dataset.shuffle_window
    assert window == 256
    dataset._rows._source = datasets.IterableDataset.from_generator(rows, features=None)
    order = np.concatenate(
        [
            start + np.random.default_rng(0).permutation(min(window, len(dataset) - start))
            for start in range(0, len(dataset), window)
        ]
    )
    for index in order.tolist():
        assert dataset._rows[index]["label"] == dataset._numbers[index] % 3
    assert max(np.bincount(reads)) == 1
    assert dataset._rows[0]["label"] == dataset._numbers[0] % 3
    assert reads.count(0) == 2


def test_stream_that_does_not_know_its_length(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    labelled(12).to_parquet(tmp_path / "a" / "train.parquet")
    with pytest.raises(ConfigError, match="length"):
        HuggingFace(tmp_path / "a", streaming=True)
    dataset = HuggingFace(tmp_path / "a", "train", streaming=True, length=400)
    assert dataset.files(0) == [tmp_path / "a"]
    monkeypatch.setattr(dataset, "root", Path("id/of-the-hub"))
    assert dataset.files(0) == [], "nothing there is missing"
    monkeypatch.undo()
    with pytest.raises(DataError, match="the stream ends after"):
        dataset.record(len(dataset) - 1, {"images"})


def detection(tmp_path, objects, box_format, names=None):
    category = datasets.ClassLabel(names=NAMES) if names is None else datasets.Value("int64")
    features = {
        "image": datasets.Image(),
        "objects": {
            "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
            "category": datasets.List(category),
        },
    }
    if isinstance(objects[0], list):
        features["objects"] = [{"bbox": datasets.List(datasets.Value("float32")), "category": category}]
    rows = [{"image": png(pixels(n)), "objects": entry} for n, entry in enumerate(objects)]
    datasets.DatasetDict(
        test=datasets.Dataset.from_list(rows, features=datasets.Features(features))
    ).save_to_disk(tmp_path / "a")
    given = {"box_labels": names} if names else None
    return HuggingFace(tmp_path / "a", "test", box_format=box_format, class_names=given)


@pytest.mark.parametrize(
    ("box_format", "boxes"),
    [
        ("xywh", [[1, 2, 3, 4], [10, 5, 9, 9], [20, 1, 2, 2]]),
        ("xyxy", [[1, 2, 4, 6], [10, 5, 19, 14], [20, 1, 22, 3]]),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("names", [None, NAMES])
def test_boxes(tmp_path, box_format, boxes, listed, names):
    """The image is 13 x 8: the second box is cut to it, the third lies outside; the second row has none."""
    entry = {"bbox": boxes, "category": [2, 0, 1]}
    entries = [entry, {"bbox": [], "category": []}]
    if listed:
        entries = [
            [{"bbox": box, "category": label} for box, label in zip(boxes, [2, 0, 1], strict=True)],
            [],
        ]
    dataset = detection(tmp_path, entries, box_format, names)
    assert dataset.fields == {"images", "boxes", "box_labels"}
    assert dataset.classes == {"box_labels": tuple(NAMES)}
    check_records(dataset)
    record = dataset.record(0, {"boxes", "box_labels"})
    assert record["boxes"].tolist() == [[1, 2, 4, 6], [10, 5, 13, 8]]
    assert record["box_labels"].tolist() == [2, 0]
    assert dataset.record(1, {"boxes"})["boxes"].shape == (0, 4)


def test_box_classes_without_names_are_asked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"class_names\.box_labels"):
        detection(tmp_path, [{"bbox": [], "category": []}], "xywh", names=[])


def maps(tmp_path, **columns):
    """One row of maps of 4 x 3 pixels, in a test split."""
    rows = {
        name: [png(values) if isinstance(values, np.ndarray) else values] for name, values in columns.items()
    }
    rows["image"] = [png(np.zeros((3, 4, 3), np.uint8))]
    features = datasets.Features(
        {
            name: datasets.Value("float32") if isinstance(columns.get(name), float) else datasets.Image()
            for name in rows
        }
    )
    datasets.DatasetDict(test=datasets.Dataset.from_dict(rows, features=features)).save_to_disk(
        tmp_path / "a"
    )
    return tmp_path / "a"


def test_masks_and_their_names(tmp_path):
    ids = np.array([[0, 1, 2, 255], [1, 1, 0, 0], [3, 2, 1, 0]], np.uint8)
    root = maps(tmp_path, annotation=ids)
    with pytest.raises(ConfigError, match=r"class_names\.mask"):
        HuggingFace(root, "test")
    names = {"mask": [*NAMES, "fox"]}
    dataset = HuggingFace(root, "test", class_names=names)
    check_records(dataset)
    assert dataset.record(0, {"mask"})["mask"].tolist() == ids.tolist()
    reduced = HuggingFace(root, "test", class_names={"mask": NAMES}, reduce_labels=True)
    check_records(reduced)
    expected = [[255, 0, 1, 255], [0, 0, 255, 255], [2, 1, 0, 255]]
    assert reduced.record(0, {"mask"})["mask"].tolist() == expected
    with pytest.raises(DataError, match=r"class id 3 .*"):
        HuggingFace(root, "test", class_names={"mask": NAMES}).record(0, {"mask"})
    assert HuggingFace(root, "test", columns={"mask": None}).fields == {"images"}


def test_depth_and_its_unit(tmp_path):
    units = np.array([[0, 1, 2, 3], [500, 1000, 2500, 65535], [9, 9, 9, 9]])
    root = maps(tmp_path / "16", depth=units.astype(np.uint16))
    dataset = HuggingFace(root, "test")
    check_records(dataset)
    assert np.allclose(dataset.record(0, {"depth_m"})["depth_m"], units / 1000, rtol=1e-6)
    scaled = HuggingFace(root, "test", depth_scale=1 / 256)
    assert np.allclose(scaled.record(0, {"depth_m"})["depth_m"], units / 256, rtol=1e-6)
    root = maps(tmp_path / "8", depth=(units % 256).astype(np.uint8))
    with pytest.raises(DataError, match="depth_scale"):
        HuggingFace(root, "test").record(0, {"depth_m"})
    file = io.BytesIO()
    Image.fromarray(np.array([[1.5, np.nan, -1, 0]] * 3, np.float32)).save(file, format="TIFF")
    root = maps(tmp_path / "f", depth={"bytes": file.getvalue(), "path": None})
    assert HuggingFace(root, "test").record(0, {"depth_m"})["depth_m"][0].tolist() == [1.5, 0, 0, 0]


def test_map_of_another_size_than_the_image(tmp_path):
    root = maps(tmp_path, depth=np.ones((4, 4), np.uint16))
    with pytest.raises(DataError, match=r"test\[0\]\.depth"):
        HuggingFace(root, "test").record(0, {"depth_m"})


def test_several_images_and_targets(tmp_path):
    features = datasets.Features({"frames": datasets.List(datasets.Image()), "next": datasets.Image()})
    rows = [
        {"frames": [png(pixels(6 * n)), png(pixels(6 * n + 6))], "next": png(pixels(6 * n + 12))}
        for n in range(2)
    ]
    datasets.DatasetDict(test=datasets.Dataset.from_list(rows, features=features)).save_to_disk(
        tmp_path / "a"
    )
    dataset = HuggingFace(tmp_path / "a", "test", columns={"images": "frames", "target": "next"})
    check_records(dataset)
    record = dataset.record(1, {"target"})
    assert [
        np.array_equal(image.permute(1, 2, 0), pixels(n))
        for image, n in zip(record["images"], (6, 12), strict=True)
    ] == [True, True]
    assert np.array_equal(record["target"].permute(1, 2, 0), pixels(18))


def test_the_image_is_its_own_target_where_the_clip_asks(tmp_path):
    datasets.DatasetDict(test=labelled(2)).save_to_disk(tmp_path / "a")
    dataset = HuggingFace(tmp_path / "a", "test", Clip(target=(0,)))
    check_records(dataset)
    record = dataset.record(1, {"target"})
    assert torch.equal(record["target"], record["images"][0])
    video = HuggingFace(tmp_path / "a", "test", Clip(frames=3, context=((0, 1),), target=(2,)))
    assert "target" not in video.fields, "a still is no frame that comes next"
    assert "target" not in video.record(1, {"images", "target"})


def test_names_of_labels_that_are_text_or_numbers(tmp_path):
    for name, values in (("text", ["b", "a", "b"]), ("number", [7, 3, 7])):
        rows = datasets.Dataset.from_dict(
            {"image": [png(pixels(n)) for n in range(3)], "kind": values}
        ).cast_column("image", datasets.Image())
        datasets.DatasetDict(test=rows).save_to_disk(tmp_path / name)
        dataset = HuggingFace(tmp_path / name, "test", columns={"label": "kind"})
        assert dataset.classes["label"] == tuple(sorted(str(value) for value in set(values)))
        assert [dataset.record(n, {"label"})["label"] for n in range(3)] == [1, 0, 1]


def test_only_the_columns_asked_for_are_read(tmp_path):
    root = maps(tmp_path, depth={"bytes": b"no image", "path": None})
    dataset = HuggingFace(root, "test")
    assert set(dataset.record(0, {"images"})) == {"images"}
    with pytest.raises(DataError, match=r"test\[0\]\.depth"):
        dataset.record(0, {"depth_m"})


def test_damaged_image_names_its_cell(tmp_path):
    whole = png(pixels(0))
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"image": whole}, {"image": {"bytes": whole["bytes"][:60], "path": "b.png"}}, {"image": None}]
    datasets.DatasetDict(test=datasets.Dataset.from_list(rows, features=features)).save_to_disk(
        tmp_path / "a"
    )
    dataset = HuggingFace(tmp_path / "a", "test")
    with pytest.raises(DataError, match=r"test\[1\]\.image \(b\.png\)"):
        dataset.record(1, {"images"})
    with pytest.raises(DataError, match=r"test\[2\]\.image: no image"):
        dataset.record(2, {"images"})


def test_truncated_parquet_and_what_is_not_there(tmp_path):
    root = tmp_path / "a"
    root.mkdir()
    labelled(12).to_parquet(root / "train.parquet")
    content = (root / "train.parquet").read_bytes()
    (root / "train.parquet").write_bytes(content[: len(content) // 2])
    for streaming in (False, True):
        with pytest.raises(DataError, match=str(root)):
            HuggingFace(root, streaming=streaming, length=12).record(0, {"images"})
    with pytest.raises(DataError, match="no such"):
        HuggingFace(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        HuggingFace(tmp_path / "empty")
    assert not HuggingFace.looks_like(tmp_path / "empty")


def test_wrong_options(tmp_path):
    datasets.DatasetDict(test=labelled(2)).save_to_disk(tmp_path / "a")
    for options, word in (
        ({"columns": {"images": "imgs"}}, "did you mean 'img'"),
        ({"columns": {"depth": "img"}}, "did you mean 'depth_m'"),
        ({"test_split": "tests"}, "did you mean 'test'"),
        ({"box_format": "cxcywh"}, "xywh"),
        ({"class_names": {"images": ["a"]}}, "class_names"),
    ):
        with pytest.raises(TransframerError, match=word):
            HuggingFace(tmp_path / "a", "test", **options)
    features = datasets.Features({"before": datasets.Image(), "after": datasets.Image()})
    rows = datasets.Dataset.from_list(
        [{"before": png(pixels(0)), "after": png(pixels(0))}], features=features
    )
    rows.save_to_disk(tmp_path / "b")
    with pytest.raises(ConfigError, match="columns before, after"):
        HuggingFace(tmp_path / "b")


def test_stream_that_knows_its_length_from_its_card(tmp_path):
    (tmp_path / "a").mkdir()
    labelled(12).to_parquet(tmp_path / "a" / "train.parquet")
    card = "---\ndataset_info:\n  splits:\n  - name: train\n    num_examples: 12\n---\n"
    (tmp_path / "a" / "README.md").write_text(card)
    parts = [HuggingFace(tmp_path / "a", split, streaming=True) for split in SPLITS]
    found = [number for part in parts for number in numbers_of(part)]
    assert sorted(found) == [*range(12)]
