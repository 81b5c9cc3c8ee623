"""From a trained model and a folder of pictures to a run like any other."""

import dataclasses
import json
import shlex
import signal
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.toy_dataset import Numbers
from transframer import cli
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.quality import benchmark, tasks_of_world
from transframer.data.dataset import SPLITS
from transframer.data.datasets.image_folder import ImageFolder
from transframer.errors import CheckpointError, ConfigError, DataError, UnknownNameError
from transframer.finetune import finetune, measuring, train_config
from transframer.finetune_config import FinetuneConfig
from transframer.models.presets import LEARNING_RATES, PRESETS
from transframer.models.transframer import Transframer
from transframer.options import parse
from transframer.predict import predict_files
from transframer.predict_config import PredictConfig
from transframer.registry import get_task
from transframer.training.checkpoint import load_config, load_run
from transframer.training.config import TrainConfig
from transframer.training.loop import train

TASK, OLD = "image_classification", "video_prediction"
CLASSES = ("circles", "lines", "squares")


@pytest.fixture(scope="module", autouse=True)
def small_preset():
    small = dataclasses.replace(
        PRESETS["tiny"], encoder_widths=(32,), encoder_blocks=(1,), pixel_stem=(), width=32, value_layers=1,
        chunk_events=24, chunk_overlap=4,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", small)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An ImageFolder of three classes, a brightness each; not square."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(12):
            pixels = 80 * number + generator.integers(0, 20, (24, 40, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def world_run(tmp_path_factory):
    """A run of two steps on one task of the world."""
    config = TrainConfig(
        tasks=[OLD], steps=2, batch_size=2, workers=0, validations=1, validation_episodes=1, pictures=0,
        size_px=32, device="cpu", out=tmp_path_factory.mktemp("world") / "run",
    )  # fmt: skip
    return train(config)


def settings(world_run, folder, out, **changes):
    base = dict(
        data_format="image_folder", steps=3, batch_size=4, workers=0, validations=1, validation_samples=2,
        old_task_samples=0, device="cpu",
    )  # fmt: skip
    return FinetuneConfig(TASK, str(folder), str(world_run), out=out, **base | changes)


@pytest.fixture(scope="module")
def tuned(world_run, folder, tmp_path_factory):
    """A fine-tuned run, with the old task measured."""
    before = sorted(world_run.rglob("*"))
    out = tmp_path_factory.mktemp("tuned") / "run"
    assert (
        finetune(settings(world_run, folder, out, old_task_samples=2, steps=20, batch_size=8, validations=2))
        == out
    )
    assert sorted(world_run.rglob("*")) == before, "nothing is written where it starts from"
    return out


class TestRun:
    def test_it_is_a_run_like_any_other(self, tuned, world_run):
        there = {path.name for path in tuned.iterdir()}
        assert {"config.yaml", "metrics.jsonl", "log.txt", "model", "checkpoints"} <= there
        assert "bad_samples.jsonl" not in there
        predictor, config = load_run(tuned)
        assert isinstance(predictor, Transframer)
        assert predictor.config.tasks == (OLD, TASK)
        assert config.task_settings == {TASK: {"classes": list(CLASSES)}}
        assert (config.start_from, config.tasks, config.data_tasks) == (world_run, [TASK], [TASK])
        assert config.precision == "fp32", "on a CPU"
        assert config.size_px == 32, "that of the model"

    def test_held_out_frames_take_fewer_bits_in_the_end(self, tuned):
        lines = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
        validations = [line["tasks"][TASK] for line in lines if line["kind"] == "validation"]
        assert validations[1]["bits_per_frame"] < validations[0]["bits_per_frame"] - 1

    def test_the_old_tasks_are_told_before_and_after(self, tuned, world_run):
        table = (tuned / "old_tasks.md").read_text()
        assert "on 2 held-out scenes of the world" in table
        assert table.splitlines()[4].startswith(f"| {OLD} | ")
        record = json.loads((tuned / "old_tasks.json").read_text())
        assert [result["task"] for result in record["before"] + record["after"]] == [OLD, OLD]
        before, after = (record[when][0] for when in ("before", "after"))
        assert before["protocol"]["data"] == after["protocol"]["data"]
        assert before["protocol"]["model"]["weights_sha256"] != after["protocol"]["model"]["weights_sha256"]

    def test_benchmark_measures_its_test_part_with_the_protocol_stamped(self, tuned, folder):
        test = ImageFolder(folder, "test")
        config = BenchmarkConfig(
            tuned, data=str(folder), data_format="image_folder", samples=0, device="cpu", no_cache=True
        )
        (result,) = benchmark(config)
        data = result.protocol["data"]
        assert result.task == TASK
        assert (data["split"], data["of"], data["n"]) == ("test", len(test), len(test))
        assert data["source"] == f"image_folder ({folder})"
        assert "32 x 32 px" in data["protocol"]["resolution"]
        assert result.protocol["task_settings"]["classes"] == list(CLASSES)
        assert result.protocol["floor"]["split"] == "the measured"
        assert (tuned / f"benchmark-{folder.name}/results.md").exists()

    def test_predict_writes_the_class_names_of_the_data(self, tuned, folder, tmp_path):
        image = next((folder / "lines").iterdir())
        written = predict_files(
            PredictConfig((str(image),), TASK, str(tmp_path / "out"), str(tuned), device="cpu")
        )
        (path,) = [path for path in written if path.suffix == ".json"]
        text = path.read_text()
        assert all(name in text for name in CLASSES)

    def test_train_resumes_it(self, tuned):
        train(TrainConfig(resume=tuned, steps=22))
        assert (tuned / "checkpoints/step-000022").is_dir()
        assert load_config(tuned).task_settings == {TASK: {"classes": list(CLASSES)}}

    def test_the_world_benchmark_asks_for_the_tasks_of_the_world(self, tuned, world_run):
        predictor, config = load_run(tuned)
        assert tasks_of_world(predictor, config) == [OLD]
        with pytest.raises(ConfigError, match="classes of its own"):
            benchmark(BenchmarkConfig(tuned, tasks=[TASK], samples=1, device="cpu"))


def test_a_stopped_one_is_continued_by_train(world_run, folder, tmp_path, monkeypatch):
    loss = Transframer.loss

    def interrupted(self, batch, generator):
        signal.raise_signal(signal.SIGTERM)
        return loss(self, batch, generator)

    config = settings(world_run, folder, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Transframer, "loss", interrupted)
        with pytest.raises(SystemExit):
            finetune(config)
    train(TrainConfig(resume=config.out))
    assert load_run(config.out)[1].steps == 3


def test_old_tasks_are_mixed_in_by_their_share(world_run, folder, tmp_path):
    finetune(settings(world_run, folder, tmp_path / "run", old_tasks=0.25, batch_size=8, steps=2))
    config = load_config(tmp_path / "run")
    assert config.tasks == [TASK, OLD]
    assert config.weights == {TASK: 0.75, OLD: 0.25}
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    tasks = [line["tasks"] for line in lines if line["kind"] == "train"]
    assert sum(line[TASK]["frames"] for line in tasks) == 12
    assert sum(line[OLD]["frames"] for line in tasks) == 4


def test_a_second_one_keeps_what_the_first_learned_about_its_task(tuned, tmp_path):
    data = tmp_path / "others"
    for name in ("cold", "hot"):
        (data / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (20, 30), (200 * (name == "hot"), i, 0)).save(data / name / f"{i}.png")
    finetune(settings(tuned, data, tmp_path / "same"))
    predictor, config = load_run(tmp_path / "same")
    assert config.task_settings[TASK] == {"classes": ["cold", "hot"]}, "the new data's"
    assert predictor.config.tasks == (OLD, TASK)
    other = settings(tuned, "motorcycle", tmp_path / "other", data_format="motorcycle")
    finetune(dataclasses.replace(other, task="depth_estimation", validation_samples=1))
    predictor, config = load_run(tmp_path / "other")
    assert config.task_settings[TASK] == {"classes": list(CLASSES)}
    assert tasks_of_world(predictor, config) == [OLD], "not the one learned from pictures"


class Coins(Numbers):
    """Pictures of noise with one of two labels, drawn at random."""

    name: ClassVar[str] = "coins"

    def __init__(self, root="coins", split="train", clip=None):
        super().__init__(root, split, clip, n=300)

    @property
    def classes(self):
        return {"label": ("heads", "tails")}

    def record(self, index, keys):
        place = index + len(self) * SPLITS.index(self.split)
        generator = np.random.default_rng(place)
        pixels = generator.integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
        return {"images": torch.from_numpy(pixels), "label": int(generator.integers(2))}


class OnlyTest(ImageFolder):
    """Its training part cannot be opened."""

    name: ClassVar[str] = "only_test"

    def __init__(self, root, split="train", clip=None):
        if split == "train":
            raise AssertionError("the training part was opened")
        super().__init__(root, split, clip)


def test_evaluation_never_opens_training_data(tuned, folder):
    format = "tests.test_finetune:OnlyTest"
    with pytest.raises(AssertionError, match="training part"):  # that it can fail
        train(TrainConfig(tasks=[TASK], steps=1, data=str(folder), data_format=format))
    (result,) = benchmark(
        BenchmarkConfig(tuned, data=str(folder), data_format=format, samples=2, device="cpu")
    )
    assert result.protocol["data"]["split"] == "test"
    assert result.protocol["data"]["n"] == 2


class TestFewSamples:
    def test_the_run_keeps_it_and_the_whole_test_part_is_measured(self, world_run, folder, tmp_path):
        asked = {"train_samples": 10}
        finetune(settings(world_run, folder, tmp_path / "run", data_options=asked))
        assert load_config(tmp_path / "run").data_options == asked
        (result,) = benchmark(
            BenchmarkConfig(
                tmp_path / "run", data=str(folder), data_format="image_folder", data_options=asked, samples=0,
                device="cpu",
            )
        )  # fmt: skip
        assert result.protocol["data"]["n"] == len(ImageFolder(folder, "test"))

    def test_the_length_is_that_of_the_few(self):
        config = FinetuneConfig(
            TASK, "numbers", "run", data_format="tests.data.toy_dataset:Numbers", batch_size=10,
            data_options={"n": 50_000, "train_samples": 900},
        )  # fmt: skip
        assert train_config(config, TrainConfig(), []).steps == 900

    def test_ten_held_out_samples_stop_it_where_it_only_learns_by_heart(self, world_run, tmp_path):
        """Labels are chance, so that what is learned of a hundred of them says nothing of ten others."""
        config = settings(
            world_run, "coins", tmp_path / "run", data_format="tests.test_finetune:Coins",
            data_options={"train_samples": 100}, steps=200, batch_size=20, validations=10, learning_rate=0.01,
            validation_samples=64, patience=2,
        )  # fmt: skip
        finetune(config)
        lines = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
        bits = {
            line["step"]: line["tasks"][TASK]["bits_per_frame"]
            for line in lines
            if line["kind"] == "validation"
        }
        best = min(bits, key=lambda step: bits[step])
        assert max(bits) < 200, "stopped early"
        assert sorted(bits)[-3] == best, "after two validations that were no better"
        assert json.loads((config.out / "model/manifest.json").read_text())["step"] == best


class TestSettings:
    def plan(self, old=(OLD,), stored=None, n=100, **changes):
        base = dict(data_format="tests.data.toy_dataset:Numbers", data_options={"n": n}, batch_size=10)
        config = FinetuneConfig(TASK, "numbers", "run", **base | changes)
        return train_config(config, stored or TrainConfig(), list(old))

    @pytest.mark.parametrize(("n", "samples"), [(100, 4_000), (900, 9_000), (50_000, 200_000)])
    def test_the_length_follows_the_data(self, n, samples):
        assert self.plan(n=n).steps == samples / 10

    def test_with_old_tasks_the_new_one_gets_as_many_samples(self):
        assert self.plan(old_tasks=0.5).steps == 800
        alone = self.plan(old_tasks=0.5, old=())
        assert (alone.steps, alone.weights) == (400, {}), "nothing to mix in"

    def test_minutes_or_steps_win(self):
        assert (self.plan(minutes=2.0).steps, self.plan(minutes=2.0).minutes) == (None, 2.0)
        assert self.plan(steps=7).steps == 7

    def test_the_learning_rate_is_a_part_of_the_presets(self):
        assert self.plan().learning_rate == LEARNING_RATES["tiny"] / 4
        assert self.plan(lora_rank=4).learning_rate == LEARNING_RATES["tiny"] / 2
        assert self.plan(learning_rate=0.5).learning_rate == 0.5

    def test_a_trained_encoder_learns_at_the_rate_of_the_rest(self):
        assert self.plan().model_settings["encoder_lr_scale"] == 1.0
        assert self.plan(stored=TrainConfig(model="spatial-temporal")).model_settings == {}

    def test_the_sketch_weighs_little_where_the_answer_is_not_read_off_it(self):
        assert self.plan().model_settings["sketch_weight"] == 0.5
        config = FinetuneConfig("depth_estimation", "unopened", "run", steps=1, learning_rate=0.1)
        assert "sketch_weight" not in train_config(config, TrainConfig(), []).model_settings

    def test_other_classes_are_learned_at_the_rate_of_the_preset(self):
        knows_others = TrainConfig(tasks=[TASK])
        assert self.plan(stored=knows_others).learning_rate == LEARNING_RATES["tiny"]
        assert self.plan(stored=knows_others, minutes=1.0).learning_rate == LEARNING_RATES["tiny"]
        assert self.plan(stored=knows_others, lora_rank=4).learning_rate == LEARNING_RATES["tiny"] / 2
        classes = [str(label) for label in range(100)]
        same = TrainConfig(tasks=[TASK], task_settings={TASK: {"classes": classes}})
        assert self.plan(stored=same).learning_rate == LEARNING_RATES["tiny"] / 4
        named = {"classes": [f"number {name}" for name in classes]}
        assert self.plan(stored=same, task_settings=named).learning_rate == LEARNING_RATES["tiny"]

    def test_samples_are_cropped_where_it_is_known_how(self, monkeypatch):
        assert (self.plan().crop, self.plan(crop=1.0).crop) == (0.8, 1.0)
        changes = self.plan(flip=True, color=0.3)
        assert (changes.flip, changes.color) == (True, 0.3)

        class Keypoints(TypedDict):
            images: Any
            keypoints: NotRequired[Any]

        monkeypatch.setattr(type(get_task(TASK)), "sample_type", Keypoints)
        assert self.plan(steps=1, learning_rate=0.1).crop == 1

    def test_pictures_asked_for_stay_as_sharp_as_they_are(self):
        config = FinetuneConfig("video_prediction", "unopened", "run", steps=1, learning_rate=0.1)
        assert train_config(config, TrainConfig(), []).crop == 1
        assert train_config(dataclasses.replace(config, crop=0.7), TrainConfig(), []).crop == 0.7

    def test_settings_of_the_task_stay_but_not_its_classes(self):
        stored = TrainConfig(task_settings={TASK: {"classes": ["a"], "quality": 20}, OLD: {"quality": 30}})
        assert self.plan(stored=stored).task_settings == {TASK: {"quality": 20}, OLD: {"quality": 30}}
        again = self.plan(stored=stored, task_settings={"quality": 5}).task_settings
        assert again[TASK] == {"quality": 5}

    def test_out_of_range(self):
        wrong = (("old_tasks", 1.0), ("old_tasks", -0.1), ("old_task_samples", -1))
        for name, value in (
            *wrong,
            ("validation_samples", 0),
            ("batch_size", 0),
            ("crop", 0.0),
            ("color", 2.0),
        ):
            with pytest.raises(ConfigError, match=f"^{name}: "):
                FinetuneConfig(TASK, "x", "run", **{name: value})

    def test_the_command_line_says_from(self, tmp_path, capsys):
        assert cli.main(["finetune", "--from", str(tmp_path), "--task", TASK, "--data", "x"]) == 2
        assert "neither a run folder nor a model" in capsys.readouterr().err


class TestErrors:
    """Each before anything is written."""

    @pytest.fixture(autouse=True)
    def out(self, tmp_path):
        yield tmp_path / "run"
        assert not (tmp_path / "run").exists()

    def test_unknown_task(self, world_run, folder, out):
        with pytest.raises(UnknownNameError, match="did you mean 'image_classification'"):
            finetune(dataclasses.replace(settings(world_run, folder, out), task="image_clasification"))

    def test_no_run(self, folder, out, tmp_path):
        with pytest.raises(CheckpointError):
            finetune(settings(tmp_path / "nowhere", folder, out))

    def test_no_data(self, world_run, out, tmp_path):
        with pytest.raises(DataError, match="no such folder"):
            finetune(settings(world_run, tmp_path / "nowhere", out))

    def test_data_of_another_task(self, world_run, folder, out):
        with pytest.raises(DataError, match="has no depth_m"):
            finetune(dataclasses.replace(settings(world_run, folder, out), task="depth_estimation"))

    def test_more_classes_than_a_frame_can_say(self, world_run, out):
        config = settings(world_run, "x", out, data_format="tests.data.toy_dataset:Numbers")
        with pytest.raises(ConfigError, match="17 classes in a frame of 32 x 32"):
            finetune(dataclasses.replace(config, data_options={"n": 17}))

    def test_a_setting_that_the_task_does_not_have(self, world_run, folder, out):
        with pytest.raises(UnknownNameError, match="did you mean 'quality'"):
            finetune(settings(world_run, folder, out, task_settings={"qality": 5}))


def test_a_run_folder_that_exists_is_told_before_training(world_run, folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.txt").touch()
    with pytest.raises(ConfigError, match="exists already"):
        finetune(settings(world_run, folder, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_low_rank_gives_a_run_like_any_other(world_run, folder, tmp_path):
    pytest.importorskip("peft")
    finetune(settings(world_run, folder, tmp_path / "run", lora_rank=2))
    predictor, config = load_run(tmp_path / "run")
    assert config.lora_rank == 2
    assert set(predictor.state_dict()) == set(load_run(world_run)[0].state_dict())
    assert "are learned" in (tmp_path / "run/log.txt").read_text()
    (result,) = benchmark(
        BenchmarkConfig(
            tmp_path / "run", data=str(folder), data_format="image_folder", samples=2, device="cpu"
        )
    )
    assert result.task == TASK


def test_the_benchmark_that_comes_next_can_be_typed():
    options = {"columns": {"label": "fine_label"}, "train_samples": 100}
    config = FinetuneConfig(TASK, "my photos", data_options=options, out=Path("runs/a"))
    words = shlex.split(measuring(config).command)
    assert words[:2] == ["transframer", "benchmark"]
    parsed = parse(BenchmarkConfig, words[2:], prog="transframer benchmark", positional=("run",))
    assert (parsed.run, parsed.data) == (Path("runs/a"), "my photos")
    assert parsed.data_options == {"columns": {"label": "fine_label"}}
