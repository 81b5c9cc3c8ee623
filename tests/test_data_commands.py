"""`data check` and `data show` from the command line: exit codes, what is printed, what is written."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transframer import cli
from transframer.data.datasets.stills import StillDataset
from transframer.data.formats.images import load_image
from transframer.data_config import CheckConfig, ShowConfig
from transframer.data_show import OTHERS, Row, sheet
from transframer.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")


class Labelled(StillDataset):
    """root/SPLIT/*.png, and root/SPLIT/labels.pt: the names of the classes, and a record for each image."""

    name, summary = "labelled", "for these tests"

    def __init__(self, root, split="train", clip=None, interrupted=False):
        super().__init__(root, split, clip)
        if not (self.root / split).is_dir():
            raise DataError("no such folder", file=self.root / split)
        self.paths = sorted((self.root / split).glob("*.png"))
        self.names, self.records = torch.load(self.root / split / "labels.pt")
        self.interrupted = interrupted

    @property
    def labels(self):
        return frozenset(key for record in self.records for key in record)

    @property
    def classes(self):
        return self.names

    def __len__(self):
        return len(self.paths)

    def files(self, index):
        return [self.paths[index]]

    def image(self, index):
        if self.interrupted:
            raise KeyboardInterrupt
        return load_image(self.paths[index])

    def label_fields(self, index, keys):
        return {key: value for key, value in self.records[index].items() if key in keys}


FORMAT = f"{__name__}:Labelled"


def written(root: Path, record_of, names: dict, splits=SPLITS, count: int = 6) -> Path:
    """A data set with a record of each number, images of 48 x 40 pixels."""
    generator = np.random.default_rng(0)
    for split in splits:
        (root / split).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{number}.png")
        torch.save((names, [record_of(number) for number in range(count)]), root / split / "labels.pt")
    return root


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def check(root: Path, *words: str) -> int:
    return cli.main(["data", "check", str(root), "--format", FORMAT, "--size-px", "32", *words])


def show(root: Path, *words: str) -> int:
    return cli.main(["data", "show", str(root), "--format", FORMAT, "--size-px", "32", *words])


labels = partial(written, record_of=lambda number: {"label": number % 2}, names={"label": ("cat", "dog")})


def test_a_clean_data_set_is_fine(tmp_path, capsys):
    json_file = tmp_path / "found.json"
    root = labels(tmp_path / "data")
    assert check(root, "--task", "image_classification", "--json", str(json_file)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "train 6, validation 6, test 6" in out
    assert len(re.findall(r"3 +50.0% (cat|dog)$", out, re.MULTILINE)) == 6
    assert "!" not in out
    found = json.loads(json_file.read_text())
    assert found["records"] == dict.fromkeys(SPLITS, 6)
    assert found["protocol"]["task_settings"] == {"classes": ["cat", "dog"]}
    for split in SPLITS:
        assert found["splits"][split]["classes"][0]["counts"] == [3, 3]
        assert found["splits"][split]["coding"]["tokens_mean"] == 1
    assert not any(line["mend"] for line in found["what_to_change"])


def test_a_cut_off_image_is_named(tmp_path, capsys):
    root = labels(tmp_path)
    cut_off(root / "validation" / "3.png")
    assert check(root, "--task", "image_classification") == 1
    out = capsys.readouterr().out
    assert re.search(r"unreadable +\S+/validation/3.png: cannot be read as an image: .*truncated", out)
    assert "! validation: 1 files cannot be read, which 1 records need (16.67%)" in out
    assert check(root, "--task", "image_classification", "--split", "train") == 0


@pytest.mark.parametrize(
    ("task", "record", "names", "message"),
    [
        (
            "image_classification",
            lambda n: {"label": 7 if n == 3 else n % 2},
            {"label": ("cat", "dog")},
            r"! train: label has ids that are no class: 7 \(1 times\)",
        ),
        (
            "image_classification",
            lambda n: {"label": n % 2},
            {"label": ("cat", "dog", "newt")},
            r"! train: 1 of 3 classes of label do not occur \(newt\)",
        ),
        (
            "semantic_segmentation",
            lambda n: {"mask": torch.full((40, 48), 2 * (n == 3))},
            {"mask": ("sky", "sea")},
            r"! train: mask has ids that are no class: 2 \(1920 times\)",
        ),
        (
            "depth_estimation",
            lambda n: {"depth_m": torch.full((40, 48), 90.0 if n == 3 else 9.0)},
            {},
            r"! train: 16.7% of the depths lie outside 1 to 80 m, .*\"max_depth_m\": 90.0",
        ),
        (
            "object_detection",
            lambda n: {
                "boxes": torch.tensor([[4.0, 4.0, 5.0 if n == 3 else 20.0, 20.0]]),
                "box_labels": torch.tensor([0]),
            },
            {"box_labels": ("thing",)},
            r"! train: 1 boxes \(16.7%\) are less than a pixel wide or high at 32 px: --size-px 48",
        ),
    ],
)
def test_labels_that_do_not_fit_are_told_with_what_to_change(tmp_path, capsys, task, record, names, message):
    root = written(tmp_path, record, names, splits=("train",))
    assert check(root, "--task", task) == 1
    out = capsys.readouterr().out
    assert re.search(message, out), out
    assert "no validation split" in out


def test_the_settings_that_are_advised_mend_it(tmp_path, capsys):
    root = written(
        tmp_path, lambda n: {"depth_m": torch.full((40, 48), 30.0 + 60 * (n == 3))}, {}, ("train",)
    )
    assert check(root, "--task", "depth_estimation") == 1
    settings = re.search(r"--task-settings '(.*)'", capsys.readouterr().out)
    assert settings is not None
    assert check(root, "--task", "depth_estimation", "--task-settings", settings[1]) == 0


def test_a_copy_across_splits_is_told(tmp_path, capsys):
    root = labels(tmp_path)
    (root / "test" / "2.png").write_bytes((root / "train" / "4.png").read_bytes())
    assert check(root, "--task", "image_classification") == 1
    assert re.search(r"! 1 images of one split .*/train/4.png and .*/test/2.png", capsys.readouterr().out)


def test_without_a_task_those_served_are_listed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "transframer.data_check.task_names", lambda: ("depth_estimation", "image_classification")
    )
    assert check(labels(tmp_path)) == 0
    out = capsys.readouterr().out
    assert re.findall(r"serves (\w+)", out) == ["image_classification"]
    assert "codec" not in out


def test_stills_of_the_plain_layout_are_inspected_without_a_task(tmp_path, capsys):
    """Tasks that want several frames are no error."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "classes.txt").write_text("sky\nground\n")
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(pixels[..., 0] % 2).save(tmp_path / "masks" / f"{number}.png")
    assert cli.main(["data", "check", str(tmp_path), "--size-px", "32"]) < 2
    served = re.findall(r"serves (\w+)", capsys.readouterr().out)
    assert "semantic_segmentation" in served
    assert "video_prediction" not in served


def test_of_several_layouts_each_task_is_asked_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "transframer.data_check.task_names", lambda: ("image_classification", "video_prediction")
    )
    for name in ("cat", "dog", "emu", "fox"):
        (tmp_path / name).mkdir()
        for number in range(12):
            Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    cli.main(["data", "check", str(tmp_path), "--size-px", "32"])
    served = re.findall(r"serves (\w+)", capsys.readouterr().out)
    assert served == ["image_classification", "video_prediction"]


def test_what_cannot_be_opened_is_an_error(tmp_path, capsys):
    assert check(tmp_path) == 2
    assert f"{tmp_path}/train: no such folder" in capsys.readouterr().err
    root = labels(tmp_path / "data", splits=("train",))
    assert check(root, "--split", "test") == 2
    assert check(root, "--task", "depth_estimation") == 2
    err = capsys.readouterr().err
    assert "the data set has no depth_m" in err
    assert len(err.splitlines()) <= 6


def test_an_interrupt_ends_it(tmp_path, capsys):
    root = labels(tmp_path)
    assert check(root, "--data-options.interrupted", "true") == 130
    assert capsys.readouterr().err == "transframer: interrupted\n"


def test_the_sheet_has_a_row_for_each_record_and_a_column_for_each_step(tmp_path, capsys):
    root = labels(tmp_path / "data")
    cut_off(root / "train" / "1.png")
    out = tmp_path / "sheet.png"
    assert show(root, "--task", "image_classification", "--samples", "8", "--out", str(out)) == 0
    said = capsys.readouterr()
    assert "5 of 6 records of train" in said.out
    assert re.search("left out: record 1: .*1.png: .*truncated", said.err)
    picture = np.asarray(Image.open(out))
    tile, gap, title = 192, 8, 22
    assert picture.shape == (gap + title + 5 * (title + tile + gap), gap + 5 * (tile + gap), 3)
    places = [
        (gap + title + row * (title + tile + gap) + title, gap + column * (tile + gap))
        for row in range(5)
        for column in range(1 + len(OTHERS))
    ]
    tiles = [picture[y : y + tile, x : x + tile] for y, x in places]
    paper = picture[0, 0]
    for each in tiles:
        assert each.std() > 1
        assert not (each == paper).all(-1).any()
    # The target is grey but for the block of the class, 48 x 48 on the sheet; the codec keeps it.
    for row in range(5):
        target, coded = tiles[5 * row + 1], tiles[5 * row + 2]
        assert (target == 255).all(-1).sum() == 48**2
        assert np.abs(target.astype(int) - coded).max() <= 8
    captions = picture[gap : gap + title]
    assert (captions != paper).any()


def test_the_seed_chooses_the_records(tmp_path):
    root = labels(tmp_path / "data")

    def drawn(seed: int) -> bytes:
        out = tmp_path / "sheet.png"
        words = ["--task", "image_classification", "--samples", "2", "--seed", str(seed), "--out", str(out)]
        assert show(root, *words) == 0
        return out.read_bytes()

    assert drawn(0) == drawn(0) != drawn(1)


def test_it_shows_what_training_meets(tmp_path):
    root = labels(tmp_path / "data")
    out = tmp_path / "sheet.png"

    def drawn(*options: str) -> bytes:
        assert (
            show(root, "--task", "image_classification", "--samples", "2", "--out", str(out), *options) == 0
        )
        return out.read_bytes()

    plain = drawn()
    for options in (["--crop", "0.5"], ["--color", "0.5"]):
        assert drawn(*options) == drawn(*options) != plain
    assert drawn("--crop", "1", "--no-flip") == plain


def test_a_data_set_without_a_record_to_show_is_an_error(tmp_path, capsys):
    root = labels(tmp_path / "data")
    for path in (root / "train").glob("*.png"):
        cut_off(path)
    assert show(root, "--task", "image_classification", "--out", str(tmp_path / "sheet.png")) == 2
    assert "truncated" in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()


def test_rows_of_fewer_context_frames_are_aligned_at_the_target():
    def tile(grey: int) -> torch.Tensor:
        return torch.full((3, 16, 16), grey, dtype=torch.uint8)

    others = (tile(10), tile(20), tile(30), tile(40))
    drawn = sheet([Row("a", "", (tile(1), tile(2)), others), Row("b" * 500, "3 tokens", (tile(3),), others)])
    across, down, top = 200, 222, 8 + 22 + 22
    middles = [[int(drawn[0, top + row * down + 96, 8 + column * across + 96]) for column in range(6)]
               for row in range(2)]  # fmt: skip
    assert middles == [[1, 2, 10, 20, 30, 40], [232, 3, 10, 20, 30, 40]]


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (CheckConfig, {"data": "d", "samples": 0}),
        (CheckConfig, {"data": "d", "size_px": 40}),
        (ShowConfig, {"data": "d", "task": "t", "out": "o", "samples": 0}),
    ],
)
def test_settings_out_of_range(config, values):
    with pytest.raises(ConfigError):
        config(**values)
