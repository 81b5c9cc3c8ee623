"""How fast the codec is beside libjpeg-turbo and scipy's DCT: `python -m transframer.benchmarks.codec_speed`.

One thread, processor time, the same photographs (scikit-image's) for both. Ours and the peer take turns in
every round, so that what else the machine does hits both; the ratio of a round is ours over the peer's
images per second, and a row gives its median and its range over the rounds. Peers that are not installed are
left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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
from transframer.codec.layout import plane_tables
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
        who: the peer.
        size_px: side of the images.
        ours: images per second of processor time, median over the rounds.
        peer: the same of the peer.
        ratio: ours over the peer's, median over the rounds.
        low: the smallest ratio of a round.
        high: the largest.
        ours_range: the smallest and the largest of ours.
        peer_range: the same of the peer's.
    """

    what: str
    who: str
    size_px: int
    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    ours_range: tuple[float, float]
    peer_range: tuple[float, float]


def photographs(size_px: int, count: int) -> list[np.ndarray]:
    """Square photographs, uint8 h w 3, in turns."""
    squares = []
    for name in _PHOTOGRAPHS:
        image = Image.fromarray(getattr(skimage.data, name)())
        squares.append(np.array(image.resize((size_px, size_px), Image.Resampling.LANCZOS)))
    return [squares[i % len(squares)] for i in range(count)]


def compare(
    what: str, who: str, size_px: int, count: int, ours: Callable, peer: Callable, rounds: int, seconds: float
) -> Speed:
    """Times two functions that each handle `count` images, in turns, after a call each to warm up."""
    ours(), peer()
    rates = [(_rate(ours, count, seconds), _rate(peer, count, seconds)) for _ in range(rounds)]
    ratios = [mine / theirs for mine, theirs in rates]
    mine, theirs = zip(*rates, strict=True)
    return Speed(
        what,
        who,
        size_px,
        statistics.median(mine),
        statistics.median(theirs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        (min(mine), max(mine)),
        (min(theirs), max(theirs)),
    )


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
        files = [_pillow_file(image, quality) for image in pixels]
        grid = grid_from_image(images, settings)
        tokens, cells = tokens_from_grid(grid), tuple(grid.shape[2:])

        def encode(images=images, settings=settings):
            return tokens_from_grid(grid_from_image(images, settings))

        def decode(tokens=tokens, settings=settings, cells=cells, size=(size_px, size_px)):
            return image_from_grid(grid_from_tokens(tokens, cells), settings, size)

        def read(files=files, setting=settings[0]):
            return [grid_from_jpeg(file, setting) for file in files]

        def read_pillow(files=files, settings=settings):
            opened = (Image.open(io.BytesIO(file)).convert("RGB") for file in files)
            return _coded([np.array(image) for image in opened], settings)

        def add(what, who, ours, peer, size_px=size_px, count=count):
            rows.append(compare(what, who, size_px, count, ours, peer, rounds, seconds))

        if installed("simplejpeg"):
            import simplejpeg

            def peer_encode(pixels=pixels):
                return [simplejpeg.encode_jpeg(image, quality, colorsubsampling="420") for image in pixels]

            def peer_decode(files=files):
                return [simplejpeg.decode_jpeg(file) for file in files]

            def read_simplejpeg(files=files, settings=settings):
                return _coded([simplejpeg.decode_jpeg(file) for file in files], settings)

            add("encode", "simplejpeg", encode, peer_encode)
            add("decode", "simplejpeg", decode, peer_decode)
            add("from files", "simplejpeg", read, read_simplejpeg)
        if installed("scipy"):
            stacked = np.stack(pixels)
            add("encode", "scipy", encode, lambda stacked=stacked: scipy_triples(stacked, quality))
        add("from files", "Pillow", read, read_pillow)
    return rows


def installed(package: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(package) is not None


def scipy_triples(images: np.ndarray, quality: int) -> list[tuple[np.ndarray, ...]]:
    """Images to the indices and values of their non-zero coefficients, in NumPy and with scipy's DCT.

    Args:
        images: b h w 3, uint8; sides are multiples of 16.
        quality: JPEG quality.

    Returns:
        Of luma and of the two halved chroma planes: (image, [plane,] row, column, v, u) and the values.
    """
    from scipy.fft import dctn

    luma_step, chroma_step = plane_tables(torch.tensor([quality]))[0].view(2, 8, 8).numpy()
    b, h, w, _ = images.shape
    planes = np.moveaxis(images.astype(np.float32) @ _YCBCR.T, -1, 1)  # b 3 h w
    halved = planes[:, 1:].reshape(b, 2, h // 2, 2, w // 2, 2).mean((3, 5))
    triples = []
    for plane, step in ((planes[:, 0] - 128, luma_step), (halved, chroma_step)):
        *rest, height, width = plane.shape
        blocks = plane.reshape(*rest, height // 8, 8, width // 8, 8).swapaxes(-3, -2)
        values = np.rint(dctn(blocks, axes=(-2, -1), norm="ortho") / step).astype(np.int16)
        index = np.nonzero(values)
        triples.append((*index, values[index]))
    return triples


_YCBCR = np.array(  # JFIF, without the offset of chroma, which the DCT takes off again
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)


def _pillow_file(image: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


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
            f"{row.what + ': ' + row.who:<24}{row.size_px:>6}{row.ours:>10.0f}{row.peer:>10.0f}"
            f"{row.ratio:>8.2f}  [{row.low:.2f}, {row.high:.2f}]"
        )


if __name__ == "__main__":
    main()
