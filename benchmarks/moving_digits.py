"""Moving MNIST made out of MNIST: `python -m transframer.benchmarks.moving_digits --digits MNIST --out DIR`.

Two digits of 28 x 28 pixels move over 64 x 64 at 3.6 pixels a frame in a random direction and bounce off the
borders, 20 frames; where they overlap the brighter pixel is seen (Srivastava et al., Unsupervised Learning
of Video Representations using LSTMs, 2015, section 4; the test file that they released has other sequences).
Test sequences are of MNIST's test digits, training sequences of its training digits. Writes
`mnist_test_seq.npy` and `moving_mnist_train.npy`, uint8 of 20 x n x 64 x 64, which the data format
`moving_mnist` reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transframer.data.catalog import open_dataset
from transframer.data.formats.atomic import whole_file
from transframer.errors import exit_code

FRAMES, SIZE_PX, DIGIT_PX, SPEED_PX = 20, 64, 28, 3.6


def moving_digits(
    digits: NDArray[np.uint8], sequences: int, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Sequences of two moving digits each.

    Args:
        digits: n x 28 x 28.

    Returns:
        frames x sequences x 64 x 64.
    """
    out = np.zeros((FRAMES, sequences, SIZE_PX, SIZE_PX), np.uint8)
    room = SIZE_PX - DIGIT_PX
    for index in range(sequences):
        for _ in range(2):
            digit = digits[generator.integers(len(digits))]
            angle = generator.uniform(0, 2 * np.pi)
            start = generator.uniform(0, room, 2)
            step = SPEED_PX * np.array([np.sin(angle), np.cos(angle)])
            for frame in range(FRAMES):
                # Position on an endless line, folded at the borders: a bounce is a reflection.
                y, x = (room - np.abs((start + frame * step) % (2 * room) - room)).astype(int)
                window = out[frame, index, y : y + DIGIT_PX, x : x + DIGIT_PX]
                np.maximum(window, digit, out=window)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--digits", type=Path, required=True, help="a folder that the data format mnist reads"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=10_000, help="training sequences")
    parser.add_argument("--test", type=int, default=1_000, help="test sequences")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    for split, name, count in (
        ("train", "moving_mnist_train.npy", options.train),
        ("test", "mnist_test_seq.npy", options.test),
    ):
        dataset = open_dataset(options.digits, split, format="mnist")
        digits = np.stack(
            [dataset.record(index, {"images"})["images"][0, 0].numpy() for index in range(len(dataset))]
        )
        generator = np.random.default_rng([options.seed, count, len(digits)])
        with whole_file(options.out / name) as temporary, temporary.open("wb") as file:
            np.save(file, moving_digits(digits, count, generator))
        print(f"{options.out / name}: {count} sequences of the {len(digits)} digits of MNIST's {split} split")


if __name__ == "__main__":
    sys.exit(exit_code(main))
