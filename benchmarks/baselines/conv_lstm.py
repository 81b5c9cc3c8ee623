"""A ConvLSTM for video prediction, to compare with: `python -m transframer.benchmarks.baselines.conv_lstm`.

Shi et al., Convolutional LSTM Network (arXiv 1506.04214): two layers of 3 x 3 kernels on 8 x 8 patches, which
read the past frames and then go on alone, fed with what they predict; trained by mean squared error, so that
it aims at PSNR directly. About as many parameters as the preset `tiny`, and trained for a given number of
minutes on one thread, so that it has what a Transframer has. `--data world` is the procedural world, whose
frames are 0.1 s apart; any other is the path of a data set.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transframer.data.catalog import dataset_class, guess_format
from transframer.data.formats.atomic import whole_file, write_json
from transframer.data.source import DatasetSource
from transframer.data.world import World
from transframer.errors import exit_code
from transframer.task import Clip
from transframer.tasks.image_quality import psnr as psnr_db
from transframer.tasks.image_quality import ssim
from transframer.tasks.video_prediction import VideoSample

PATCH, HIDDEN, LAYERS = 8, 156, 2
WORLD, WORLD_SEQUENCES = "world", 200


class Cell(nn.Module):
    """One layer's step: all four gates by one convolution over input and hidden state."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)
        with torch.no_grad():  # starts by remembering (Jozefowicz et al. 2015)
            self.gates.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(hidden))  # type: ignore[union-attr]

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The next hidden and cell state."""
        take, keep, show, new = self.gates(torch.cat([x, hidden], 1)).chunk(4, 1)
        cell = keep.sigmoid() * cell + take.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell


class ConvLSTM(nn.Module):
    """Predicts the frames after a clip.

    Args:
        colours: channels of a frame: 1 or 3.
    """

    def __init__(self, colours: int = 1, hidden: int = HIDDEN) -> None:
        super().__init__()
        channels = colours * PATCH**2
        self.cells = nn.ModuleList(
            Cell(channels if layer == 0 else hidden, hidden) for layer in range(LAYERS)
        )
        self.out = nn.Conv2d(hidden, channels, 1)
        self.hidden = hidden

    def forward(self, past: Float[Tensor, "b t c h w"], steps: int) -> Float[Tensor, "b s c h w"]:
        """The next `steps` frames, in the range of the past ones (0 to 1)."""
        b, t, _, height, width = past.shape
        state = past.new_zeros(b, self.hidden, height // PATCH, width // PATCH)
        states = [(state, state) for _ in self.cells]
        frame, out = past[:, 0], []
        for step in range(t + steps - 1):
            x = nn.functional.pixel_unshuffle(past[:, step] if step < t else frame, PATCH)
            for layer, cell in enumerate(self.cells):
                states[layer] = cell(x, *states[layer])
                x = states[layer][0]
            if step >= t - 1:
                frame = nn.functional.pixel_shuffle(self.out(x), PATCH).sigmoid()
                out.append(frame)
        return torch.stack(out, 1)


def _sources(
    options: argparse.Namespace, clip: Clip
) -> tuple[World | DatasetSource, World | DatasetSource, int]:
    """The training part, the test part, and how many sequences of this one are measured.

    The test sequences of the world are those of its seed 0 whatever the seed of the training.
    """
    if options.data == WORLD:
        training: World | DatasetSource = World("train", options.seed, options.size_px)
        return training, World("test", 0, options.size_px), options.test_sequences or WORLD_SEQUENCES
    root = Path(options.data)
    kind = dataset_class(options.format or guess_format(root))
    training, test = (
        DatasetSource(kind(root, split, clip), options.size_px, options.seed, shuffled=split == "train")
        for split in ("train", "test")
    )
    return training, test, min(options.test_sequences or len(test), len(test))


def _clips(source: World | DatasetSource, indices: Sequence[int], clip: Clip, colours: int) -> Tensor:
    """b x frames x colours x h x w, 0 to 1."""
    samples = source.samples(indices, VideoSample, clip)
    frames = torch.stack([torch.cat([s["images"], s["target"][None]]) for s in samples])
    return frames[:, :, :colours].float() / 255


def train(options: argparse.Namespace) -> dict:
    """Trains for the minutes asked for and measures on the test part; returns the figures."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    past, ahead = options.past, options.ahead
    whole = Clip(frames=past + ahead, context=(tuple(range(past + ahead - 1)),), target=(past + ahead - 1,))
    training, test, sequences = _sources(options, whole)
    model = ConvLSTM(options.colours, options.hidden)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98))
    start, step, mean_loss = time.monotonic(), 0, math.nan
    while (part := (time.monotonic() - start) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * min(1.0, (step + 1) / 50) * (1 - part)
        at = range(step * options.batch_size, (step + 1) * options.batch_size)
        clips = _clips(training, at, whole, options.colours)
        loss = nn.functional.mse_loss(model(clips[:, :past], ahead), clips[:, past:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean_loss = loss.item() if step == 0 else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"{part:4.0%}  step {step}  mean squared error {mean_loss:.4f}", flush=True)
        step += 1
    figures = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "steps": step,
        "sequences_seen": step * options.batch_size,
        "minutes": options.minutes,
        "threads": options.threads,
        **measure(model.eval(), test, sequences, whole, options),
    }
    write_json(options.out / "conv_lstm.json", figures)
    with whole_file(options.out / "conv_lstm.pt") as temporary:
        torch.save(model.state_dict(), temporary)
    return figures


@torch.no_grad()
def measure(
    model: ConvLSTM, test: World | DatasetSource, sequences: int, whole: Clip, options: argparse.Namespace
) -> dict:
    """PSNR and SSIM as the benchmark's: means over the frames of test sequences, and by steps ahead.

    Returns:
        The model's figures, its seconds per predicted frame (predicted in batches of 32, the time in which
        the past frames are read included), and under "floor" those of the last past frame again.
    """
    model_scores: list[list[tuple[float, float]]] = []
    floor_scores: list[list[tuple[float, float]]] = []
    seconds = 0.0
    for first in range(0, sequences, 32):
        clips = _clips(test, range(first, min(first + 32, sequences)), whole, options.colours)
        past, truths = clips[:, : options.past], clips[:, options.past :]
        start = time.perf_counter()
        predicted = model(past, options.ahead)
        seconds += time.perf_counter() - start
        model_scores += _scores(predicted, truths)
        floor_scores += _scores(past[:, -1:].expand_as(truths), truths)
    return {
        "sequences": sequences,
        "seconds_per_frame": seconds / (sequences * options.ahead),
        **_means(model_scores),
        "floor": _means(floor_scores),
    }


def _scores(predicted: Tensor, truths: Tensor) -> list[list[tuple[float, float]]]:
    """PSNR in dB and SSIM of each frame of each sequence."""
    pictures = [
        (255 * clips.expand(-1, -1, 3, -1, -1)).round().to(torch.uint8) for clips in (predicted, truths)
    ]
    return [
        [(psnr_db(*pair), ssim(*pair)) for pair in zip(*clips, strict=True)]
        for clips in zip(*pictures, strict=True)
    ]


def _means(scores: list[list[tuple[float, float]]]) -> dict[str, float]:
    by_step = torch.tensor(scores).mean(0)
    psnr, structure = by_step.unbind(1)
    return {
        "psnr": psnr.mean().item(),
        "ssim": structure.mean().item(),
        **{f"psnr_h{step + 1}": value for step, value in enumerate(psnr.tolist())},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, measures, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a data set's folder or file, or: world")
    parser.add_argument("--format", help="of the data; guessed from the folder if not given")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--past", type=int, default=10, help="frames given")
    parser.add_argument("--ahead", type=int, default=10, help="frames predicted")
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--colours", type=int, choices=(1, 3), default=1)
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="channels of a layer")
    parser.add_argument(
        "--test-sequences",
        type=int,
        help=f"how many are measured; by default all of a data set, {WORLD_SEQUENCES} of the world",
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(train(parser.parse_args(argv)), indent=1))


if __name__ == "__main__":
    sys.exit(exit_code(main))
