import json
import sys

import pytest
import toy

from transframer.errors import ConfigError
from transframer.training.config import TrainConfig
from transframer.training.report import Report

METRICS = dict(
    progress=0.5, learning_rate=1e-3, gradient_norm=2.0, nats_per_event=1.5, heads={"value": 1.5}, tasks={},
    frames_per_s=10.0, tokens_per_s=100.0, skipped_steps=0, waiting_for_data=0.0,
)  # fmt: skip


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    with Report(tmp_path) as report:
        report.train(3, 1.0, **METRICS)
        report.validation(3, 1.0, {"depth": 120.4})
    out = capsys.readouterr().out
    assert out == (tmp_path / "log.txt").read_text()
    assert out.splitlines()[0].startswith(" 50%  step 3  1.500 nats/token  10 frames/s")
    assert out.splitlines()[1] == "held-out bits per frame at step 3: depth 120"
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["train", "validation"]


def test_a_bar_on_a_terminal_and_plain_lines_in_the_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with Report(tmp_path) as report:
        report.train(3, 1.0, **METRICS)
        report.say("[saved]")
    out, log = capsys.readouterr().out, (tmp_path / "log.txt").read_text()
    assert "━" in out
    assert "[saved]" in out
    assert "\x1b" not in log
    assert log.splitlines()[1] == "[saved]"


def test_a_skipped_step_is_told(tmp_path, capsys):
    with Report(tmp_path) as report:
        report.train(3, 1.0, **METRICS | {"skipped_steps": 2})
    assert "skipped 2 steps that were not finite" in capsys.readouterr().out


def test_waiting_for_data_is_told_where_it_is_much(tmp_path, capsys):
    with Report(tmp_path) as report:
        report.train(3, 1.0, **METRICS | {"waiting_for_data": 0.1})
        report.train(4, 1.0, **METRICS | {"waiting_for_data": 0.25})
    first, second = capsys.readouterr().out.splitlines()
    assert "waiting" not in first
    assert "waiting for data 25% of the time" in second


def test_a_silent_process_writes_nothing(capsys):
    with Report(None) as report:
        report.train(3, 1.0, **METRICS)
        report.say("x")
    assert capsys.readouterr().out == ""


def test_without_tensorboard_there_is_no_run_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="TensorBoard is not installed"):
        toy.run(TrainConfig(steps=1, workers=0, tensorboard=True, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Report(tmp_path, tensorboard=True) as report:
        report.train(3, 1.0, **METRICS)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("train/heads/value")[0].value == 1.5
