"""Parts of a task's result that only some measurements have: sparsification, rollouts, an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass, field

from transframer.benchmarks.statistics import Estimate
from transframer.task import Metric


@dataclass(frozen=True)
class Sparsification:
    """Mean error of the pixels that remain as others are removed; see `benchmarks.sparsification`.

    Attributes:
        uncertainty: what the order of removal goes by, and its unit.
        error: what is averaged, and its unit.
        removed: shares of all pixels, 0 first.
        by_uncertainty: the mean error of the rest, where the most uncertain are removed first.
        oracle: the same, where the largest errors are removed first.
        ause: area under the sparsification error (the first curve less the second) over `removed`, errors as
            shares of the mean error of all pixels: 0 at best.
        ause_random: the same of a random order.
        pixels: how many were judged.
    """

    uncertainty: Metric
    error: Metric
    removed: list[float]
    by_uncertainty: list[float]
    oracle: list[float]
    ause: Estimate
    ause_random: float
    pixels: int


@dataclass(frozen=True)
class DriftCurve:
    """One measure of the drawn frames by how far ahead they are.

    Attributes:
        name: "psnr", "ssim" or "sharpness"; see `benchmarks.rollouts`.
        unit: "" for a plain number.
        model: over the videos, 1, 2, ... steps after the prompt.
        reference: what the curve is held against, at the same steps.
        reference_name: what this is.
    """

    name: str
    unit: str
    model: list[Estimate]
    reference: list[float]
    reference_name: str


@dataclass(frozen=True)
class Strip:
    """Frames of one video, as PNG data URIs.

    Attributes:
        video: its index among those drawn.
        steps: how many steps after the prompt each frame is.
        truth: the true frames.
        drawn: the drawn frames.
    """

    video: int
    steps: list[int]
    truth: list[str]
    drawn: list[str]


@dataclass(frozen=True)
class FrechetDistance:
    """The Frechet distance between true and drawn videos; see `benchmarks.video_distance`.

    Attributes:
        name: of the measure, with the feature network in it.
        distance: between the true videos and the drawn ones, each with its prompt; 0 at best.
        floor: between the true videos and the prompts with their last frames repeated.
        network: as the user named it.
        sha256: of the network's file, or of the Python file that makes it; None where there is none.
        videos: on each side.
        frames: of each video, the prompt's included.
        size_px: height and width.
        features: the dimension of the Gaussians.
        input: what the network was given.
        warning: what to know of the number; "" where there is nothing.
    """

    name: str
    distance: float
    floor: float
    network: str
    sha256: str | None
    videos: int
    frames: int
    size_px: list[int]
    features: int
    input: str
    warning: str


@dataclass(frozen=True)
class RolloutResult:
    """How drawn videos drift from the true ones; see `benchmarks.rollouts`.

    Attributes:
        curves: PSNR, SSIM and sharpness.
        videos: how many.
        frames: drawn for each.
        prompt_frames: true frames that each starts from.
        window: the latest frames, given or drawn, that each next one was drawn from at most.
        temperature: of sampling.
        top_p: of sampling.
        seconds_per_frame: wall time over frames drawn, at the protocol's batch size and device.
        strip: frames of one video.
        frechet_distance: None where no feature network was named.
    """

    curves: list[DriftCurve]
    videos: int
    frames: int
    prompt_frames: int
    window: int
    temperature: float
    top_p: float
    seconds_per_frame: float
    strip: Strip | None = None
    frechet_distance: FrechetDistance | None = None


@dataclass(frozen=True)
class CodebookUse:
    """How much of a codebook the codes of a set of images use.

    Attributes:
        codes: in the codebook.
        used: share of them that occur.
        perplexity: exp of the entropy of the codes in nats: as many equally frequent codes would have it.
    """

    codes: int
    used: float
    perplexity: float


@dataclass(frozen=True)
class RatePoint:
    """A codec at one setting: JPEG quality, mean bits per image, mean PSNR in dB and mean SSIM."""

    quality: int
    bits: float
    psnr: float
    ssim: float


@dataclass(frozen=True)
class AutoencoderResult:
    """What an autoencoder of images keeps and at what rate; see `benchmarks.autoencoder`.

    Attributes:
        images: how many were coded.
        psnr: of the reconstructions, dB, mean over images.
        ssim: mean over images.
        nominal_bits: per image, every code at the logarithm of its codebook's size.
        entropy_bits: per image, every code at the entropy of its codebook's codes over all images.
        codebooks: use of each.
        jpeg_psnr: of JPEG at the nominal rate, interpolated; None where JPEG does not reach that rate.
        jpeg_ssim: likewise.
        jpeg: the points between which it was interpolated.
    """

    images: int
    psnr: float
    ssim: float
    nominal_bits: float
    entropy_bits: float
    codebooks: list[CodebookUse]
    jpeg_psnr: float | None
    jpeg_ssim: float | None
    jpeg: list[RatePoint] = field(default_factory=list)
