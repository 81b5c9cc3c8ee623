import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection

from transframer.data.catalog import guess_format, open_dataset
from transframer.data.datasets.voc import VOC
from transframer.errors import ConfigError, DataError, UnknownNameError

from .contract import check_records

HEIGHT, WIDTH = 12, 18
OBJECT = (
    "<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
    "<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>"
    "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    "</object>"
)
PERSON, BICYCLE = 15, 2


def palette_png(path, numbers):
    """As the authors': indices into a palette whose colours are other numbers than the indices."""
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette([255 - value // 3 for value in range(768)])
    assert image.mode == "P"
    image.save(path)


def write_base(base, segmentation=(), detection=(), test=()):
    """Two people that touch, a bicycle, borders of 255; boxes, one of them difficult."""
    folders = ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject")
    for folder in (*folders, "ImageSets/Segmentation", "ImageSets/Main"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for stem in {*segmentation, *detection, *test}:
        draws = np.random.default_rng(int(stem[-3:]))
        pixels = draws.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(base / "JPEGImages" / f"{stem}.jpg")
        objects = [
            OBJECT.format(name="person", difficult=0, box=(3, 2, 7, 10)),
            OBJECT.format(name="dog", difficult=1, box=(1, 1, 4, 4)),
            OBJECT.format(name="bicycle", difficult=0, box=(11.5, 4, WIDTH + 3, HEIGHT)),
            OBJECT.format(name="person", difficult=0, box=(WIDTH + 2, 4, WIDTH + 3, HEIGHT)),
        ]
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{stem}.jpg</filename>{size}{''.join(objects)}</annotation>"
        (base / "Annotations" / f"{stem}.xml").write_text(text)
        if stem in {*segmentation, *test}:
            classes, things = drawn_masks()
            palette_png(base / "SegmentationClass" / f"{stem}.png", classes)
            palette_png(base / "SegmentationObject" / f"{stem}.png", things)
    for folder, stems in (("Segmentation", segmentation), ("Main", detection)):
        (base / "ImageSets" / folder / "train.txt").write_text("\n".join(stems[:-2]) + "\n")
        (base / "ImageSets" / folder / "val.txt").write_text("\n".join(stems[-2:]) + "\n")
        if test:
            (base / "ImageSets" / folder / "test.txt").write_text("\n".join(test) + "\n")
    return base


def drawn_masks():
    classes, things = np.zeros((HEIGHT, WIDTH), int), np.zeros((HEIGHT, WIDTH), int)
    classes[1:10, 2:7], things[1:10, 2:5], things[1:10, 5:7] = PERSON, 1, 4
    classes[4:9, 11:16], things[4:9, 11:16] = BICYCLE, 3
    classes[10, 2:7] = things[10, 2:7] = 255
    return classes, things


def stems(count, start=0):
    return [f"2007_{number:06}" for number in range(start, start + count)]


@pytest.fixture
def root(tmp_path):
    write_base(tmp_path / "VOCdevkit" / "VOC2012", stems(12), stems(30))
    return tmp_path


def split_stems(root, **options):
    splits = (
        open_dataset(root, split, format="voc", options=options) for split in ("train", "validation", "test")
    )
    return [[dataset.files(index)[0].stem for index in range(len(dataset))] for dataset in splits]


@pytest.mark.parametrize("folder", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_splits_keep_the_contract_and_share_nothing(root, folder):
    assert guess_format(root / folder) == "voc"
    for split in ("train", "validation", "test"):
        dataset = VOC(root / folder, split)
        check_records(dataset)
        labels = {"mask", "instances", "instance_labels", "boxes", "box_labels"}
        assert dataset.fields == labels | {"images"}
    train, validation, test = split_stems(root / folder)
    assert test == stems(2, 10)
    assert sorted(train + validation) == stems(10)
    assert len(validation) == 1


def test_the_detection_set_is_larger_and_has_boxes_only(root):
    train, validation, test = split_stems(root, image_set="detection")
    assert test == stems(2, 28)
    assert sorted(train + validation) == stems(28)
    dataset = VOC(root, "test", image_set="detection")
    check_records(dataset)
    assert dataset.fields == {"images", "boxes", "box_labels"}
    assert set(dataset.classes) == {"box_labels"}
    for path in sorted(root.glob("VOCdevkit/VOC2012/ImageSets/Segmentation/*")):
        path.unlink()
    (root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation").rmdir()
    assert len(VOC(root, "test")) == 2
    assert VOC(root, "test").image_set == "detection"


def test_boxes_count_from_0_to_the_outer_edge_without_difficult_ones(root):
    dataset = VOC(root, "test")
    record = dataset.record(0, {"boxes", "box_labels"})
    assert set(record) == {"images", "boxes", "box_labels"}
    assert record["boxes"].tolist() == [[2, 1, 7, 10], [10.5, 3, WIDTH, HEIGHT]]
    assert [dataset.classes["box_labels"][label] for label in record["box_labels"]] == ["person", "bicycle"]
    theirs = VOCDetection(root, year="2012", image_set="val")[0][1]["annotation"]["object"][0]["bndbox"]
    box = record["boxes"][0]
    assert float(theirs["xmax"]) - float(theirs["xmin"]) + 1 == box[2] - box[0]
    assert float(theirs["ymax"]) - float(theirs["ymin"]) + 1 == box[3] - box[1]


def test_masks_and_instances_are_the_indices_of_the_palette(root):
    dataset = VOC(root, "test")
    record = dataset.record(0, {"mask", "instances", "instance_labels"})
    classes, things = drawn_masks()
    assert np.array_equal(record["mask"], classes)
    expected = np.select([things == 1, things == 3, things == 4], [1, 2, 3], 0)
    assert np.array_equal(record["instances"], expected)
    names = dataset.classes
    assert [names["instance_labels"][label] for label in record["instance_labels"]] == [
        "person",
        "bicycle",
        "person",
    ]
    assert (names["mask"][0], names["mask"][PERSON], names["mask"][BICYCLE]) == (
        "background",
        "person",
        "bicycle",
    )
    assert len(names["mask"]) == 21


def test_with_labels_for_its_test_list_that_is_test(tmp_path):
    write_base(tmp_path / "VOC2007", stems(12), stems(12), test=stems(3, 100))
    train, validation, test = split_stems(tmp_path)
    assert test == stems(3, 100)
    assert sorted(train + validation) == stems(12), "train and val together"
    for stem in test:
        (tmp_path / "VOC2007" / "SegmentationClass" / f"{stem}.png").unlink()
    assert split_stems(tmp_path)[2] == stems(2, 10), "a list without labels is not read"


def test_of_several_years_the_latest_is_read_unless_one_is_named(root):
    write_base(root / "VOCdevkit" / "VOC2007", stems(12, 200), stems(12, 200))
    assert split_stems(root)[2] == stems(2, 10)
    assert split_stems(root, year=2007)[2] == stems(2, 210)
    with pytest.raises(DataError, match="no VOC2008"):
        VOC(root, year=2008)


def test_other_classes_can_be_named(tmp_path):
    base = write_base(tmp_path, stems(12))
    path = base / "Annotations" / f"{stems(2, 10)[0]}.xml"
    path.write_text(path.read_text().replace("bicycle", "unicorn"))
    with pytest.raises(DataError, match=r"2007_000010\.xml: name: class 'unicorn'"):
        VOC(base, "test").record(0, {"boxes"})
    names = ["unicorn", *(f"other {number}" for number in range(13)), "person"]
    dataset = VOC(base, "test", class_names=names)
    assert dataset.record(0, {"box_labels"})["box_labels"].tolist() == [14, 0]
    assert dataset.classes["mask"] == ("background", *names)
    with pytest.raises(ConfigError, match="class_names"):
        VOC(base, "test", class_names=[str(number) for number in range(255)])


def test_damage_is_named(tmp_path):
    base = write_base(tmp_path, stems(12))
    first, second = stems(2, 10)
    xml = base / "Annotations" / f"{first}.xml"
    xml.write_text(xml.read_text()[:-40])
    palette_png(base / "SegmentationClass" / f"{first}.png", np.full((HEIGHT, WIDTH), 21))
    palette_png(base / "SegmentationClass" / f"{second}.png", np.zeros((HEIGHT, WIDTH)))
    dataset = pickle.loads(pickle.dumps(VOC(base, "test")))
    with pytest.raises(DataError, match=rf"{first}\.xml: not XML, or truncated"):
        dataset.record(0, {"boxes"})
    with pytest.raises(DataError, match=rf"{first}\.png: the number 21"):
        dataset.record(0, {"mask"})
    with pytest.raises(DataError, match=rf"SegmentationObject/{second}\.png: an object without a class"):
        dataset.record(1, {"instances"})
    assert torch.equal(dataset.record(1, {"mask"})["mask"], torch.zeros(HEIGHT, WIDTH, dtype=torch.int64))
    png = base / "SegmentationObject" / f"{first}.png"
    png.write_bytes(png.read_bytes()[:-30])
    palette_png(base / "SegmentationClass" / f"{first}.png", drawn_masks()[0])
    with pytest.raises(DataError, match=rf"SegmentationObject/{first}\.png: cannot be read"):
        dataset.record(0, {"instances"})
    xml.unlink()
    with pytest.raises(DataError, match=rf"{first}\.xml: cannot be read: No such file"):
        dataset.record(0, {"boxes"})


def test_malformed_boxes_are_named(tmp_path):
    base = write_base(tmp_path, stems(12))
    xml = base / "Annotations" / f"{stems(1, 10)[0]}.xml"
    text = xml.read_text()
    for wrong in ("", "<xmin>x</xmin>"):
        xml.write_text(text.replace("<xmin>3</xmin>", wrong))
        with pytest.raises(DataError, match=r"2007_000010\.xml: bndbox: a box is malformed"):
            VOC(base, "test").record(0, {"boxes"})


def test_wrong_layouts_and_options_are_named(root):
    with pytest.raises(UnknownNameError, match="unknown image_set 'boxes'"):
        VOC(root, image_set="boxes")
    with pytest.raises(DataError, match="not a VOC folder"):
        VOC(root / "VOCdevkit" / "VOC2012" / "JPEGImages")
    base = root / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation" / "val.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"Segmentation/val\.txt: cannot be read: 'utf-8'"):
        VOC(root, "test")
    (base / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"Segmentation/val\.txt: no such list"):
        VOC(root, "test")
    (base / "SegmentationClass").rename(base / "elsewhere")
    with pytest.raises(DataError, match="SegmentationClass: no such folder"):
        VOC(root)
