"""How fast the codec is beside libjpeg-turbo: `python -m transframer.benchmarks.codec_speed`.

One thread, processor time, the same photographs (scikit-image's) for both. Ours and the peer take turns in
every round, so that what else the machine does hits both; the ratio of a round is ours over the peer's
images per second, and a row gives its median and its range over the rounds.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg
import skimage.data
import torch
from PIL import Image

from transframer.codec import (
    grid_from_image,
    grid_from_jpeg,
    grid_from_tokens,
    image_from_grid,
    tokens_from_grid,
)
from transframer.frames import CodecSettings

SIZES_PX = (64, 256, 1024)
PIXELS = 2**19  # of a batch, but never more than 64 images
_PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


@dataclass(frozen=True)
class Speed:
    """One comparison at one size.

    Attributes:
        what: "encode" to triples, "decode" from triples, or "from files": JPEG files to grids, where the peer
            decodes them to pixels with a library and codes these with our codec.
        size_px: side of the images.
        ours: images per second of processor time, median over the rounds.
        peer: the same of the peer.
        ratio: ours over the peer's, median over the rounds.
        low: the smallest ratio of a round.
        high: the largest.
    """

    what: str
    size_px: int
    ours: float
    peer: float
    ratio: float
    low: float
    high: float


def photographs(size_px: int, count: int) -> list[np.ndarray]:
    """Square photographs, uint8 h w 3, in turns."""
    squares = []
    for name in _PHOTOGRAPHS:
        image = Image.fromarray(getattr(skimage.data, name)())
        squares.append(np.array(image.resize((size_px, size_px), Image.Resampling.LANCZOS)))
    return [squares[i % len(squares)] for i in range(count)]


def compare(
    what: str, size_px: int, count: int, ours: Callable, peer: Callable, rounds: int, seconds: float
) -> Speed:
    """Times two functions that each handle `count` images, in turns, after a call each to warm up."""
    ours(), peer()
    rates = [(_rate(ours, count, seconds), _rate(peer, count, seconds)) for _ in range(rounds)]
    ratios = [mine / theirs for mine, theirs in rates]
    mine, theirs = (statistics.median(column) for column in zip(*rates, strict=True))
    return Speed(what, size_px, mine, theirs, statistics.median(ratios), min(ratios), max(ratios))


def _rate(function: Callable, count: int, seconds: float) -> float:
    """Images per second of processor time."""
    calls, started, used = 0, time.process_time(), 0.0
    while used < seconds:
        function()
        calls, used = calls + 1, time.process_time() - started
    return calls * count / used


def speeds(
    sizes_px: Sequence[int] = SIZES_PX, *, quality: int = 50, rounds: int = 9, seconds: float = 0.2
) -> list[Speed]:
    """Coding to triples, decoding them, and reading JPEG files, at each size; 4:2:0.

    Args:
        sizes_px: sides of the images.
        quality: JPEG quality.
        rounds: how often ours and the peer take turns.
        seconds: of processor time that each measurement takes at least.
    """
    rows = []
    for size_px in sizes_px:
        count = max(1, min(64, PIXELS // size_px**2))
        pixels = photographs(size_px, count)
        images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in pixels])
        settings = [CodecSettings(quality, "4:2:0")] * count
        files = [simplejpeg.encode_jpeg(image, quality, colorsubsampling="420") for image in pixels]
        grid = grid_from_image(images, settings)
        tokens, cells = tokens_from_grid(grid), tuple(grid.shape[2:])

        def encode(images=images, settings=settings):
            return tokens_from_grid(grid_from_image(images, settings))

        def peer_encode(pixels=pixels):
            return [simplejpeg.encode_jpeg(image, quality, colorsubsampling="420") for image in pixels]

        def decode(tokens=tokens, settings=settings, cells=cells, size=(size_px, size_px)):
            return image_from_grid(grid_from_tokens(tokens, cells), settings, size)

        def peer_decode(files=files):
            return [simplejpeg.decode_jpeg(file) for file in files]

        def read(files=files, setting=settings[0]):
            return [grid_from_jpeg(file, setting) for file in files]

        def read_simplejpeg(files=files, settings=settings):
            return _coded([simplejpeg.decode_jpeg(file) for file in files], settings)

        def read_pillow(files=files, settings=settings):
            opened = (Image.open(io.BytesIO(file)).convert("RGB") for file in files)
            return _coded([np.array(image) for image in opened], settings)

        rows.append(compare("encode", size_px, count, encode, peer_encode, rounds, seconds))
        rows.append(compare("decode", size_px, count, decode, peer_decode, rounds, seconds))
        for name, peer in (("simplejpeg", read_simplejpeg), ("Pillow", read_pillow)):
            rows.append(compare(f"from files: {name}", size_px, count, read, peer, rounds, seconds))
    return rows


def _coded(images: list[np.ndarray], settings: list[CodecSettings]) -> torch.Tensor:
    """The grids of decoded files, in one batch."""
    return grid_from_image(
        torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]), settings
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of ratios.

    Args:
        arguments: of the command line; those of this process where None.
    """
    parser = argparse.ArgumentParser(description="The codec's speed beside libjpeg-turbo's, on one thread.")
    parser.add_argument("--sizes-px", type=int, nargs="+", default=SIZES_PX, help="sides of the images")
    parser.add_argument("--quality", type=int, default=50, help="JPEG quality")
    parser.add_argument("--rounds", type=int, default=9, help="how often ours and the peer take turns")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {vars(options)}")
    print(f"{'':<24}{'px':>6}{'ours/s':>10}{'peer/s':>10}{'ratio':>8}  [range]")
    for row in speeds(
        options.sizes_px, quality=options.quality, rounds=options.rounds, seconds=options.seconds
    ):
        print(
            f"{row.what:<24}{row.size_px:>6}{row.ours:>10.0f}{row.peer:>10.0f}{row.ratio:>8.2f}"
            f"  [{row.low:.2f}, {row.high:.2f}]"
        )


if __name__ == "__main__":
    main()
