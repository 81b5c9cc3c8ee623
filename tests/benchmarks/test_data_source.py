"""Benchmark samples out of a data set: which ones, and that none is ever left out."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from tests.data.toy_dataset import Numbers
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.data_source import DataSource
from transframer.benchmarks.sources import WorldSource, material_for, source_for
from transframer.data.formats.images import save_png
from transframer.errors import ConfigError, DataError
from transframer.registry import get_task
from transframer.training.config import TrainConfig

TOY = "tests.data.toy_dataset:Numbers"
CROPPED = "tests.benchmarks.test_data_source:Cropped"
NAMES = tuple(map(str, range(60)))
TASK = get_task("image_classification", classes=NAMES)


class Cropped(Numbers):
    """Its protocol judges every image as white; its training part must not even be opened."""

    protocol: ClassVar[dict[str, str]] = {"crop": "all of it", "reference": "this test"}

    def __init__(self, *args, **options):
        super().__init__(*args, n=60, **options)
        assert self.split != "train", "a benchmark opened the training part"

    def evaluation(self, record):
        return record | {"images": torch.full_like(record["images"], 255)}


def source(format=TOY, n=60, size_px=64, **options):
    settings = {} if format == CROPPED else {"n": n, **options}
    return DataSource("numbers", size_px, format, settings)


def labels(samples):
    return [sample["label"] for sample in samples]


def test_a_subset_is_random_but_always_the_same_and_in_order():
    first, again = (labels(source().held_out(TASK, 20)) for _ in range(2))
    assert first == again == sorted(set(first))
    assert len(first) == 20
    assert first != list(range(20))
    other = DataSource("numbers", 64, TOY, {"n": 60}, seed=1)
    assert labels(other.held_out(TASK, 20)) != first
    assert set(labels(source().held_out(TASK, 10))) <= set(first), "a larger one holds the smaller"


@pytest.mark.parametrize("n", [0, 60, 1000])
def test_all_are_taken_for_zero_and_where_there_are_no_more(n):
    assert labels(source().held_out(TASK, n)) == list(range(60))


def test_samples_are_of_the_size_asked_for():
    assert source(size_px=32).held_out(TASK, 1)[0]["images"].shape == (1, 3, 32, 32)


def test_the_protocol_of_the_data_is_applied_and_told():
    cropped = source(CROPPED)
    assert all((sample["images"] == 255).all() for sample in cropped.held_out(TASK, 3))
    description = cropped.description(TASK)
    assert description["source"] == "numbers (numbers)"
    assert (description["split"], description["of"], description["size_px"]) == ("test", 60, 64)
    assert description["protocol"]["crop"] == "all of it"
    assert "64 x 64 px" in description["protocol"]["resolution"]


def test_a_task_of_longer_clips_is_of_fewer_samples(tmp_path):
    (tmp_path / "test" / "a").mkdir(parents=True)
    for number in range(10):
        image = torch.full((3, 16, 16), 20 * number, dtype=torch.uint8)
        save_png(tmp_path / f"test/a/{number}.png", image)
    data = DataSource(str(tmp_path), 16, "frames", {})
    still, video = get_task("colorization"), get_task("video_prediction")
    for task in (still, video):  # as a benchmark opens them all before it measures the first
        data.held_out(task, 1)
    assert data.description(still)["of"] != data.description(video)["of"]


def test_the_floor_is_fitted_on_measured_samples_spread_evenly_and_nothing_else_is_opened():
    config = BenchmarkConfig(Path("run"), data="numbers", samples=40, floor_samples=8)
    material = material_for(TASK, source(CROPPED), config)  # opening the training part would raise
    measured = labels(material.samples)
    assert labels(material.floor_samples) == measured[::5]
    assert material.floor_split == "the measured"
    few = material_for(TASK, source(CROPPED), BenchmarkConfig(Path("run"), data="numbers", samples=5))
    assert labels(few.floor_samples) == labels(few.samples)


def test_a_sample_that_cannot_be_read_is_an_error():
    with pytest.raises(DataError, match=r"a\.png: truncated"):
        source(bad=[33]).held_out(TASK, 0)
    raises_os_error = source(bad=[33])
    raises_os_error._dataset(TASK).error = OSError("input/output error")
    with pytest.raises(DataError, match=r"33\.png: record 33 cannot be read: input/output error"):
        raises_os_error.held_out(TASK, 0)


class TestClasses:
    def test_those_of_the_data_are_the_models(self):
        with pytest.raises(ConfigError, match="the data have 60 classes") as caught:
            source().held_out(get_task("image_classification"), 1)
        assert "transframer finetune" in caught.value.next_step
        reordered = get_task("image_classification", classes=NAMES[::-1])
        with pytest.raises(ConfigError, match="the data have 60 classes"):
            source().held_out(reordered, 1)

    def test_the_world_refuses_a_model_of_other_classes(self):
        with pytest.raises(ConfigError, match="classes of its own") as caught:
            WorldSource(0, 64).held_out(TASK, 1)
        assert "--data" in caught.value.next_step
        assert WorldSource(0, 64).held_out(get_task("image_classification"), 1)


def test_a_task_is_served_where_the_data_have_its_labels():
    assert source().serves(TASK)
    assert not source().serves(get_task("depth_estimation"))
    with pytest.raises(DataError, match="has no depth_m"):
        source().held_out(get_task("depth_estimation"), 1)


def test_the_settings_choose_the_source():
    config = BenchmarkConfig(
        Path("run"), data="numbers", data_format=TOY, data_options={"n": 60}, split="validation", seed=4
    )
    chosen = source_for(config, TrainConfig(size_px=32))
    assert chosen == DataSource("numbers", 32, TOY, {"n": 60}, "validation", 4)
    assert chosen._dataset(TASK).split == "validation"
    # A run that learned from one part of the pair is measured on the other.
    pair = BenchmarkConfig(Path("run"), data="motorcycle")
    assert isinstance(source_for(pair, TrainConfig(data="motorcycle")), DataSource)


def test_settings_for_data():
    assert BenchmarkConfig(Path("run"), data="/d/photos", samples=0).folder == Path("run/benchmark-photos")
    command = BenchmarkConfig(Path("run"), data="x", data_options={"n": 3}).command
    assert command == """transframer benchmark run --data x --data-options '{"n": 3}'"""
    for data in ("world", "motorcycle"):
        with pytest.raises(ConfigError, match="samples"):
            BenchmarkConfig(Path("run"), data=data, samples=0)
