"""Files that cannot be read while training: replaced, listed once, counted, and too many of them the end."""

import json

import pytest
from small_runs import TASK, json_lines, pictures, settings, shrink, truncate, weights

from tests.data.toy_dataset import Numbers
from transframer.data.datasets.image_folder import ImageFolder
from transframer.data.source import BadSample, DatasetSource
from transframer.data.world import World
from transframer.errors import DataError
from transframer.training.bad_samples import BadSamples
from transframer.training.checkpoint import load_run
from transframer.training.config import TrainConfig
from transframer.training.loop import train


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures, one file of whose training part is cut off."""
    shrink(monkeypatch)
    root = pictures(tmp_path / "pictures")
    truncate(ImageFolder(root, "train").files(5)[0])
    return root


def broken(folder):
    return str(ImageFolder(folder, "train").files(5)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_goes_on_and_lists_the_file_once(folder, tmp_path, workers):
    # 8 steps of 8 are three epochs of the 19 pictures or so: the same file comes by again.
    train(settings(tmp_path / "run", folder, steps=8, max_bad_share=0.1, workers=workers))
    (line,) = json_lines(tmp_path / "run/bad_samples.jsonl")
    assert line["task"] == TASK
    assert line["index"] == 5
    assert line["files"] == [broken(folder)]
    assert "cannot be read" in line["reason"]
    assert line["replaced_by"] != 5
    load_run(tmp_path / "run")


def test_the_replacement_does_not_depend_on_the_workers(folder, tmp_path):
    for workers in (0, 2):
        train(settings(tmp_path / f"run{workers}", folder, max_bad_share=0.1, workers=workers))
    listed = [json_lines(tmp_path / f"run{workers}/bad_samples.jsonl") for workers in (0, 2)]
    assert listed[0] == listed[1] != []
    one, other = (weights(tmp_path / f"run{workers}", 4)["predictor"] for workers in (0, 2))
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_the_share_ends_the_run(folder, tmp_path, workers):
    with pytest.raises(DataError, match=r"1 of \d+ samples of image_classification cannot be read") as caught:
        train(settings(tmp_path / "run", folder, workers=workers))
    assert caught.value.expected == "at most 0.10% of them"
    assert caught.value.file == tmp_path / "run/bad_samples.jsonl"
    assert "--max-bad-share" in caught.value.next_step
    assert json_lines(tmp_path / "run/bad_samples.jsonl")[0]["files"] == [broken(folder)]


def test_one_that_is_held_out_is_an_error_before_anything_is_written(folder, tmp_path):
    held_out = ImageFolder(folder, "validation").files(0)[0]
    truncate(held_out)
    with pytest.raises(DataError, match=held_out.name):
        train(settings(tmp_path / "run", folder, max_bad_share=1.0))
    assert not (tmp_path / "run").exists()


class TestCount:
    @pytest.fixture
    def sources(self):
        hundred = DatasetSource(Numbers(n=100), 16)
        return {"a": hundred, "b": hundred, "world": World("train")}

    def bad(self, *indices):
        return [("a", BadSample(i, ("x.png",), "damaged", 0)) for i in indices]

    def test_up_to_the_share_and_each_once(self, tmp_path, sources):
        bad = BadSamples(tmp_path / "run", 0, 0.03, sources)
        bad.note([])
        assert not bad.path.exists()
        for _ in range(3):
            bad.note(self.bad(1, 2, 2))
        bad.note([("b", each) for _, each in self.bad(1, 2)])
        bad.note(self.bad(3))
        assert [(line["task"], line["index"]) for line in json_lines(bad.path)] == [
            ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 3),
        ]  # fmt: skip
        with pytest.raises(DataError, match="4 of 100 samples of a"):
            bad.note(self.bad(4))
        assert json_lines(bad.path)[-1]["index"] == 4, "what ended the run is listed too"

    def test_a_share_of_nothing_and_of_all(self, tmp_path, sources):
        with pytest.raises(DataError, match="1 of 100"):
            BadSamples(tmp_path / "none", 0, 0.0, sources).note(self.bad(7))
        BadSamples(tmp_path / "all", 0, 1.0, sources).note(self.bad(*range(100)))

    def test_a_resumed_run_goes_on_counting_those_of_all_processes(self, tmp_path, sources):
        BadSamples(tmp_path, 0, 0.03, sources).note(self.bad(1, 2))
        BadSamples(tmp_path, 1, 0.03, sources).note(self.bad(2, 3))
        assert len(json_lines(tmp_path / "bad_samples.rank1.jsonl")) == 2
        with (tmp_path / "bad_samples.jsonl").open("a") as file:
            file.write('{"task": "a", "ind')  # killed while it wrote
        resumed = BadSamples(tmp_path, 0, 0.03, sources)
        resumed.resume()
        resumed.note(self.bad(1, 2, 3))
        with pytest.raises(DataError, match="4 of 100"):
            resumed.note(self.bad(9))
        again = BadSamples(tmp_path, 0, 1.0, sources)
        again.resume()
        assert again.seen == {("a", i) for i in (1, 2, 3, 9)}, "the line after the one cut off is whole"


def test_a_resumed_run_counts_what_it_listed_before(folder, tmp_path):
    run = tmp_path / "run"
    train(settings(run, folder, max_bad_share=0.07))  # of 18 to 20: one
    truncate(ImageFolder(folder, "train").files(9)[0])
    with pytest.raises(DataError, match=r"2 of \d+ samples"):
        train(TrainConfig(resume=run, steps=12))
    assert [line["index"] for line in json_lines(run / "bad_samples.jsonl")] == [5, 9]
    train(TrainConfig(resume=run, steps=12, max_bad_share=0.2))
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 12
