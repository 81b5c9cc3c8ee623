"""Whole runs of the second predictor: trained, stopped, resumed, measured, predicted with."""

import dataclasses
import signal

import pytest
import torch

from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.quality import benchmark
from transframer.data.formats.images import load_image, save_png
from transframer.data.world import World
from transframer.errors import ConfigError, UnknownNameError
from transframer.finetune import finetune
from transframer.finetune_config import FinetuneConfig
from transframer.models.spatial_temporal import SpatialTemporal
from transframer.models.spatial_temporal_config import PRESETS
from transframer.predict import predict_files
from transframer.predict_config import PredictConfig
from transframer.training.checkpoint import load_run
from transframer.training.config import TrainConfig
from transframer.training.loop import train

from .small_runs import weights

VIDEO_TASKS = ["frame_interpolation", "video_prediction"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    made = dataclasses.replace(
        PRESETS["tiny"],
        widths=(8, 16),
        groups=2,
        codes=8,
        code_width=4,
        width=16,
        layers=2,
        heads=2,
        autoencoder_share=0.4,
    )
    monkeypatch.setitem(PRESETS, "tiny", made)


def config(folder, **changes):
    settings = dict(
        model="spatial-temporal", steps=3, batch_size=4, workers=0, validations=1, validation_episodes=2,
        pictures=1, size_px=32, model_settings={"dropout": 0.1},
    )  # fmt: skip
    return TrainConfig(**settings | changes, out=folder, device="cpu")


def test_it_learns_the_tasks_that_it_can_and_refuses_the_others_by_name(tmp_path):
    train(config(tmp_path / "run", steps=1))
    predictor, settings = load_run(tmp_path / "run")
    assert isinstance(predictor, SpatialTemporal)
    assert predictor.config.dropout == 0.1
    assert (settings.tasks, settings.model) == (VIDEO_TASKS, "spatial-temporal")
    assert {path.stem for path in (tmp_path / "run/samples/step-000001").iterdir()} == set(VIDEO_TASKS)
    with pytest.raises(
        ConfigError, match=r"cannot learn depth_estimation \(frames of kind depth\)"
    ) as raised:
        train(config(tmp_path / "no", tasks=["depth_estimation", "video_prediction"]))
    assert "video_prediction" in raised.value.expected
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "paper"}, "unknown preset 'paper'"),
        ({"model": "spatial_temporal"}, "did you mean 'spatial-temporal'"),
        ({"model_settings": {"widht": 3}}, "did you mean 'width'"),
        ({"model_settings": {"head": "both"}}, "categorical or regression"),
        ({"model_settings": {"layers": "four"}}, "a value like 2"),
        ({"model_settings": {"heads": 0}}, "heads: 0\nexpected at least 1"),
        ({"model_settings": {"dropout": 1.5}}, "0 to less than 1"),
        ({"model_settings": {"widths": [12, 0]}}, "multiples of 8"),
        ({"model_settings": {"mlp_ratio": -1.0}}, "above 0"),
        ({"model": "transframer", "model_settings": {}, "gan": True}, "unknown setting of the model 'gan'"),
    ],
)
def test_impossible_models_are_told_before_anything_is_imported(tmp_path, changes, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        config(tmp_path / "run", **changes)


@pytest.mark.parametrize("changes", [{}, {"gan": True}, {"model_settings": {"head": "regression"}}])
def test_a_resumed_run_ends_bit_for_bit_where_a_straight_one_does(tmp_path, monkeypatch, changes):
    train(config(tmp_path / "straight", **changes))
    loss, calls = SpatialTemporal.loss, []

    def interrupted(self, batch, generator):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return loss(self, batch, generator)

    with monkeypatch.context() as patch:
        patch.setattr(SpatialTemporal, "loss", interrupted)
        with pytest.raises(SystemExit):
            train(config(tmp_path / "stopped", **changes))
    train(TrainConfig(resume=tmp_path / "stopped"))
    straight, stopped = (weights(tmp_path / name, 3) for name in ("straight", "stopped"))
    torch.testing.assert_close(stopped, straight, rtol=0, atol=0)
    predictor, settings = load_run(tmp_path / "stopped")
    assert (predictor.autoencoder.discriminator is not None) == settings.gan == ("gan" in changes)


def test_benchmark_predict_and_finetune_take_it_as_any_other(tmp_path, capsys):
    run = train(config(tmp_path / "run"))
    results = benchmark(
        BenchmarkConfig(run=run, samples=2, floor_samples=1, rollout_frames=2, rollout_videos=2, device="cpu")
    )
    assert [result.task for result in results] == VIDEO_TASKS
    by_name = {result.task: result for result in results}
    assert by_name["video_prediction"].rollout is not None
    assert by_name["video_prediction"].autoencoder is not None
    assert "variational bound" in capsys.readouterr().out
    sample = World("test", 0, 32).samples([0], *_asked("video_prediction"))[0]
    files = []
    for number, image in enumerate(sample["images"]):
        files.append(str(tmp_path / f"{number}.png"))
        save_png(tmp_path / f"{number}.png", image)
    for count in (1, 3):
        written = predict_files(
            PredictConfig(tuple(files[-count:]), "video_prediction", str(tmp_path / f"out{count}"), str(run))
        )
        assert load_image(written[0]).shape == (3, 32, 32)

    frames = tmp_path / "clips"
    for clip in range(12):
        folder = frames / f"clip{clip}"
        folder.mkdir(parents=True)
        for number in range(6):
            save_png(folder / f"{number}.png", torch.full((3, 32, 32), 10 * clip + number, dtype=torch.uint8))
    tuned = finetune(
        FinetuneConfig(
            from_=str(run), task="video_prediction", data=str(frames), out=tmp_path / "tuned", steps=2,
            batch_size=4, workers=0, validations=1, validation_samples=2, old_task_samples=2, device="cpu",
        )
    )  # fmt: skip
    predictor, settings = load_run(tuned)
    assert isinstance(predictor, SpatialTemporal)
    assert settings.model == "spatial-temporal"


def _asked(name):
    from transframer.registry import get_task

    task = get_task(name)
    return task.sample_type, task.clip


def test_bits_of_another_code_decide_nothing(tmp_path, monkeypatch):
    """While the autoencoder learns, bits are no reason to stop, nor is their least the best model."""
    from transframer.training.early_stop import Best

    noted, note = [], Best.note
    monkeypatch.setattr(Best, "note", lambda self, step, bits: noted.append(step) or note(self, step, bits))
    train(
        config(
            tmp_path / "run", steps=10, validations=10, patience=50, tasks=["video_prediction"], pictures=0
        )
    )
    assert noted == [4, 5, 6, 7, 8, 9, 10], "the autoencoder learns in the first four of ten steps"


def test_a_run_cannot_be_made_so_long_that_its_autoencoder_would_begin_again(tmp_path):
    run = train(config(tmp_path / "run", steps=5, tasks=["video_prediction"], pictures=0))
    with pytest.raises(ConfigError, match="begin its first phase again") as raised:
        train(TrainConfig(resume=run, steps=50))
    assert f"--start-from {run}" in raised.value.next_step
    before = load_run(run)[0].autoencoder.state_dict()
    train(TrainConfig(resume=run, steps=10))
    after = load_run(run)[0].autoencoder.state_dict()
    assert all(torch.allclose(before[name], after[name], atol=1e-2) for name in before)


def test_what_a_run_that_starts_from_another_cannot_change(tmp_path):
    run = train(config(tmp_path / "run", steps=1, tasks=["video_prediction"], pictures=0))
    base = dict(start_from=run, steps=1, tasks=["video_prediction"], size_px=32, workers=0, device="cpu")
    with pytest.raises(ConfigError, match="beside weights to start from"):
        train(TrainConfig(**base, model="spatial-temporal", gan=True, out=tmp_path / "gan"))
    with pytest.raises(ConfigError, match="low-rank changes of a spatial-temporal model"):
        train(TrainConfig(**base, lora_rank=2, out=tmp_path / "low"))
