"""A few records of a data set: which, how many of each part, and that they are those of the whole."""

from typing import ClassVar

import pytest
from PIL import Image

from tests.data.toy_dataset import Numbers
from transframer.data.catalog import guesses, open_dataset
from transframer.data.source import DatasetSource
from transframer.data.subset import Subset, few_labels
from transframer.errors import ConfigError
from transframer.registry import get_task

TOY = "tests.data.toy_dataset:Numbers"
TASK = get_task("image_classification")


def labels(dataset):
    return [dataset.record(index, {"label"})["label"] for index in range(len(dataset))]


class TestSubset:
    def test_the_records_are_what_they_always_were(self):
        """A figure for a hundred labels must be of the same hundred in every later version."""
        assert labels(Subset(Numbers(n=60), 6)) == [2, 3, 11, 27, 48, 50]

    def test_a_smaller_one_lies_in_a_larger_one(self):
        whole = Numbers(n=2000)
        few, more, most = (labels(Subset(whole, count)) for count in (10, 100, 1000))
        assert set(few) < set(more) < set(most)
        assert (len(few), len(more), len(most)) == (10, 100, 1000)
        assert labels(Subset(whole, 2000)) == list(range(2000))

    def test_they_are_spread_over_the_whole_in_its_order(self):
        found = labels(Subset(Numbers(n=10_000), 1000))
        assert found == sorted(found)
        for start in range(0, 10_000, 2500):  # 250 in each quarter, standard deviation 13
            assert 190 < sum(start <= label < start + 2500 for label in found) < 310

    def test_the_rest_is_that_of_the_whole(self):
        class Judged(Numbers):
            protocol: ClassVar[dict[str, str]] = {"crop": "none"}

            def evaluation(self, record):
                return {**record, "judged": True}

        whole = Judged("here", "validation", TASK.clip, n=40)
        subset = Subset(whole, 4)
        assert (subset.root, subset.split, subset.clip) == (whole.root, "validation", TASK.clip)
        assert (subset.name, subset.protocol) == ("numbers", {"crop": "none"})
        assert (subset.fields, subset.classes) == (whole.fields, whole.classes)
        assert subset.evaluation({}) == {"judged": True}
        assert [path.stem for index in range(4) for path in subset.files(index)] == [
            str(label) for label in labels(subset)
        ]
        with pytest.raises(IndexError):
            subset.record(4, set())

    def test_an_epoch_has_each_record_once(self):
        source = DatasetSource(Subset(Numbers(n=500), 20), 16)
        found = [sample["label"] for sample in source.samples(range(20), TASK.sample_type, TASK.clip)]
        assert sorted(found) == labels(source.dataset)

    def test_more_than_there_are_and_streams_are_refused(self):
        with pytest.raises(ConfigError, match="41 of 40 records of the train part") as caught:
            Subset(Numbers(n=40), 41)
        assert caught.value.expected == "at most 40"
        stream = Numbers(n=40)
        stream.shuffle_window = 10
        with pytest.raises(ConfigError, match="stream"):
            Subset(stream, 4)


class TestOption:
    @pytest.mark.parametrize(
        ("asked", "train", "validation"), [(100, 100, 10), (1, 1, 1), (9, 9, 1), (26, 26, 3), (500, 500, 50)]
    )
    def test_validation_shrinks_with_training_and_test_is_whole(self, asked, train, validation):
        sizes = [
            len(open_dataset("x", split, format=TOY, options={"n": 600, "train_samples": asked}))
            for split in ("train", "validation", "test")
        ]
        assert sizes == [train, validation, 600]

    def test_validation_has_no_more_than_there_are(self):
        assert len(few_labels(Numbers(split="validation", n=3), 100)) == 3

    def test_nothing_given_is_all(self):
        for options in ({"n": 30}, {"n": 30, "train_samples": None}):
            assert type(open_dataset("x", "train", format=TOY, options=options)) is Numbers

    @pytest.mark.parametrize("wrong", [0, -1, 2.5, "10", True])
    def test_what_is_no_number_is_refused_for_every_part(self, wrong):
        for split in ("train", "validation", "test"):
            with pytest.raises(ConfigError, match="train_samples") as caught:
                open_dataset("x", split, format=TOY, options={"train_samples": wrong})
            assert caught.value.expected == "a whole number of at least 1"

    def test_it_is_taken_after_validation_was_cut_off(self, tmp_path):
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir()
            for number in range(60):
                Image.new("RGB", (16, 16), (2 * number, 0, 0)).save(tmp_path / name / f"{number}.png")

        def files(split, **options):
            dataset = open_dataset(tmp_path, split, TASK, format="image_folder", options=options)
            return {path for index in range(len(dataset)) for path in dataset.files(index)}

        assert files("train", train_samples=30) < files("train")
        assert len(files("train", train_samples=30)) == 30
        assert files("validation", train_samples=30) < files("validation")
        assert len(files("validation", train_samples=30)) == 3
        assert files("test", train_samples=30) == files("test")

    def test_of_several_layouts_only_the_one_that_is_taken_must_have_so_many(self, tmp_path):
        for name in ("cat", "dog", "emu", "fox"):
            (tmp_path / name).mkdir()
            for number in range(12):
                Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
        assert list(guesses(tmp_path)) == ["frames", "image_folder"]
        dataset = open_dataset(tmp_path, "train", TASK, options={"train_samples": 10})
        assert (dataset.name, len(dataset)) == ("image_folder", 10)
        assert dataset.classes == {"label": ("cat", "dog", "emu", "fox")}
