"""Fine-tuning beside training from scratch: that only the start differs, and that it is measured in pairs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transframer.benchmarks import measure
from transframer.benchmarks import sample_efficiency as module
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.quality import benchmark_run
from transframer.benchmarks.sample_efficiency import main, sample_efficiency
from transframer.benchmarks.sample_efficiency_config import SampleEfficiencyConfig
from transframer.benchmarks.sample_efficiency_report import Comparison, Row, Training, write_report
from transframer.benchmarks.statistics import Estimate
from transframer.errors import ConfigError
from transframer.models.presets import LEARNING_RATES, PRESETS
from transframer.task import Metric
from transframer.training.checkpoint import load_config, load_run
from transframer.training.config import TrainConfig
from transframer.training.loop import train

TASK = "image_classification"


@pytest.fixture(scope="module", autouse=True)
def small_preset():
    small = dataclasses.replace(
        PRESETS["tiny"], encoder_widths=(32,), encoder_blocks=(1,), pixel_stem=(), width=32, value_layers=1,
        chunk_events=24, chunk_overlap=4,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", small)
        for each in (module, measure):  # how many there are depends on how busy the machine is
            patch.setattr(each, "resamples_for", lambda summarise, scores: 200)
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """An ImageFolder of two classes, a brightness each."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for i in range(40):
            pixels = 100 * number + generator.integers(0, 60, (20, 30, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A run of the world to start from."""
    config = TrainConfig(
        tasks=["video_prediction"], steps=2, batch_size=2, workers=0, validations=1, validation_episodes=1,
        pictures=0, size_px=32, device="cpu", out=tmp_path_factory.mktemp("world") / "run",
    )  # fmt: skip
    return train(config)


@pytest.fixture(scope="module")
def config(pictures, start, tmp_path_factory):
    return SampleEfficiencyConfig(
        str(pictures), TASK, tmp_path_factory.mktemp("few") / "out", samples=[0, 12], from_=str(start),
        data_format="image_folder", minutes=0.01, batch_size=4, test_samples=5, workers=0, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(config):
    return sample_efficiency(config)


def run_of(config, row, name):
    return config.out / "runs" / f"{row.samples}-{name}"


class TestTraining:
    def test_a_row_for_each_number_with_all_last(self, rows):
        assert [(row.samples, row.whole) for row in rows] == [(12, False), (rows[1].samples, True)]
        assert rows[1].samples > 50
        for row in rows:
            assert list(row.training) == ["scratch", "finetuned"]
            assert all(1 <= each.kept_step <= each.steps for each in row.training.values())

    def test_only_weights_and_learning_rate_differ(self, config, rows, start):
        for row in rows:
            scratch, tuned = (
                load_config(run_of(config, row, name)).to_dict() for name in ("scratch", "finetuned")
            )
            differing = {name for name in tuned if tuned[name] != scratch[name]}
            assert differing == {"out", "start_from", "learning_rate"}
            assert tuned["start_from"] == str(start)
            assert (scratch["learning_rate"], tuned["learning_rate"]) == (
                LEARNING_RATES["tiny"], LEARNING_RATES["tiny"] / 4,
            )  # fmt: skip
            assert tuned["data_options"] == ({} if row.whole else {"train_samples": 12})
            assert row.training["scratch"].learning_rate == LEARNING_RATES["tiny"]

    def test_from_scratch_is_the_same_architecture_with_other_weights(self, config, rows, start):
        fresh, _ = load_run(config.out / "untrained")
        trained, _ = load_run(start)
        assert fresh.config == trained.config
        matrices = [
            name for name, value in trained.state_dict().items() if value.std() > 0 and value.dim() > 1
        ]
        assert len(matrices) > 10
        same = [name for name in matrices if (fresh.state_dict()[name] == trained.state_dict()[name]).all()]
        assert not same


class TestMeasuring:
    def test_it_is_what_the_benchmark_of_either_run_says(self, config, rows):
        for row in rows:
            for name in ("scratch", "finetuned"):
                asked = BenchmarkConfig(
                    run_of(config, row, name), data=config.data, data_format="image_folder", samples=5,
                    batch_size=64, device="cpu",
                )  # fmt: skip
                (result,) = benchmark_run(asked)
                assert result.headline == row.headline
                for metric, comparison in row.metrics.items():
                    found, expected = getattr(comparison, name), result.metrics[metric].model
                    assert dataclasses.astuple(found) == pytest.approx(
                        dataclasses.astuple(expected), nan_ok=True
                    )
                    assert comparison.floor == pytest.approx(result.metrics[metric].floor, nan_ok=True)
                assert row.protocols[name] == result.protocol

    def test_the_difference_is_that_of_the_two(self, rows):
        for row in rows:
            assert row.main.difference.value == row.main.finetuned.value - row.main.scratch.value

    def test_both_see_the_same_samples(self, rows):
        prints = {each["data"]["fingerprint"] for row in rows for each in row.protocols.values()}
        assert len(prints) == 1
        assert {each["data"]["n"] for row in rows for each in row.protocols.values()} == {5}


def test_a_training_that_stopped_early_is_summed_up(tmp_path):
    """Its last steps may have no line of their own."""
    lines = [
        {"kind": "train", "step": 10, "seconds": 10.0},
        *(
            {
                "kind": "validation",
                "step": step,
                "seconds": 1.5 * step,
                "tasks": {TASK: {"bits_per_frame": bits}},
            }
            for step, bits in ((10, 3.0), (20, 2.0), (30, 2.0), (40, 2.5))
        ),
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert module._summed_up(path, TASK, 1e-3) == Training(1e-3, 40, 60.0, 20, 2.0)


class TestGoingOn:
    @pytest.fixture
    def trainings(self, monkeypatch):
        """The folders of the runs that are trained from now on."""
        done, finetune = [], module.finetune
        monkeypatch.setattr(module, "finetune", lambda asked: done.append(asked.out) or finetune(asked))
        return done

    def test_what_is_there_is_read_back(self, config, rows, trainings, monkeypatch):
        monkeypatch.setattr(module, "_measured", None)
        assert sample_efficiency(config) == rows
        assert not trainings

    def test_other_test_samples_are_measured_without_training(self, config, rows, trainings):
        again = sample_efficiency(dataclasses.replace(config, samples=[12], test_samples=3))
        assert again[0].protocols["scratch"]["data"]["n"] == 3
        assert again[0].training == rows[0].training
        assert not trainings

    def test_a_run_that_was_stopped_starts_anew(self, config, rows, trainings):
        stopped = run_of(config, rows[0], "finetuned")
        (stopped / module.TRAINED).unlink()
        (stopped / "left.txt").touch()
        sample_efficiency(dataclasses.replace(config, samples=[12], test_samples=4))
        assert trainings == [stopped]
        assert not (stopped / "left.txt").exists()
        assert (stopped / module.TRAINED).exists()

    def test_results_of_other_settings_are_left_alone(self, config, rows):
        with pytest.raises(ConfigError, match="another minutes, batch_size"):
            sample_efficiency(dataclasses.replace(config, minutes=0.02, batch_size=8))


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("samples", []), ("samples", [-1]), ("samples", [5, 5]), ("minutes", 0.0), ("test_samples", -1),
            ("data_options", {"train_samples": 5}),
        ],
    )  # fmt: skip
    def test_out_of_range(self, name, value):
        with pytest.raises(ConfigError, match=f"^{name}: "):
            SampleEfficiencyConfig("x", TASK, Path("out"), **{name: value})

    def test_both_learn_from_what_is_augmented_alike(self, config, tmp_path):
        changed = dataclasses.replace(config, crop=0.6, flip=True, color=0.2)
        tuning = changed.finetuning(12, "generalist", tmp_path)
        assert (tuning.crop, tuning.flip, tuning.color) == (0.6, True, 0.2)
        assert config.of_training != changed.of_training, "results of another setting"

    def test_too_many_are_told_before_anything_is_written(self, config, tmp_path):
        with pytest.raises(ConfigError, match="500 of"):
            sample_efficiency(dataclasses.replace(config, samples=[500], out=tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_the_command_line(self, tmp_path, capsys):
        words = ["--data", str(tmp_path / "no"), "--task", TASK, "--out", str(tmp_path / "out")]
        assert main([*words, "--samples", "10", "0", "--minutes", "0.1"]) == 2
        assert "no such file or folder" in capsys.readouterr().err


def test_the_report(tmp_path):
    """Of rows made by hand."""
    training = {
        "scratch": Training(4e-3, 1200, 59.6, 700, 2.345),
        "finetuned": Training(1e-3, 300, 20.0, 90, 1.5),
    }
    protocol = {"data": {"source": "toys (here)", "size_px": 32, "n": 2000, "of": 10_000}}
    protocols = {"scratch": protocol, "finetuned": protocol}

    def row(samples, whole, scratch, tuned):
        ends = (Estimate(value, value - 0.05, value + 0.05) for value in (scratch, tuned, tuned - scratch))
        return Row(
            samples, whole, training, Metric("top1", True), {"top1": Comparison(*ends, 0.1)}, protocols
        )

    config = SampleEfficiencyConfig("here", TASK, tmp_path, minutes=1.5)
    rows = [row(100, False, 0.25, 0.75), row(54_000, True, 0.5, 0.875)]
    text = write_report(config, rows)
    assert (tmp_path / "sample_efficiency.md").read_text() == text
    lines = text.splitlines()
    assert "| 100 | 0.250 [0.200, 0.300] | 0.750 [0.700, 0.800] | 0.500 [0.450, 0.550] |" in lines
    assert "| 54,000 (all) | 0.500 [0.450, 0.550] | 0.875 [0.825, 0.925] | 0.375 [0.325, 0.425] |" in lines
    assert "| 100 | scratch | 1,200 | 60 | 700 | 2.345 |" in lines
    assert "| 100 | generalist | 300 | 20 | 90 | 1.500 |" in lines
    assert "top1 ↑ on 2,000 of 10,000 test samples" in text
    assert "at most 1.5 minutes on 16 samples a step" in text
    assert "0.004 from scratch and 0.001 from generalist" in text
    record = json.loads((tmp_path / "sample_efficiency.json").read_text())
    assert record["rows"][1]["metrics"]["top1"]["difference"]["value"] == 0.375
    assert record["settings"]["minutes"] == 1.5
    drawn = (tmp_path / "sample_efficiency.svg").read_text()
    for words in ("from generalist", "from scratch", "floor", "54,000", "(all)", "top1 ↑", "toys"):
        assert words in drawn
    assert Image.open(tmp_path / "sample_efficiency.png").size == (1280, 720)
