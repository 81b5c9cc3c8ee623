"""`train` itself: the real model on the real world, a few steps of it."""

import signal
from pathlib import Path

import pytest
import torch

from transframer.errors import ConfigError, UnknownNameError
from transframer.models.transframer import Transframer
from transframer.training.checkpoint import load_run, save_config
from transframer.training.config import TrainConfig
from transframer.training.loop import train

TASKS = ["frame_interpolation", "optical_flow"]


def config(folder, **changes):
    settings = dict(
        tasks=TASKS, steps=3, batch_size=2, workers=0, validations=1, validation_episodes=1, pictures=1,
        device="cpu",
    )  # fmt: skip
    return TrainConfig(**settings | changes, out=folder)


def state(folder):
    state = torch.load(folder / "checkpoints/step-000003/state.pt", weights_only=True)
    return {name: state[name] for name in ("predictor", "average", "optimizer")}


def test_a_resumed_transframer_ends_bit_for_bit_where_a_straight_one_does(tmp_path, monkeypatch):
    train(config(tmp_path / "straight"))
    loss, calls = Transframer.loss, []

    def interrupted(self, batch, generator):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return loss(self, batch, generator)

    with monkeypatch.context() as patch:
        patch.setattr(Transframer, "loss", interrupted)
        with pytest.raises(SystemExit):
            train(config(tmp_path / "stopped"))
    assert len(calls) == 2
    train(TrainConfig(resume=tmp_path / "stopped"))
    torch.testing.assert_close(state(tmp_path / "stopped"), state(tmp_path / "straight"), rtol=0, atol=0)

    predictor, settings = load_run(tmp_path / "straight")
    assert isinstance(predictor, Transframer)
    assert predictor.config.tasks == tuple(settings.tasks) == tuple(TASKS)
    assert set(predictor.config.kinds) == {"rgb", "flow"}
    assert {path.stem for path in (tmp_path / "straight/samples/step-000003").iterdir()} == set(TASKS)


def test_an_unknown_preset_or_task_leaves_no_folder(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'tiny'"):
        train(config(tmp_path / "run", preset="tinny"))
    with pytest.raises(UnknownNameError, match="did you mean 'optical_flow'"):
        train(config(tmp_path / "run", tasks=["optical_flo"]))
    assert not Path(tmp_path / "run").exists()


def test_a_resumed_run_stays_on_its_device(tmp_path, monkeypatch):
    save_config(tmp_path, config(tmp_path, device="cuda:7"))
    with pytest.raises(ConfigError, match="device: "):
        train(TrainConfig(resume=tmp_path))
