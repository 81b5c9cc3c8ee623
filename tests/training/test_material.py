"""What a run learns from: tasks with the data's classes, parts that share nothing, weights to start from."""

import dataclasses
import shutil
from typing import Any, NotRequired, TypedDict

import pytest
import torch
from small_runs import CLASSES, TASK, pictures, settings, shrink, truncate, weights

from transframer.data.augmentation import Augmentation
from transframer.data.datasets.image_folder import ImageFolder
from transframer.data.source import DatasetSource
from transframer.data.world import World
from transframer.errors import ConfigError, DataError
from transframer.models.transframer import Transframer
from transframer.registry import get_task
from transframer.task_settings import configured_task, task_settings
from transframer.training.checkpoint import load_config, load_run
from transframer.training.config import TrainConfig
from transframer.training.loop import train
from transframer.training.material import Material, first_predictor


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shrink(monkeypatch)
    return pictures(tmp_path / "pictures")


def record_files(run):
    """Wraps `ImageFolder.image` so that `run()` tells which split's files it read."""
    read, image = {}, ImageFolder.image

    def noted(self, index):
        read.setdefault(self.split, set()).update(self.files(index))
        return image(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFolder, "image", noted)
        run()
    return read


class TestMaterial:
    def test_of_data_the_task_has_their_classes(self, folder, tmp_path):
        material = Material.of(settings(tmp_path / "run", folder))
        assert material.tasks[TASK].classes == CLASSES
        assert material.task_settings == {TASK: {"classes": list(CLASSES)}}
        assert material.kinds == ("class", "rgb")
        for source, split in ((material.sources[TASK], "train"), (material.held_out[TASK], "validation")):
            assert isinstance(source, DatasetSource)
            assert source.dataset.split == split
        assert material.sources[TASK].replace_bad
        assert not material.held_out[TASK].replace_bad

    def test_pictures_keep_their_labels(self, folder, tmp_path):
        source, task = Material.of(settings(tmp_path, folder)).sources[TASK], get_task(TASK)
        for sample in source.samples(range(len(source)), task.sample_type, task.clip):
            assert sample["label"] == int(sample["images"].float().mean() // 60)

    def test_only_what_is_trained_on_is_augmented(self, folder, tmp_path):
        material = Material.of(settings(tmp_path / "run", folder, crop=0.6, flip=True, color=0.2))
        assert material.sources[TASK].augmentation == Augmentation(0.6, True, 0.2)
        assert material.held_out[TASK].augmentation == Augmentation()
        assert material.sources[TASK].share == 1

    def test_a_task_with_fields_of_its_own_is_refused_before_training(self, folder, tmp_path, monkeypatch):
        class Keypoints(TypedDict):
            images: NotRequired[Any]
            label: NotRequired[int]
            keypoints: NotRequired[Any]

        monkeypatch.setattr(type(get_task(TASK)), "sample_type", Keypoints)
        with pytest.raises(ConfigError, match="samples with keypoints"):
            Material.of(settings(tmp_path / "run", folder, flip=True))

    def test_other_tasks_learn_from_the_world(self, folder, tmp_path):
        config = settings(tmp_path, folder, tasks=[TASK, "depth_estimation"], data_tasks=[TASK], seed=3)
        material = Material.of(config)
        assert isinstance(material.sources["depth_estimation"], World)
        assert isinstance(material.held_out["depth_estimation"], World)
        one, other = (
            each["depth_estimation"].samples(
                [0], get_task("depth_estimation").sample_type, get_task(TASK).clip
            )
            for each in (material.sources, material.held_out)
        )
        assert not torch.equal(one[0]["images"], other[0]["images"])
        assert material.kinds == ("class", "depth", "rgb")

    def test_data_of_tasks_that_are_not_trained_are_refused(self, folder, tmp_path):
        with pytest.raises(ConfigError, match="data_tasks"):
            settings(tmp_path, folder, tasks=["depth_estimation"], data_tasks=[TASK])
        with pytest.raises(ConfigError, match="data_tasks"):
            TrainConfig(tasks=[TASK], data_tasks=[TASK])

    def test_data_without_the_labels_are_refused(self, folder, tmp_path):
        with pytest.raises(DataError, match="has no depth_m"):
            Material.of(settings(tmp_path, folder, tasks=["depth_estimation"]))

    def test_class_names_may_be_given_one_for_each_class(self, folder, tmp_path):
        given = {TASK: {"classes": ["o", "-", "#"]}}
        material = Material.of(settings(tmp_path, folder, task_settings=given))
        assert material.tasks[TASK].classes == ("o", "-", "#")
        with pytest.raises(ConfigError, match="2 classes for data of 3"):
            Material.of(settings(tmp_path, folder, task_settings={TASK: {"classes": ["o", "-"]}}))

    def test_settings_of_tasks_not_trained_are_kept(self, folder, tmp_path):
        deep = {"depth_estimation": {"max_depth_m": 80.0}}
        train(settings(tmp_path / "first", folder, steps=1, task_settings=deep))
        again = settings(tmp_path / "next", folder, start_from=tmp_path / "first", steps=1)
        assert Material.of(again).task_settings == {**deep, TASK: {"classes": list(CLASSES)}}
        # What a new run sets back stays so when it is resumed.
        back = dataclasses.replace(again, task_settings={"depth_estimation": {}})
        train(back)
        resumed = dataclasses.replace(load_config(back.out), resume=back.out)
        assert Material.of(resumed).task_settings == {TASK: {"classes": list(CLASSES)}}

    def test_a_sample_that_the_task_refuses_counts_as_bad(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(
            ImageFolder, "label_fields", lambda self, i, keys: {"label": 7} if i == 4 else {"label": 0}
        )
        source = Material.of(settings(tmp_path, folder)).sources[TASK]
        task = get_task(TASK)
        samples = source.samples(range(len(source)), task.sample_type, task.clip)
        assert [bad.index for bad in source.bad] == [4]
        assert "class 7" in source.bad[0].reason
        assert {sample["label"] for sample in samples} == {0}


def test_training_never_reads_what_is_held_out(folder, tmp_path):
    read = record_files(lambda: train(settings(tmp_path / "run", folder, steps=8)))
    parts = {
        split: {ImageFolder(folder, split).files(i)[0] for i in range(len(ImageFolder(folder, split)))}
        for split in ("train", "validation", "test")
    }
    assert read["train"] == parts["train"], "64 samples of some 20 pictures"
    assert read["validation"] <= parts["validation"]
    assert "test" not in read
    assert not parts["train"] & parts["validation"]
    assert not (parts["train"] | parts["validation"]) & parts["test"]


def test_fewer_held_out_than_asked_for_are_each_taken_once(folder, tmp_path):
    held_out = Material.of(settings(tmp_path, folder)).held_out
    from transframer.training.validation import Validation

    validation = Validation({TASK: get_task(TASK)}, held_out, 500, 0)
    assert len(validation.samples[TASK]) == len(held_out[TASK]) < 10


class TestFirstPredictor:
    def test_random_weights_know_the_tasks_trained(self, folder, tmp_path):
        config = settings(tmp_path / "run", folder)
        predictor = first_predictor(config, Material.of(config))
        assert predictor.config.tasks == (TASK,)
        assert predictor.config.kinds == ("class", "rgb")

    def test_it_begins_with_the_weights_to_start_from_and_what_they_lack(self, folder, tmp_path):
        world = TrainConfig(
            tasks=["depth_estimation"], steps=1, batch_size=2, workers=0, validations=1, pictures=0,
            validation_episodes=1, size_px=32, device="cpu", out=tmp_path / "world",
        )  # fmt: skip
        train(world)
        start, _ = load_run(world.out)
        config = settings(tmp_path / "run", folder, start_from=world.out)
        predictor = first_predictor(config, Material.of(config))
        assert predictor.config.tasks == ("depth_estimation", TASK)
        assert set(predictor.config.kinds) == {"depth", "rgb", "class"}
        task = get_task("depth_estimation")
        asked = [task.format(s) for s in World("test", 0, 32).samples(range(2), task.sample_type, task.clip)]
        assert torch.equal(predictor.eval().log_prob(asked), start.log_prob(asked))

    def test_other_classes_are_learned_anew(self, folder, tmp_path):
        train(settings(tmp_path / "first", folder, steps=1))
        start, _ = load_run(tmp_path / "first")

        def biases(task_settings):
            config = settings(tmp_path / "run", folder, start_from=tmp_path / "first")
            config = dataclasses.replace(config, task_settings=task_settings)
            return first_predictor(config, Material.of(config)).task_tables()[1].weight

        assert torch.equal(biases({}), start.task_tables()[1].weight)
        others = {TASK: {"classes": [name.upper() for name in CLASSES]}}
        assert not torch.equal(biases(others), start.task_tables()[1].weight)

    def test_a_run_that_is_resumed_needs_no_other(self, folder, tmp_path):
        first, second = tmp_path / "first", tmp_path / "second"
        train(settings(first, folder, steps=1))
        train(settings(second, folder, start_from=first))
        first.rename(tmp_path / "moved")
        train(TrainConfig(resume=second, steps=5))
        assert load_config(second).start_from == first

    def test_a_run_killed_before_its_first_model_begins_as_it_did(self, folder, tmp_path):
        train(settings(tmp_path / "first", folder, steps=1))
        train(settings(tmp_path / "second", folder, start_from=tmp_path / "first"))
        shutil.rmtree(tmp_path / "second/model")
        train(TrainConfig(resume=tmp_path / "second", steps=5))
        load_run(tmp_path / "second")


@pytest.mark.parametrize("rank", [0, 2])
def test_a_fine_tuning_that_was_stopped_ends_as_one_that_was_not(folder, tmp_path, rank, monkeypatch):
    if rank:
        pytest.importorskip("peft")
    train(settings(tmp_path / "first", folder, steps=1))
    config = settings(
        tmp_path / "straight",
        folder,
        start_from=tmp_path / "first",
        lora_rank=rank,
        patience=2,
        validations=2,
    )
    train(config)
    calls, loss = [], Transframer.loss

    def interrupted(self, batch, generator):
        calls.append(1)
        if len(calls) == 3:
            import signal

            signal.raise_signal(signal.SIGTERM)
        return loss(self, batch, generator)

    stopped = dataclasses.replace(config, out=tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Transframer, "loss", interrupted)
        with pytest.raises(SystemExit):
            train(stopped)
    train(TrainConfig(resume=stopped.out))
    torch.testing.assert_close(weights(stopped.out, 4), weights(config.out, 4), rtol=0, atol=0)
    models = [load_run(c.out)[0] for c in (config, stopped)]
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)
    assert not any("lora" in name for name in models[0].state_dict()), "saved as an ordinary model"
    if rank:
        start = load_run(tmp_path / "first")[0].state_dict()
        frozen = [name for name, value in start.items() if torch.equal(value, models[0].state_dict()[name])]
        assert any("conv" in name or "norm" in name for name in frozen)
        assert len(frozen) < len(start)


def test_damage_in_data_that_are_read_whole_is_told_at_once(folder, tmp_path):
    for path in folder.rglob("*.png"):
        truncate(path)
    with pytest.raises(DataError, match="cannot be read"):
        train(settings(tmp_path / "run", folder))
    assert not (tmp_path / "run").exists()


class TestTaskSettings:
    def test_they_are_what_differs_and_survive_yaml(self):
        import yaml

        task = get_task("video_prediction")
        clip = dataclasses.replace(task.clip, frames=20, context=((7, 8, 9),), target=(10, 11))
        changed = dataclasses.replace(task, clip=clip)
        assert task_settings(task) == {}
        stored = yaml.safe_load(yaml.safe_dump({task.name: task_settings(changed)}))
        assert set(stored[task.name]) == {"clip"}
        assert configured_task(task.name, stored) == changed
        assert configured_task("optical_flow", stored) == get_task("optical_flow")

    def test_a_clip_with_a_field_that_there_is_not(self):
        with pytest.raises(ConfigError, match="length") as caught:
            configured_task("video_prediction", {"video_prediction": {"clip": {"length": 3}}})
        assert caught.value.field == "task_settings.video_prediction"
