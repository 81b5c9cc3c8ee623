"""Rollouts as part of a benchmark: which tasks, the stamp, the cache, JSON, tables and report."""

import json

import pytest

from tests.benchmarks.toy_videos import TASK, Repeats, Videos
from transframer.benchmarks.curves import drift_curves
from transframer.benchmarks.quality import write_results
from transframer.benchmarks.results import TaskResult
from transframer.errors import ConfigError
from transframer.registry import get_task


class TestInABenchmark:
    def run(self, toy_benchmark, **changes):
        settings = {"rollout_frames": 3, "rollout_videos": 2, "samples": 4}
        return toy_benchmark(task=TASK, source=Videos(), predictor=Repeats(), **{**settings, **changes})[0]

    def test_is_part_of_the_result_and_of_the_stamp(self, toy_benchmark):
        result = self.run(toy_benchmark)
        assert result.rollout.videos == 2
        assert result.protocol["rollout"]["frames"] == 3
        assert result.protocol["rollout"]["prompt_frames"] == 3
        assert self.run(toy_benchmark, rollout_frames=0).rollout is None
        digests = {
            self.run(toy_benchmark, **changes).digest
            for changes in ({}, {"rollout_frames": 0}, {"rollout_frames": 2}, {"rollout_videos": 3})
        }
        assert len(digests) == 4

    def test_comes_back_from_the_cache_and_from_json(self, toy_benchmark):
        first = self.run(toy_benchmark)
        assert str(self.run(toy_benchmark)) == str(first)  # the nan of a horizon without samples is not equal
        assert str(TaskResult.from_json(json.loads(json.dumps(first.to_json())))) == str(first)
        assert TaskResult.from_json(first.to_json()).rollout == first.rollout

    def test_results_from_before_rollouts_can_be_read(self, toy_benchmark):
        record = self.run(toy_benchmark, rollout_frames=0).to_json()
        for name in ("rollout", "autoencoder", "sparsification"):
            del record[name]
        del record["protocol"]["model"]["likelihood"]
        old = TaskResult.from_json(record)
        assert (old.rollout, old.autoencoder, old.likelihood) == (None, None, "exact")

    def test_report_and_tables_show_it(self, toy_benchmark, toy_config):
        result = self.run(toy_benchmark)
        config = toy_config()
        write_results(config, [result])
        record = json.loads((config.folder / "results.json").read_text())["results"][0]
        assert len(record["rollout"]["curves"][0]["model"]) == 3
        assert "strip" not in record["rollout"], "pictures are in the report"
        report = (config.folder / "report.html").read_text()
        assert all(uri in report for uri in (*result.rollout.strip.truth, *result.rollout.strip.drawn))
        assert "steps after the prompt" in report
        table = (config.folder / "results.md").read_text()
        assert "## Rollouts of video_prediction" in table
        assert "rollouts of 3 frames after 3, 2 videos, temperature 1, each frame from the latest 3" in table

    def test_figure_has_a_panel_for_each_measure(self, toy_benchmark):
        svg = drift_curves(self.run(toy_benchmark).rollout)
        for said in ("PSNR (dB)", "SSIM", "Sharpness", "var(--accent)", "steps after the prompt"):
            assert said in svg

    def test_tasks_without_a_next_frame_are_refused_before_any_measurement(
        self, toy_benchmark, toy_predictor
    ):
        with pytest.raises(ConfigError, match=r"none of these tasks predicts the next frame: toy_doubling"):
            toy_benchmark(rollout_frames=2)
        assert toy_predictor.calls == []

    def test_only_tasks_that_can_are_rolled_out(self, toy_benchmark):
        class Both(Videos):
            def held_out(self, task, n):
                found = super().held_out(task, n)
                if task.name == "frame_interpolation":
                    found = [one | {"query_time": 0.05} for one in found]
                return found

        tasks = [get_task("frame_interpolation"), TASK]
        between, ahead = toy_benchmark(
            tasks=tasks, source=Both(), predictor=Repeats(), rollout_frames=2, rollout_videos=1, samples=2
        )
        assert between.rollout is None
        assert ahead.rollout.videos == 1
