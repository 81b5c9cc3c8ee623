import json

import numpy as np
import pytest
import torch

from transframer.benchmarks.baselines import conv_lstm
from transframer.benchmarks.baselines.conv_lstm import ConvLSTM
from transframer.data.world import World
from transframer.models.presets import PRESETS
from transframer.models.transframer import Transframer
from transframer.task import Clip


def test_is_about_as_large_as_tiny():
    sizes = [
        sum(w.numel() for w in model.parameters()) for model in (ConvLSTM(), Transframer(PRESETS["tiny"]))
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


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
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    conv_lstm.main([*words, "--minutes", "0.02", "--batch-size", "2", "--hidden", "4"])
    figures = json.loads((tmp_path / "out" / "conv_lstm.json").read_text())
    assert figures["sequences"] == 24
    assert figures["steps"] >= 1
    assert figures["psnr"] == pytest.approx(np.mean([figures[f"psnr_h{k}"] for k in range(1, 11)]))
    assert figures["seconds_per_frame"] > 0
    # Nothing moves, so that the last frame again is right; 60 dB is what the benchmark calls identical.
    assert {name: round(value, 6) for name, value in figures["floor"].items()} == {
        "psnr": 60.0,
        "ssim": 1.0,
        **{f"psnr_h{k}": 60.0 for k in range(1, 11)},
    }
    assert (tmp_path / "out" / "conv_lstm.pt").is_file()
    words += ["--format", "moving_mnist", "--minutes", "0.001", "--hidden", "4", "--test-sequences", "5"]
    conv_lstm.main(words)
    assert json.loads((tmp_path / "out" / "conv_lstm.json").read_text())["sequences"] == 5


@pytest.mark.parametrize("colours", [1, 3])
def test_trains_and_measures_on_the_world(tmp_path, monkeypatch, capsys, colours):
    """What is measured are the scenes and frames that the benchmark measures, 3 ahead of 3 at 0.1 s."""
    asked = []
    samples = World.samples
    monkeypatch.setattr(
        World, "samples", lambda self, *a: asked.append((self.split, self.seed, *a)) or samples(self, *a)
    )
    words = "--data world --past 3 --ahead 3 --minutes 0.01 --batch-size 2 --hidden 4 --size-px 32 --seed 7"
    conv_lstm.main(
        [*words.split(), "--colours", str(colours), "--test-sequences", "3", "--out", str(tmp_path)]
    )
    figures = json.loads((tmp_path / "conv_lstm.json").read_text())
    assert figures["sequences"] == 3
    assert {ask[:2] for ask in asked} == {("train", 7), ("test", 0)}
    assert [list(ask[2]) for ask in asked if ask[0] == "test"] == [[0, 1, 2]]
    assert [list(ask[2]) for ask in asked][:2] == [[0, 1], [2, 3] if figures["steps"] > 1 else [0, 1, 2]]
    frames = World("test", 0, 32).clips(range(3), Clip(frames=6, step_s=0.1), ("rgb",)).rgb
    error = (frames[:, 3:, :colours].double() - frames[:, 2:3, :colours].double()).square().mean((2, 3, 4))
    floor = 10 * torch.log10(255**2 / error)
    assert [figures["floor"][f"psnr_h{k}"] for k in (1, 2, 3)] == pytest.approx(floor.mean(0).tolist())
    assert figures["floor"]["psnr"] == pytest.approx(floor.mean().item())
