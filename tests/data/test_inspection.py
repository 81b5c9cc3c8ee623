"""What an inspection finds, against figures computed by hand."""

import math
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.codec import token_count
from transframer.data.datasets.sequences import FrameSequence, SequenceDataset
from transframer.data.datasets.stills import StillDataset
from transframer.data.formats.images import image_size, load_image
from transframer.data.inspection.advice import advice, of_flows
from transframer.data.inspection.dense import DepthTally, FlowTally
from transframer.data.inspection.files import checked_files, copies
from transframer.data.inspection.inspect import inspected
from transframer.data.inspection.labels import BoxTally, ClassTally
from transframer.data.inspection.report import report
from transframer.data.inspection.tasks import served_tasks
from transframer.data.source import resized
from transframer.errors import ConfigError, DataError
from transframer.registry import get_task

TASKS = (
    "depth_estimation",
    "frame_interpolation",
    "image_classification",
    "object_detection",
    "optical_flow",
    "semantic_segmentation",
    "video_prediction",
    "view_synthesis",
)


class Stills(StillDataset):
    """Images given by their paths, with labels given as they are."""

    name, summary = "stills", "for these tests"

    def __init__(self, root, split="train", clip=None, *, paths=(), records=None, names=None):
        super().__init__(root, split, clip)
        self.paths, self.names = list(paths), names or {}
        self.records = records or [{}] * len(self.paths)
        self.images_read = []

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
        self.images_read.append(index)
        return load_image(self.paths[index])

    def label_fields(self, index, keys):
        return {key: value for key, value in self.records[index].items() if key in keys}


def save(path: Path, width: int = 32, height: int = 32, seed: int = 0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def stills(folder: Path, records: list[dict], names: dict | None = None, **sizes) -> Stills:
    paths = [save(folder / f"{n:03}.png", seed=n, **sizes) for n in range(len(records))]
    return Stills(folder, paths=paths, records=records, names=names)


def advised(dataset: Stills, task=None, size_px: int = 32, split: str = "train") -> dict[str, bool]:
    """Each line of advice, and whether it is something to mend."""
    found = {split: inspected(dataset, task, size_px=size_px)}
    return {str(line): line.mend for line in advice(found, [], task, size_px)}


def mends(lines: dict[str, bool], pattern: str) -> bool:
    """Whether exactly one line has the pattern, and is something to mend."""
    matching = [mend for line, mend in lines.items() if re.search(pattern, line)]
    assert len(matching) == 1, (pattern, lines)
    return matching[0]


def test_sizes(tmp_path):
    sizes = [(40, 20), (30, 30), (40, 20), (100, 20)]
    paths = [save(tmp_path / f"{n}.png", *size) for n, size in enumerate(sizes)]
    found = inspected(Stills(tmp_path, paths=paths), size_px=32, samples=1)
    assert (found.records, found.sampled, found.files.images) == (4, 1, 4)
    assert found.sizes is not None
    assert not found.sizes.decoded
    assert (found.sizes.smallest, found.sizes.median, found.sizes.largest) == ((40, 20), (40, 20), (100, 20))
    assert (found.sizes.different, found.sizes.squeezed, found.sizes.small) == (3, 1, 4)


def test_sizes_are_those_of_records_where_these_are_parts_of_images(tmp_path):
    class Halves(Stills):
        def image(self, index):
            return super().image(index)[:, :, :20]

    found = inspected(
        Halves(tmp_path, paths=[save(tmp_path / "a.png", 40, 30), save(tmp_path / "b.png", 40, 30)])
    )
    assert found.sizes is not None
    assert found.sizes.decoded
    assert found.sizes.smallest == found.sizes.largest == (20, 30)


def test_a_photograph_on_its_side_has_the_size_that_it_is_shown_with(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", 40, 20, exif=exif)
    assert image_size(path) == (40, 20)
    assert load_image(path).shape == (3, 40, 20)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_cut_off_files_are_found_without_decoding_all(tmp_path, suffix):
    paths = [save(tmp_path / f"{n}.{suffix}", 64, 48, seed=n) for n in range(12)]
    cut, appended = paths[3], paths[4]
    cut.write_bytes(cut.read_bytes()[:-500])
    appended.write_bytes(appended.read_bytes() + b"what a telephone appends")
    (tmp_path / "text.png").write_text("no image")
    paths += [tmp_path / "text.png", tmp_path / "missing.png"]
    dataset = Stills(tmp_path, paths=paths)
    found = inspected(dataset, samples=1)
    assert {Path(problem.file).name for problem in found.unreadable} == {cut.name, "text.png", "missing.png"}
    reasons = {Path(problem.file).name: problem.reason for problem in found.unreadable}
    assert "truncated" in reasons[cut.name]
    assert reasons["missing.png"] == "no such file"
    assert found.bad_records == 3
    assert len(dataset.images_read) <= 1
    assert mends(advised(dataset), r"3 files cannot be read, which 3 records need \(21.43%\): repair them")


def test_a_label_that_cannot_be_read_is_named_once_and_counted(tmp_path):
    class Damaged(Stills):
        def label_fields(self, index, keys):
            if index % 2:
                raise DataError("no such row", file="labels.csv", expected="one for each image")
            return super().label_fields(index, keys)

    whole = stills(tmp_path, [{"label": 0, "depth_m": torch.ones(32, 32)}] * 6, {"label": ("a",)})
    found = inspected(Damaged(tmp_path, paths=whole.paths, records=whole.records, names=whole.names))
    (problem,) = found.unreadable
    assert (problem.file, problem.reason, problem.records) == (
        "labels.csv", "no such row, expected one for each image", 3
    )  # fmt: skip
    assert (found.bad_records, found.sampled, found.classes[0].counts) == (3, 3, (3,))


def test_a_missing_library_is_an_error_and_no_finding(tmp_path):
    class NeedsMore(Stills):
        def image(self, index):
            raise ConfigError("not installed")

    with pytest.raises(ConfigError):
        inspected(NeedsMore(tmp_path, paths=[save(tmp_path / "a.png")]))


def test_classes_of_all_records_are_counted_though_few_images_are_read(tmp_path):
    labels = [0, 0, 0, 2, 2, 5]
    dataset = stills(tmp_path, [*({"label": label} for label in labels), {}], {"label": ("a", "b", "c")})
    found = inspected(dataset, samples=2)
    assert len(dataset.images_read) == 2
    (classes,) = found.classes
    assert classes.every_record
    assert (classes.counts, classes.wrong, classes.empty) == ((3, 0, 2), {5: 1}, ["b"])
    assert classes.imbalance == 1.5
    assert classes.unlabelled == pytest.approx(1 / 7)
    lines = advised(dataset)
    assert mends(lines, r"1 of 3 classes of label do not occur \(b\)")
    assert mends(lines, r"ids that are no class: 5 \(1 times\): map them to 0 to 2")


def test_classes_that_a_sample_lacks_are_no_fault():
    tally = ClassTally("mask", ("sky", "ground", "tree"))
    tally.add(torch.tensor([[0, 0, 1], [255, 255, 1]]))
    tally.add(torch.tensor([[1, 1, 1], [1, 1, 255]]))
    classes = tally.summary(every_record=False)
    assert (classes.counts, classes.records_with, classes.wrong) == ((2, 7, 0), (1, 2, 0), {})
    assert classes.unlabelled == 3 / 12
    tally.add(torch.tensor([[9]]))
    assert tally.summary(every_record=True).wrong == {9: 1}


def test_a_class_that_only_held_out_records_lack_is_no_fault(tmp_path):
    dataset = stills(tmp_path, [{"label": 0}, {"label": 0}], {"label": ("a", "b")})
    assert mends(advised(dataset, split="train"), "do not occur")
    assert not mends(advised(dataset, split="test"), "do not occur")


def test_boxes():
    tally = BoxTally(size_px=16)
    tally.add(torch.tensor([[0.0, 0, 40, 20], [10, 10, 12, 30]]), (80, 40))  # 8 x 8 and 0.4 x 8 px in a frame
    tally.add(torch.zeros(0, 4), (80, 40))
    tally.add(torch.tensor([[5.0, 5, 5, 9], [70, 0, 90, 40]]), (80, 40))  # no area; beyond the right side
    boxes = tally.summary(every_record=True)
    assert (boxes.boxes, boxes.per_image) == (4, (0, 2, 2))
    assert boxes.short_side_px == (2, 20, 20)
    assert (boxes.vanishing, boxes.flat, boxes.outside) == (1, 1, 1)
    assert boxes.size_px_needed == pytest.approx(40)


def test_boxes_of_all_records_are_measured_by_the_headers(tmp_path):
    records = [{"boxes": torch.tensor([[0.0, 0, 1, 8]]), "box_labels": torch.tensor([0])}] * 3
    dataset = stills(tmp_path, records, {"box_labels": ("thing",)}, width=64, height=32)
    found = inspected(dataset, get_task("object_detection"), size_px=32, samples=1)
    assert found.boxes is not None
    assert (found.boxes.boxes, found.boxes.vanishing, found.boxes.every_record) == (3, 3, True)
    assert mends(
        advised(dataset, get_task("object_detection")), r"3 boxes \(100.0%\).*--size-px 64, or leave"
    )


def test_depth_against_numpy_and_the_range_of_the_task(tmp_path):
    generator = np.random.default_rng(0)
    maps = generator.uniform(0.2, 6, (4, 32, 32)).astype(np.float32)
    maps[:, :8] = 0
    records = [{"depth_m": torch.from_numpy(depth)} for depth in maps]
    found = inspected(stills(tmp_path, records), get_task("depth_estimation"), size_px=32)
    known = maps[maps > 0]
    assert found.depths is not None
    assert found.depths.percentiles_m == pytest.approx(np.percentile(known, (1, 50, 99)))
    assert found.depths.unknown == pytest.approx(0.25)
    assert found.depths.out_of_range == pytest.approx((known < 1).mean())
    lines = advised(stills(tmp_path, records), get_task("depth_estimation"))
    near, far = np.percentile(known, (1, 99))
    settings = f'{{"min_depth_m": {math.floor(near * 100) / 100}, "max_depth_m": {math.ceil(far * 10) / 10}}}'
    assert mends(lines, re.escape(f"--task-settings '{settings}'"))
    task = get_task("depth_estimation", min_depth_m=0.2, max_depth_m=6.0)
    assert not any("outside" in line for line in advised(stills(tmp_path, records), task))


def test_depths_in_millimetres_or_below_zero():
    tally = DepthTally()
    tally.add(torch.tensor([[2500.0, 1200.0], [-1.0, math.inf]]))
    depths = tally.summary()
    assert (depths.wrong, depths.unknown, depths.out_of_range) == (2, 0.5, None)


def test_millimetres_are_told(tmp_path):
    dataset = stills(tmp_path, [{"depth_m": torch.full((32, 32), 2500.0)}] * 2)
    assert mends(advised(dataset, get_task("depth_estimation")), "millimetres")


def test_flow_on_disk_and_in_frames():
    flow = torch.zeros(2, 10, 20)
    flow[0, 0, :10], flow[1, 0, :10] = 3.0, 4.0  # 5 px long; 9.6 and 25.6 px in frames of 64
    flow[:, 9] = math.nan
    valid = torch.ones(10, 20, dtype=torch.bool)
    valid[8] = False
    tally = FlowTally(size_px=64, greatest_px=20.0)
    tally.add(flow, valid)
    flows = tally.summary()
    assert flows.length_px == (0.0, 5.0, 5.0)
    assert flows.unknown == pytest.approx(0.2)
    assert flows.component_px == pytest.approx(25.6)
    assert flows.out_of_range == pytest.approx(10 / 160)


def test_flow_of_a_camera_that_stands_still_is_no_fault():
    tally = FlowTally(size_px=64, greatest_px=20.0)
    tally.add(torch.zeros(2, 10, 20), torch.ones(10, 20, dtype=torch.bool))
    assert list(of_flows(tally.summary(), get_task("optical_flow"))) == []


def test_what_the_codec_costs(tmp_path):
    generator = torch.Generator().manual_seed(0)
    records = [{"depth_m": 1 + spread * torch.rand(64, 64, generator=generator)} for spread in (0, 0.1, 40)]
    task = get_task("depth_estimation")
    dataset = stills(tmp_path, records, width=64, height=64)
    found = inspected(dataset, task).coding
    tokens = [int(token_count([task.format(dataset.record(n, {"depth_m"}))])) for n in range(3)]
    assert found is not None
    assert found.records == 3
    assert found.tokens_mean == pytest.approx(sum(tokens) / 3)
    assert found.tokens_largest == max(tokens) > 500
    assert found.chunks_largest["tiny"] == 1 + math.ceil((max(tokens) + 1 - 96) / 84)
    assert found.headline == ("abs_rel", "", False)
    assert found.worse_than_world
    assert found.finer is not None
    quality, value, finer_tokens = found.finer
    assert quality == task.quality + 15
    finer = inspected(dataset, get_task("depth_estimation", quality=quality)).coding
    assert finer is not None
    assert (value, finer_tokens) == (finer.value, finer.tokens_mean)
    assert value < found.value


def test_the_codec_costs_a_lit_block_one_token(tmp_path):
    dataset = stills(tmp_path, [{"label": n % 3} for n in range(6)], {"label": ("a", "b", "c")})
    found = inspected(dataset, get_task("image_classification", classes=("a", "b", "c")))
    assert found.coding is not None
    assert (found.coding.value, found.coding.tokens_mean, found.coding.tokens_largest) == (1.0, 1.0, 1)
    assert set(found.coding.chunks_largest.values()) == {1}


def test_records_that_a_task_does_not_take_are_named(tmp_path):
    masks = [torch.zeros(32, 32, dtype=torch.int64) for _ in range(3)]
    masks[1][4, 4] = 7
    dataset = stills(tmp_path, [{"mask": mask} for mask in masks], {"mask": ("a", "b")})
    task = get_task("semantic_segmentation", classes=("a", "b"))
    found = inspected(dataset, task, size_px=32)
    (problem,) = found.refused
    assert Path(problem.file).name == "001.png"
    assert "class 7, expected 0 to 1" in problem.reason
    assert found.coding is not None
    assert found.coding.records == 2
    lines = advised(dataset, task)
    assert mends(lines, "mask has ids that are no class: 7")
    assert mends(lines, "the task does not take 1 of 3 records")


def test_more_classes_than_a_frame_has_blocks(tmp_path):
    names = tuple(f"c{n}" for n in range(100))
    dataset = stills(tmp_path, [{"label": n} for n in range(100)], {"label": names})
    task = get_task("image_classification", classes=names)
    lines = advised(dataset, task, size_px=64)
    assert mends(lines, r"100 classes in a frame of 64 x 64 pixels.*--size-px 80, or fewer")
    assert not any("in a frame of" in line for line in advised(dataset, task, size_px=80))
    (served,) = served_tasks(TASKS, lambda task: dataset, 64)
    assert served.task == "image_classification"
    assert "100 classes" in str(served.problem)


def test_the_sample_is_the_same_each_time_and_another_for_another_seed(tmp_path):
    records = [{"depth_m": torch.full((32, 32), 1.0 + n)} for n in range(30)]
    dataset = stills(tmp_path, records)

    def read(seed):
        dataset.images_read.clear()
        inspected(dataset, samples=5, seed=seed)
        return list(dataset.images_read)

    assert len(read(0)) == 5
    assert read(0) == read(0) != read(1)


def test_a_stream_is_read_from_its_start_alone(tmp_path):
    dataset = stills(tmp_path, [{"label": n % 2} for n in range(30)], {"label": ("a", "b")})
    dataset.shuffle_window = 4
    found = inspected(dataset, samples=5)
    assert dataset.images_read == [0, 1, 2, 3, 4]
    assert found.files.images == 5
    assert found.classes[0].counts == (3, 2)
    assert not found.classes[0].every_record


def test_copies_of_images_across_splits(tmp_path):
    paths = [save(tmp_path / f"{n}.png", seed=n) for n in range(4)]
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[1].read_bytes())
    parts = {"train": paths[:2], "validation": [paths[2]], "test": [copy, paths[2], paths[3]]}
    files = {
        split: checked_files(Stills(tmp_path, paths=part), range(len(part)), len(part))
        for split, part in parts.items()
    }
    assert sorted(copies(files)) == sorted([(paths[1], copy), (paths[2], paths[2])])
    assert copies({split: files[split] for split in ("train", "validation")}) == []
    (line,) = advice({}, copies(files)[:1], None, 64)
    assert line.mend


class Counting(FrameSequence):
    """Frames of one grey each."""

    def __init__(self, folder, length, rate):
        self.name, self.frames_per_s, self.folder, self.length = "", rate, folder, length

    def __len__(self):
        return self.length

    def images(self, frames):
        return torch.stack([torch.full((3, 20, 30), frame, dtype=torch.uint8) for frame in frames])

    def files(self, frames):
        return [self.folder]


class Videos(SequenceDataset):
    name, summary = "videos", "for these tests"

    @cached_property
    def sequences(self):
        return [Counting(self.root, *each) for each in ((3, None), (10, 10.0), (20, 10.0), (60, None))]


def test_sequences(tmp_path):
    task = get_task("video_prediction")
    found = inspected(Videos(tmp_path, "train", task.clip), task, size_px=32)
    assert found.sequences is not None
    assert (found.sequences.sequences, found.sequences.frames) == (4, (3, 20, 60))
    assert found.sequences.frames_per_s == {None: 2, 10.0: 2}
    assert found.sequences.too_short == 1
    assert found.records == (1 + 3 + 10) * 3 * 3, "windows, contexts of three, two and one frame, targets"
    assert found.sizes is not None
    assert (found.sizes.decoded, found.sizes.smallest) == (True, (30, 20))


def test_tasks_that_a_data_set_serves(tmp_path):
    found = served_tasks(TASKS, lambda task: Videos(tmp_path, "train", task.clip), 32)
    assert {each.task: each.problem for each in found} == {
        "frame_interpolation": None,
        "video_prediction": None,
    }
    labelled = stills(tmp_path, [{"label": 1, "depth_m": torch.ones(32, 32)}], {"label": ("a", "b")})
    names = [each.task for each in served_tasks(TASKS, lambda task: labelled, 32)]
    assert names == ["depth_estimation", "image_classification"]


def test_a_data_set_without_the_label_of_the_task_is_an_error(tmp_path):
    with pytest.raises(DataError, match="depth_m"):
        inspected(stills(tmp_path, [{"label": 0}], {"label": ("a",)}), get_task("depth_estimation"))


def test_the_report_names_the_most_and_the_least_frequent_of_many_classes(tmp_path):
    names = tuple(f"c{n:02}" for n in range(40))
    records = [{"label": n} for n in range(40) for _ in range(1 + (n == 7))]
    texts = [text for _, text in report(inspected(stills(tmp_path, records, {"label": names}), samples=1))]
    assert sum("c07" in text for text in texts) == 1
    assert "... 20 classes between ..." in texts
    assert sum(bool(re.search(r" c\d\d$", text)) for text in texts) == 20


def test_samples_of_an_inspection_are_those_that_training_sees(tmp_path):
    depth = torch.arange(1.0, 1 + 40 * 24).view(24, 40)
    dataset = stills(tmp_path, [{"depth_m": depth}], width=40, height=24)
    task = get_task("depth_estimation", max_depth_m=1000.0)
    found = inspected(dataset, task, size_px=16).coding
    assert found is not None
    episode = task.format(resized(dataset.record(0, {"depth_m"}), 16))
    assert episode.size == (16, 16)
    assert found.tokens_largest == int(token_count([episode]))
