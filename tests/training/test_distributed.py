"""The same run under torchrun: same data once, equal weights, and the weights of a single process."""

import json
import os
import subprocess
import sys

import pytest
import torch
import toy

from transframer.errors import ConfigError
from transframer.training.config import TrainConfig
from transframer.training.distributed import choose_device

STEPS, BATCH = 6, 8


def torchrun(settings, folder, processes=2):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        toy.__file__, json.dumps(settings), str(folder),
    ]  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one(tmp_path):
    config = TrainConfig(
        steps=STEPS, batch_size=BATCH, workers=0, warmup_steps=1, validations=1, device="cpu",
        precision="fp32", out=tmp_path / "two",  # gradients of half a batch round elsewhere in bf16
    )  # fmt: skip
    done = torchrun(config.to_dict(), tmp_path)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert sorted(ranks[0]["asked"] + ranks[1]["asked"]) == list(range(STEPS * BATCH))
    weights = ranks[0]["straight"]
    torch.testing.assert_close(ranks[1]["straight"], weights, rtol=0, atol=0)

    single = toy.ToyPredictor(dropout=0.0)
    toy.run(TrainConfig.from_dict(config.to_dict() | {"out": str(tmp_path / "one")}), single)
    torch.testing.assert_close(weights, single.state_dict(), rtol=1e-4, atol=1e-5)
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert one["step"] == two["step"]
        for name, values in one["tasks"].items():
            for key in set(values) - {"heads"}:
                assert two["tasks"][name][key] == pytest.approx(values[key], rel=1e-3)

    # A signal that one process got stops both, after the same step, and the run goes on as if it had not.
    assert [rank["code"] for rank in ranks] == [143, 143]
    assert done.stdout.count("stopped by SIGTERM and saved at step 3") == 1  # rank 0 alone reports
    for rank in ranks:
        torch.testing.assert_close(rank["resumed"], weights, rtol=0, atol=0)


def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="'gpu' is no device"):
        choose_device("gpu")
    assert choose_device("cpu").type == "cpu"
