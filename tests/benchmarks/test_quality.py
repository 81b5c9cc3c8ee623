import json
import math
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.quality import benchmark, write_results
from transframer.data.formats.images import load_image
from transframer.errors import CheckpointError, ConfigError, DataError, TransframerError, UnknownNameError
from transframer.training.config import TrainConfig


def test_every_number_is_the_one_worked_out_by_hand(toy_benchmark):
    (result,) = toy_benchmark()
    # Errors 0 1 2 3 0 1 2 3; labels 20 22 ... 34 against the floor's 40; a grey frame survives quality 100.
    assert result.per_sample == [0, 1, 2, 3, 0, 1, 2, 3]
    assert result.main.model.value == 1.5
    assert result.main.floor == 13
    assert result.main.ceiling == 0
    assert result.main.difference.value == -11.5
    assert result.metrics["worst"].model.value == 3
    assert result.metrics["worst"].floor == 20
    assert result.verdict == "beats"
    assert result.on_scale(result.main.model.value) == pytest.approx(11.5 / 13)
    assert result.bits_per_frame.value == pytest.approx(13.5)  # one bit per grey level of the context
    assert result.tokens_per_frame == 7
    assert result.seconds_per_frame > 0
    assert result.nothing_to_judge == []


def test_batches_are_of_the_size_asked_for(toy_benchmark, toy_predictor):
    toy_benchmark(batch_size=3)
    assert toy_predictor.calls == [1, 3, 3, 2], "one to warm up, then all"


def test_what_a_first_call_compiles_is_the_time_of_no_frame(toy_benchmark, toy_predictor, monkeypatch):
    sample = toy_predictor.sample

    def slow_at_first(*args, **settings):
        if not toy_predictor.calls:
            time.sleep(0.8)
        return sample(*args, **settings)

    monkeypatch.setattr(toy_predictor, "sample", slow_at_first)
    (result,) = toy_benchmark()
    assert result.seconds_per_frame < 0.1  # eight frames


def test_training_samples_serve_the_floor_only(toy_benchmark, toy_source):
    (result,) = toy_benchmark(floor_samples=5)
    assert toy_source.asked_floor == [5]
    assert result.protocol["floor"]["n"] == 5


def test_several_samples_per_query_are_combined_and_their_spread_is_shown(toy_benchmark, toy_predictor):
    (single,) = toy_benchmark(temperature=1.0)
    toy_predictor.calls.clear()
    (several,) = toy_benchmark(samples_per_query=64, batch_size=128)
    assert toy_predictor.calls == [64] + [128] * 4, "two samples with all their draws at a time"
    # Noise of one level up or down has deviation 1; the mean of 64 of it 1/8.
    assert all(picture.uncertainty is None for picture in single.pictures)
    assert all(picture.uncertainty for picture in several.pictures)
    assert max(picture.uncertainty_max for picture in several.pictures) == pytest.approx(1, abs=0.1)
    noise_of_one = sum(abs(v - i % 4) for i, v in enumerate(single.per_sample)) / 8
    noise_of_many = sum(abs(v - i % 4) for i, v in enumerate(several.per_sample)) / 8
    assert noise_of_one == 1
    assert noise_of_many < 0.4


def test_a_task_has_the_draws_that_it_wants(toy_benchmark, toy_predictor, toy_task):
    task = dataclass(frozen=True)(type("Drawn", (type(toy_task),), {"draws": 4}))()
    (result,) = toy_benchmark(task=task, batch_size=8)
    assert toy_predictor.calls == [4] + [8] * 4
    assert (result.protocol["sampling"]["samples_per_query"], result.tokens_per_frame) == (4, 7)
    toy_predictor.calls.clear()
    toy_benchmark(task=task, batch_size=8, temperature=0.0)
    assert toy_predictor.calls == [1, 8], "one estimate each"


@pytest.mark.parametrize(("batch_size", "calls"), [(3, [2] * 8), (4, [4] * 4), (1, [1] * 16), (100, [16])])
def test_batch_size_counts_frames_and_not_samples(toy_benchmark, toy_predictor, batch_size, calls):
    (result,) = toy_benchmark(samples_per_query=2, batch_size=batch_size)
    assert toy_predictor.calls[2 if batch_size == 1 else 1 :] == calls
    assert result.tokens_per_frame == 7


def test_same_seed_draws_the_same_frames(toy_benchmark):
    first, again, other = (
        toy_benchmark(temperature=1.0, no_cache=True, seed=seed)[0].per_sample for seed in (0, 0, 1)
    )
    assert first == again != other


def test_second_benchmark_reads_the_cache_and_a_changed_one_does_not(toy_benchmark, toy_predictor):
    (first,) = toy_benchmark()
    calls = len(toy_predictor.calls)
    assert toy_benchmark() == [first]
    assert len(toy_predictor.calls) == calls
    toy_benchmark(no_cache=True)
    assert len(toy_predictor.calls) == 2 * calls
    toy_benchmark(samples=7)
    assert len(toy_predictor.calls) == 3 * calls
    with torch.no_grad():
        toy_predictor.weight.add_(1)
    toy_benchmark()
    assert len(toy_predictor.calls) == 4 * calls


def test_interrupted_benchmark_goes_on_with_the_tasks_that_are_missing(
    toy_benchmark, toy_task, toy_predictor
):
    @dataclass(frozen=True)
    class Second(type(toy_task)):
        name: ClassVar[str] = "toy_second"

        def score(self, prediction, sample):
            if stop:
                raise KeyboardInterrupt
            return super().score(prediction, sample)

    stop = True
    with pytest.raises(KeyboardInterrupt):
        toy_benchmark(tasks=[toy_task, Second()])
    toy_predictor.calls.clear()
    stop = False
    results = toy_benchmark(tasks=[toy_task, Second()])
    assert [result.task for result in results] == ["toy_doubling", "toy_second"]
    assert sum(toy_predictor.calls) == 1 + 8  # only the second task's samples, after one to warm up


class TestFailingSample:
    """Nothing is skipped: whatever fails raises, and says on which sample."""

    def failing(self, toy_task, method, error):
        @dataclass(frozen=True)
        class Failing(type(toy_task)):
            pass

        original = getattr(type(toy_task), method)

        def fail(self, first, second=None):
            sample = first if method == "format" else second
            level = sample["level"] if isinstance(sample, dict) else 2 * int(sample.context[0].image[0, 0, 0])
            if level == 2 * (10 + 5):
                raise error
            return original(self, first) if method == "format" else original(self, first, second)

        setattr(Failing, method, fail)
        return Failing()

    @pytest.mark.parametrize("method", ["format", "decode", "score"])
    def test_user_error_names_the_sample(self, toy_benchmark, toy_task, method):
        error = DataError("broken", field="boxes", expected="whole")
        with pytest.raises(DataError, match=r"sample 5: broken") as caught:
            toy_benchmark(task=self.failing(toy_task, method, error))
        assert caught.value.field == "boxes"
        assert caught.value.expected == "whole"

    def test_fault_of_a_program_keeps_its_type_and_names_the_sample(self, toy_benchmark, toy_task):
        with pytest.raises(ZeroDivisionError) as caught:
            toy_benchmark(task=self.failing(toy_task, "score", ZeroDivisionError("oops")))
        assert "sample 5" in caught.value.__notes__[0]

    def test_likelihood_that_is_not_finite_names_the_sample(self, toy_benchmark, toy_predictor):
        toy_predictor.log_prob = lambda episodes: torch.tensor(
            [-math.inf if int(e.context[0].image[0, 0, 0]) == 14 else -1.0 for e in episodes]
        )
        with pytest.raises(DataError, match="sample 4: inf bits"):
            toy_benchmark()

    def test_sampling_names_the_batch(self, toy_benchmark, toy_predictor):
        def refuse(*_, **__):
            raise DataError("too large")

        toy_predictor.sample = refuse
        with pytest.raises(DataError, match="samples 0 to 2: too large"):
            toy_benchmark()

    def test_sample_without_label_is_refused(self, toy_benchmark, toy_source):
        held_out = toy_source.held_out
        toy_source.held_out = lambda task, n: [{"images": sample["images"]} for sample in held_out(task, n)]
        with pytest.raises(TransframerError, match="sample 0: no label"):
            toy_benchmark()


def test_samples_with_nothing_to_judge_are_listed(toy_benchmark, toy_task):
    @dataclass(frozen=True)
    class Sometimes(type(toy_task)):
        def score(self, prediction, sample):
            return math.nan if sample["level"] == 24 else super().score(prediction, sample)

        def summarise(self, scores):
            judged = [score for score in scores if not math.isnan(score)]
            return super().summarise(judged) if judged else {"mae": math.nan, "worst": math.nan}

    (result,) = toy_benchmark(task=Sometimes())
    assert result.nothing_to_judge == [2]
    assert result.main.model.value == pytest.approx((0 + 1 + 3 + 0 + 1 + 2 + 3) / 7)
    assert json.dumps(result.to_json(), allow_nan=False).count('"nan"') >= 1


def test_results_are_written_as_json_markdown_and_html(toy_benchmark, toy_config):
    results = toy_benchmark()
    config = toy_config()
    write_results(config, results)
    record = json.loads((config.folder / "results.json").read_text())
    assert record["command"] == config.command
    assert record["results"][0]["metrics"]["mae"]["model"]["value"] == 1.5
    assert record["results"][0]["verdict"] == "beats"
    assert record["results"][0]["protocol"]["data"]["source"] == "toy"
    assert "pictures" not in record["results"][0]
    assert (config.folder / "results.md").read_text().startswith("# Benchmark")
    assert (config.folder / "report.html").read_text().startswith("<!doctype html>")
    assert load_image(config.folder / "pictures.png").shape[0] == 3


@pytest.mark.parametrize(
    ("trained", "asked", "data", "expected"),
    [
        (["optical_flow", "video_prediction"], [], "world", ["optical_flow", "video_prediction"]),
        (["optical_flow", "video_prediction"], ["video_prediction"], "world", ["video_prediction"]),
        (["optical_flow", "video_prediction"], [], "motorcycle", ["optical_flow"]),
        (["video_prediction"], [], "motorcycle", ["video_prediction"]),  # refused later, by the source
    ],
)
def test_tasks_are_those_asked_for_or_trained_and_served(
    monkeypatch, tmp_path, toy_predictor, trained, asked, data, expected
):
    class Stop(Exception):
        pass

    def measured(config, predictor, tasks, source, device):
        raise Stop([task.name for task in tasks])

    settings = TrainConfig(tasks=trained, size_px=32)
    monkeypatch.setattr("transframer.benchmarks.quality.load_run", lambda path: (toy_predictor, settings))
    monkeypatch.setattr("transframer.benchmarks.quality.benchmark_tasks", measured)
    with pytest.raises(Stop) as caught:
        benchmark(BenchmarkConfig(tmp_path, tasks=asked, data=data, device="cpu"))
    assert caught.value.args[0] == expected


class TestErrors:
    def test_run_that_is_none(self, tmp_path):
        with pytest.raises(CheckpointError):
            benchmark(BenchmarkConfig(tmp_path))

    def test_unknown_task_names_the_nearest(self, tmp_path):
        with pytest.raises(UnknownNameError, match="did you mean 'depth_estimation'"):
            benchmark(BenchmarkConfig(tmp_path, tasks=["depth_estimatoin"]))

    @pytest.mark.parametrize("device", ["tpu", "cuda:99", "gpu0"])
    def test_device_that_is_none(self, tmp_path, device):
        with pytest.raises(ConfigError) as caught:
            benchmark(BenchmarkConfig(tmp_path, device=device))
        assert caught.value.field == "device"
