import json

import numpy as np
import pytest
import torch

from transframer.benchmarks.baselines import conv_lstm
from transframer.benchmarks.baselines.conv_lstm import ConvLSTM
from transframer.models.presets import PRESETS
from transframer.models.transframer import Transframer


def test_is_about_as_large_as_tiny():
    sizes = [
        sum(w.numel() for w in model.parameters()) for model in (ConvLSTM(), Transframer(PRESETS["tiny"]))
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_later_past_frames_count_and_predictions_feed_on():
    torch.manual_seed(0)
    model = ConvLSTM(hidden=8)
    past = torch.rand(2, 4, 1, 16, 16)
    frames = model(past, 3)
    assert frames.shape == (2, 3, 1, 16, 16)
    assert frames.min() >= 0
    assert frames.max() <= 1
    # Given its own first prediction as a past frame, it goes on in the same way.
    longer = model(torch.cat([past, frames[:, :1]], 1), 2)
    torch.testing.assert_close(longer, frames[:, 1:])


def test_cell_is_the_published_one():
    torch.manual_seed(0)
    cell = conv_lstm.Cell(2, 3)
    x, hidden, state = torch.rand(1, 2, 4, 4), torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    gates = torch.nn.functional.conv2d(
        torch.cat([x, hidden], 1), cell.gates.weight, cell.gates.bias, padding=1
    )
    i, f, o, g = (gates[:, 3 * k : 3 * k + 3] for k in range(4))
    next_state = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
    torch.testing.assert_close(
        cell(x, hidden, state), (torch.sigmoid(o) * torch.tanh(next_state), next_state)
    )


def test_trains_and_measures_each_step_ahead(tmp_path, capsys):
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 256, (1, 24, 64, 64), dtype=np.uint8), 20, 0)
    for name in ("moving_mnist_train.npy", "mnist_test_seq.npy"):
        np.save(tmp_path / name, still)
    words = ["--data", str(tmp_path), "--format", "moving_mnist", "--out", str(tmp_path / "out")]
    conv_lstm.main([*words, "--minutes", "0.02", "--batch-size", "2", "--hidden", "4"])
    figures = json.loads((tmp_path / "out" / "conv_lstm.json").read_text())
    assert figures["sequences"] == 24
    assert figures["steps"] >= 1
    assert figures["psnr"] == pytest.approx(np.mean([figures[f"psnr_h{k}"] for k in range(1, 11)]))
    assert (tmp_path / "out" / "conv_lstm.pt").is_file()
