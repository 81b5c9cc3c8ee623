"""What an autoencoder of images keeps and at what rate, beside JPEG.

JPEG is counted as a code is whose tables both sides know already: the entropy-coded data of the scan, with
Huffman tables fitted to the image, without headers and tables. It is coded by Pillow with chroma at half the
resolution.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol, cast

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from transframer.benchmarks.drawn import batches
from transframer.benchmarks.parts import AutoencoderResult, CodebookUse, RatePoint
from transframer.data.source import evenly
from transframer.errors import ConfigError
from transframer.predictor import FramePredictor
from transframer.tasks.image_quality import ImageScore, mean_quality, psnr, ssim

QUALITIES = (1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 50, 60, 70, 80, 87, 92, 96, 98)
MOST_IMAGES = 256
_BATCH = 32


class Autoencoder(Protocol):
    """What `autoencoder_report` asks of a predictor's attribute `autoencoder`."""

    @property
    def codebook_sizes(self) -> list[int]:
        """Vectors in each codebook."""
        ...

    def bits_per_image(self, height: int, width: int, /) -> float:
        """Bits that the codes of an image take where all are equally likely."""
        ...

    def encode_indices(self, images: UInt8[Tensor, "b 3 h w"], /) -> Int[Tensor, "b ..."]:
        """The codes of images; where there are several codebooks, the last axis runs over them."""
        ...

    def decode_indices(self, indices: Int[Tensor, "b ..."], /) -> UInt8[Tensor, "b 3 h w"]:
        """The images that codes stand for."""
        ...


@torch.no_grad()
def autoencoder_report(
    predictor: FramePredictor, images: Sequence[UInt8[Tensor, "3 _ _"]]
) -> AutoencoderResult:
    """Quality and rate of a predictor's autoencoder, and of JPEG at the same rate.

    Args:
        predictor: with an attribute `autoencoder` (see `Autoencoder`), in evaluation mode, on its device.
        images: 0-255, of any sizes that the autoencoder takes; of more than `MOST_IMAGES`, as many of them,
            evenly spread.

    Raises:
        ConfigError: codes that do not fit the codebooks.
    """
    images = [images[place] for place in evenly(MOST_IMAGES, len(images))]
    autoencoder = cast(Autoencoder, predictor.autoencoder)
    device = next(predictor.parameters()).device
    sizes = autoencoder.codebook_sizes
    counts = [torch.zeros(size, dtype=torch.int64) for size in sizes]
    scores: list[ImageScore] = []
    for _, group in groupby(images, key=lambda image: image.shape):
        alike = torch.stack(list(group))
        for batch in batches(len(alike), _BATCH):
            some = alike[batch.start : batch.stop]
            codes = autoencoder.encode_indices(some.to(device))
            if len(sizes) > 1 and codes.shape[-1] != len(sizes):
                raise ConfigError(
                    f"codes of shape {tuple(codes.shape)}",
                    field="autoencoder",
                    expected=f"a last axis of {len(sizes)}, one code of each codebook",
                )
            for count, column in zip(counts, codes.cpu().reshape(-1, len(sizes)).T, strict=True):
                count += torch.bincount(column, minlength=len(count))
            restored = autoencoder.decode_indices(codes).cpu()
            scores += [
                ImageScore(psnr(one, true), ssim(one, true)) for one, true in zip(restored, some, strict=True)
            ]
    entropies = [_entropy_nats(count) for count in counts]
    nominal_bits = sum(autoencoder.bits_per_image(*image.shape[1:]) for image in images) / len(images)
    points = [jpeg_point(images, quality) for quality in QUALITIES]
    at_equal_rate = at_rate(points, nominal_bits)
    return AutoencoderResult(
        images=len(images),
        psnr=mean_quality(scores)["psnr"],
        ssim=mean_quality(scores)["ssim"],
        nominal_bits=nominal_bits,
        entropy_bits=sum(
            int(count.sum()) * nats / math.log(2) for count, nats in zip(counts, entropies, strict=True)
        )
        / len(images),
        codebooks=[
            CodebookUse(len(count), float((count > 0).double().mean()), math.exp(nats))
            for count, nats in zip(counts, entropies, strict=True)
        ],
        jpeg_psnr=at_equal_rate[0] if at_equal_rate else None,
        jpeg_ssim=at_equal_rate[1] if at_equal_rate else None,
        jpeg=points,
    )


def jpeg_point(images: Sequence[UInt8[Tensor, "3 _ _"]], quality: int) -> RatePoint:
    """Mean bits per image, PSNR and SSIM of JPEG at one quality, chroma subsampled 4:2:0."""
    scores, bits = [], 0
    for image in images:
        buffer = io.BytesIO()
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
        picture.save(buffer, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
        bits += 8 * scan_bytes(buffer.getvalue())
        restored = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
        scores.append(ImageScore(psnr(restored, image.cpu()), ssim(restored, image.cpu())))
    mean = mean_quality(scores)
    return RatePoint(quality, bits / len(images), mean["psnr"], mean["ssim"])


def scan_bytes(jpeg: bytes) -> int:
    """The length of the entropy-coded data of a JPEG file of one scan (ITU-T T.81, annex B)."""
    place = 2  # after SOI; then segments of a marker of two bytes and a length that counts itself
    while True:
        marker, length = jpeg[place + 1], int.from_bytes(jpeg[place + 2 : place + 4])
        place += 2 + length
        if marker == 0xDA:  # SOS: the data follow its header, up to EOI
            return len(jpeg) - len(b"\xff\xd9") - place


def at_rate(points: Sequence[RatePoint], bits: float) -> tuple[float, float] | None:
    """PSNR and SSIM at a rate, linear in its logarithm between the points; None outside their range.

    >>> points = [RatePoint(1, 100.0, 20.0, 0.5), RatePoint(2, 400.0, 30.0, 0.9)]
    >>> tuple(round(value, 6) for value in at_rate(points, 200.0)), at_rate(points, 500.0)
    ((25.0, 0.7), None)
    """
    by_bits = sorted({point.bits: point for point in points}.values(), key=lambda point: point.bits)
    rates = [point.bits for point in by_bits]
    if not rates[0] <= bits <= rates[-1]:
        return None
    logs = np.log(rates)
    values = ([point.psnr for point in by_bits], [point.ssim for point in by_bits])
    decibels, similarity = (float(np.interp(math.log(bits), logs, value)) for value in values)
    return decibels, similarity


def _entropy_nats(counts: Int[Tensor, " codes"]) -> float:
    share = counts[counts > 0].double() / counts.sum()
    return float(-(share * share.log()).sum())
