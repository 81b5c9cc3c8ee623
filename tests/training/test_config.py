import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from transframer.errors import ConfigError
from transframer.given import note_given
from transframer.training.config import TrainConfig


def test_it_imports_no_torch():
    code = "import sys, transframer.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_field_is_explained():
    for setting in fields(TrainConfig):
        assert f"\n        {setting.name}: " in TrainConfig.__doc__


@pytest.mark.parametrize(
    "setting",
    [
        {"minutes": 0.0}, {"steps": 0}, {"seed": -1}, {"size_px": 60}, {"batch_size": 0}, {"ema_decay": 1.0},
        {"learning_rate": 0.0}, {"warmup_steps": -1}, {"weight_decay": -0.1}, {"gradient_clip": 0.0},
        {"keep": 1}, {"workers": -1}, {"validations": 0}, {"pictures": 5},
        {"seed": 2**63}, {"weights": {"a": 0.0}}, {"tasks": ["a", "a"]}, {"render": "device", "data": "x"},
        {"crop": 0.0}, {"color": 1.1},
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(setting):
    with pytest.raises(ConfigError, match=f"^{next(iter(setting))}: "):
        TrainConfig(**setting)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("heads", 0), ("heads", 3), ("encoder_blocks", [1]), ("pixel_stem", [8]), ("dropout", 2.0),
        ("chunk_overlap", 96), ("memory", "some"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_built_is_refused_before_it_is(name, value):
    with pytest.raises(ConfigError, match=f"^{name}: "):
        TrainConfig(model_settings={name: value})
    with pytest.raises(ConfigError, match=r"^encoder_blocks: "):
        TrainConfig(model_settings={"encoder_widths": [], "encoder_blocks": []})


def test_the_share_of_a_task():
    config = TrainConfig(tasks=["a", "b", "c"], weights={"a": 3.0})
    assert [config.share(name) for name in "abc"] == [0.6, 0.2, 0.2]


def test_weights_are_of_tasks_trained():
    with pytest.raises(ConfigError, match="weights for b"):
        TrainConfig(tasks=["a"], weights={"b": 1.0})


def test_the_folder():
    assert TrainConfig(preset="small").folder == Path("runs/small")
    assert TrainConfig(out=Path("x")).folder == Path("x")


def test_settings_survive_being_stored():
    config = TrainConfig(steps=3, tasks=["a"], weights={"a": 2.0}, out=Path("x"))
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_a_resumed_run_takes_the_stored_settings_and_the_changes_it_may():
    stored = TrainConfig(steps=3, seed=5, learning_rate=0.1, out=Path("x"), workers=4)
    resumed = TrainConfig(resume=Path("moved"), steps=9, seed=5).over(stored)
    assert (resumed.steps, resumed.seed, resumed.learning_rate, resumed.workers) == (9, 5, 0.1, 4)
    assert resumed.folder == Path("moved")
    with pytest.raises(ConfigError, match="learning_rate"):
        TrainConfig(resume=Path("x"), learning_rate=0.2).over(stored)


def test_what_is_given_counts_also_where_it_is_the_default():
    stored = TrainConfig(steps=3, patience=5, seed=5, out=Path("x"))

    def resumed(**settings):
        config = TrainConfig(resume=Path("x"), **settings)
        note_given(config, {"resume", *settings})
        return config.over(stored)

    assert resumed().patience == 5
    assert resumed(patience=0).patience == 0
    with pytest.raises(ConfigError, match="seed"):
        resumed(seed=0)


@pytest.mark.parametrize("setting", [{"crop": 0.8}, {"flip": True}, {"color": 0.1}])
def test_the_world_is_new_each_time_and_not_changed(setting):
    with pytest.raises(ConfigError, match="crop, flip, color: "):
        TrainConfig(**setting)
    TrainConfig(data="folder", **setting)
    TrainConfig(resume=Path("run"), **setting)
