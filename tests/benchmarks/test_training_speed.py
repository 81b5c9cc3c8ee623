import math
from dataclasses import replace

import pytest
import torch

from tests.models.conftest import CONFIG
from transframer.benchmarks import training_speed
from transframer.benchmarks.plain import PlainAttention, parameter_count, stand_in
from transframer.benchmarks.training_speed import saved_bytes
from transframer.models.transframer import Transframer

TASKS = ("depth_estimation", "image_classification")
SMALL = replace(CONFIG, encoder_widths=(32,), encoder_blocks=(1,), heads=2)


@pytest.mark.parametrize(("precision", "length"), [("fp32", "tasks"), ("bf16", "long")])
def test_a_row_compares_two_rates(precision, length):
    row = training_speed.speeds(
        SMALL, "small", precision=precision, batch=2, rounds=1, tasks=TASKS, length=length
    )
    assert 0 < row.low <= row.ratio <= row.high < math.inf
    assert min(row.ours, row.peer, row.frames, row.peer_frames, row.memory, row.peer_memory) > 0
    assert abs(row.parameters / row.peer_parameters - 1) < 0.03


@pytest.mark.parametrize("config", training_speed.CONFIGS.values(), ids=training_speed.CONFIGS)
def test_the_stand_in_has_as_many_parameters(config):
    config = replace(config, tasks=TASKS, kinds=("rgb", "depth"))
    with torch.device("meta"):
        parameters = parameter_count(stand_in(config, 0))
    ours = parameter_count(Transframer(config))
    assert parameters < ours, "its MLPs can make up for the difference"
    assert abs(parameter_count(stand_in(config, ours)) / ours - 1) < 0.03


def test_the_stand_in_learns():
    torch.manual_seed(0)
    names = training_speed._Episodes(TASKS, "tasks")
    config = replace(SMALL, tasks=TASKS, kinds=names.kinds)
    model, peer = Transframer(config), stand_in(config, 200_000)
    batch = model.collate(names.batch(0, 2))
    optimizer = torch.optim.Adam(peer.parameters(), 1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = peer.loss(batch, torch.Generator().manual_seed(0))
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[-1] < losses[0] - 1
    assert loss.events.tolist() == model.loss(batch, torch.Generator().manual_seed(0)).events.tolist()


def test_its_attention_is_causal():
    torch.manual_seed(0)
    attention, x = PlainAttention(8, 2, 8), torch.randn(1, 5, 8)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    changed = x.clone()
    changed[:, 3:] += 1
    before, after = attention(x, x, mask), attention(changed, changed, mask)
    assert torch.allclose(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_saved_bytes_count_a_storage_once_and_no_parameter():
    layer, x = torch.nn.Linear(4, 4, bias=False), torch.randn(3, 4, requires_grad=True)
    assert saved_bytes(lambda: layer(x), layer) == x.numel() * 4
    assert saved_bytes(lambda: layer(x) + layer(x), layer) == x.numel() * 4


def test_the_command_prints_a_table(capsys, monkeypatch):
    monkeypatch.setattr(training_speed, "CONFIGS", {"256": SMALL})
    monkeypatch.setattr(training_speed, "TASKS", TASKS)
    training_speed.main(["--precisions", "fp32", "--lengths", "tasks", "--batch", "2", "--rounds", "1"])
    assert "256, tasks" in capsys.readouterr().out
