"""A whole run on the toy model: what it leaves behind, and that a stop changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import toy
from PIL import Image

from transframer.errors import CheckpointError, ConfigError, TransframerError, UnknownNameError
from transframer.training import checkpoint
from transframer.training.checkpoint import load_config, load_run
from transframer.training.config import TrainConfig


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        steps=12, batch_size=8, out=tmp_path / "run", workers=0, warmup_steps=2, validations=2,
        validation_episodes=2, pictures=2, log_every_s=1e-6, device="cpu", weights={"copy": 3.0},
    )  # fmt: skip


def state(folder, step=12):
    return torch.load(folder / f"checkpoints/step-{step:06d}/state.pt", weights_only=True)


def lines(folder, kind):
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if line["kind"] == kind]


def test_a_run_leaves_a_whole_folder(config, capsys):
    folder = toy.run(config)
    stored = load_config(folder)
    assert stored.tasks == ["copy", "negate"]
    assert stored.steps == 12

    train = lines(folder, "train")
    assert [line["step"] for line in train] == list(range(1, 13))
    assert train[-1]["progress"] == 1.0
    assert sum(line["tasks"]["copy"]["frames"] for line in train) == 72  # 3 of 4, of 96
    assert train[0]["heads"]["value"] == pytest.approx(train[0]["nats_per_event"])
    assert train[0]["gradient_norm"] > 0
    assert min(train[0]["frames_per_s"], train[0]["tokens_per_s"], train[0]["peak_memory_mib"]) > 0
    validation = lines(folder, "validation")
    assert [line["step"] for line in validation] == [6, 12]
    assert set(validation[0]["tasks"]) == {"copy", "negate"}

    picture = Image.open(folder / "samples/step-000012/negate.png")
    assert picture.size == (3 * (toy.SIZE * 3 + 4), 2 * (toy.SIZE * 3 + 4))
    log = (folder / "log.txt").read_text()
    assert "nats/token" in log
    assert log == capsys.readouterr().out  # plain lines where the output is no terminal

    predictor, loaded = load_run(folder, toy.ToyPredictor.from_pretrained)
    assert loaded == stored == replace(config, tasks=["copy", "negate"])
    episodes = [
        task.format(s) for task in toy.TASKS.values() for s in toy.ToyWorld().samples([0, 1], None, None)
    ]
    bits = -predictor.log_prob(episodes[:2]).mean() / torch.tensor(2.0).log()
    assert float(bits) == pytest.approx(validation[-1]["tasks"]["copy"]["bits_per_frame"])


def test_training_lowers_the_loss(config):
    folder = toy.run(replace(config, steps=150, learning_rate=1e-2))
    train = lines(folder, "train")
    floor = 0.919  # nats of a normal of unit variance at its mean
    assert train[-1]["nats_per_event"] - floor < 0.2 * (train[0]["nats_per_event"] - floor)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(config, tmp_path, capsys, number, code):
    toy.run(config)
    other = replace(config, out=tmp_path / "other")
    with pytest.raises(SystemExit) as stopped:
        toy.run(other, toy.Interrupted(5, number))
    assert stopped.value.code == code
    assert f"--resume {tmp_path / 'other'}" in capsys.readouterr().out.splitlines()[-1]
    assert state(other.out, 5)["step"] == 5

    toy.run(TrainConfig(resume=other.out), toy.ToyPredictor(seed=1))
    straight, resumed = state(config.out), state(other.out)
    torch.testing.assert_close(
        {name: resumed[name] for name in ("predictor", "average", "optimizer")},
        {name: straight[name] for name in ("predictor", "average", "optimizer")},
        rtol=0, atol=0,
    )  # fmt: skip
    assert [line["step"] for line in lines(other.out, "train")] == list(range(1, 13))
    weights = [load_run(c.out, toy.ToyPredictor.from_pretrained)[0].state_dict() for c in (config, other)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_a_run_asked_to_stop_in_its_last_step_says_that_it_is_trained(config):
    with pytest.raises(SystemExit) as stopped:
        toy.run(config, toy.Interrupted(12, signal.SIGINT))
    assert stopped.value.code == 130
    assert (config.out / "log.txt").read_text().splitlines()[-1].startswith("trained 12 steps")
    with pytest.raises(ConfigError, match="the run is complete at step 12"):
        toy.run(TrainConfig(resume=config.out))


def test_metrics_of_steps_that_were_lost_are_dropped(config):
    with pytest.raises(SystemExit):
        toy.run(config, toy.Interrupted(5, signal.SIGINT))
    with (config.out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 7}) + '\n{"kind": "tr')
    toy.run(TrainConfig(resume=config.out))
    assert [line["step"] for line in lines(config.out, "train")] == list(range(1, 13))


def test_workers_change_nothing(config, tmp_path):
    toy.run(config)
    toy.run(replace(config, out=tmp_path / "other", workers=2))
    torch.testing.assert_close(
        state(config.out)["predictor"], state(tmp_path / "other")["predictor"], rtol=0, atol=0
    )


def test_a_run_is_never_overwritten(config):
    toy.run(config)
    with pytest.raises(ConfigError, match="exists already"):
        toy.run(config)


def test_a_complete_run_can_be_extended_only(config):
    toy.run(config)
    log = config.out / "log.txt"
    ended = log.read_text()
    log.write_text("".join(ended.splitlines(keepends=True)[:-1]))  # as if it had been killed just before
    for _ in range(2):
        with pytest.raises(ConfigError, match="complete at step 12"):
            toy.run(TrainConfig(resume=config.out))
    assert log.read_text() == ended
    toy.run(TrainConfig(resume=config.out, steps=14))
    assert state(config.out, 14)["step"] == 14


def test_a_resumed_run_keeps_what_makes_it_that_run(config):
    toy.run(config)
    with pytest.raises(ConfigError, match="seed"):
        toy.run(TrainConfig(resume=config.out, seed=7))
    with pytest.raises(CheckpointError, match=r"config\.yaml is missing"):
        toy.run(TrainConfig(resume=config.out.parent))


def test_a_damaged_checkpoint_falls_back_and_ends_the_same(config, tmp_path, capsys):
    toy.run(config)
    other = replace(config, out=tmp_path / "other", checkpoint_minutes=1e-9)
    toy.run(other)
    last = other.out / "checkpoints/step-000012/state.pt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    capsys.readouterr()
    toy.run(TrainConfig(resume=other.out))
    assert f"{last}: damaged" in capsys.readouterr().out
    torch.testing.assert_close(state(config.out)["predictor"], state(other.out)["predictor"], rtol=0, atol=0)


class NotFinite(toy.ToyPredictor):
    """Its loss is nan at the steps given, counted from 1."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.step = steps, 0

    def loss(self, batch, generator):
        self.step += 1
        loss = super().loss(batch, generator)
        return replace(loss, total=loss.total * float("nan")) if self.step in self.steps else loss


def test_a_step_that_is_not_finite_is_left_out_and_counted(config):
    toy.run(config, NotFinite({3, 4}))
    assert [line["step"] for line in lines(config.out, "train") if line["skipped_steps"]] == [3, 4]
    assert all(weight.isfinite().all() for weight in state(config.out)["predictor"].values())
    assert float(state(config.out)["average"]["n_averaged"]) == 10


def test_many_in_a_row_end_the_run(config):
    with pytest.raises(TransframerError, match="8 steps in a row"):
        toy.run(config, NotFinite(set(range(3, 20))))


def test_minutes_end_the_run_and_the_learning_rate(config):
    toy.run(replace(config, steps=None, minutes=1 / 60, log_every_s=0.05))
    train = lines(config.out, "train")
    assert 1.0 <= train[-1]["seconds"] < 3.0
    assert train[-1]["learning_rate"] == 0
    assert train[len(train) // 2]["learning_rate"] > 0.1 * config.peak_learning_rate


def test_errors_come_before_anything_is_written(config):
    with pytest.raises(ConfigError, match="neither minutes nor steps"):
        toy.run(replace(config, steps=None))
    with pytest.raises(UnknownNameError, match="did you mean 'copy'"):
        toy.run(replace(config, tasks=["copi"], weights={}))
    assert not config.out.exists()


def test_a_full_disk_ends_the_run_with_the_last_checkpoint_untouched(config, monkeypatch):
    with pytest.raises(SystemExit):
        toy.run(config, toy.Interrupted(5, signal.SIGINT))

    save = torch.save

    def full(state, file):
        save(state, file)
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"0")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        toy.run(TrainConfig(resume=config.out))
    monkeypatch.undo()
    assert [path.name for path in (config.out / "checkpoints").iterdir()] == ["step-000005"]
    toy.run(TrainConfig(resume=config.out))


SCRIPT = """
import sys, toy
from pathlib import Path
from transframer.training.config import TrainConfig
out = Path(sys.argv[1])
toy.run(TrainConfig(minutes=5.0, batch_size=4, out=out, workers=2, log_every_s=0.2, device="cpu"))
"""


def test_sigterm_to_a_process_with_workers_saves(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "run/metrics.jsonl").exists() or not lines(tmp_path / "run", "train"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # as a batch system does: every process of the group gets it
    out, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert "stopped by SIGTERM and saved" in out
    assert len(list((tmp_path / "run/checkpoints").glob("step-*"))) == 1


def test_compiled_and_mixed_precision_runs_stay_near_a_plain_one(config, tmp_path, monkeypatch, capsys):
    config = replace(config, precision="fp32")
    plain = state(toy.run(config, toy.ToyPredictor(dropout=0.0)))["predictor"]
    compiled = partial(torch.compile, backend="eager")  # the tracing is tried here, not the code generation
    monkeypatch.setattr(torch, "compile", compiled)
    folder = toy.run(replace(config, compile=True, out=tmp_path / "c"), toy.ToyPredictor(dropout=0.0))
    torch.testing.assert_close(state(folder)["predictor"], plain)
    folder = toy.run(replace(config, precision="bf16", out=tmp_path / "b"), toy.ToyPredictor(dropout=0.0))
    assert "bf16 on cpu" in capsys.readouterr().out
    mixed = state(folder)["predictor"]
    torch.testing.assert_close(mixed, plain, rtol=0, atol=0.02)
    assert not torch.equal(mixed["hidden.weight"], plain["hidden.weight"])
