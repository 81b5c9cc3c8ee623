"""Sizes of images, and lengths and frame rates of sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from transframer.data.datasets.sequences import SequenceDataset

_SQUEEZED = 2.0


@dataclass(frozen=True)
class Sizes:
    """Width and height of images on disk.

    Attributes:
        images: how many.
        decoded: whether they are those of the sample, where headers do not tell.
        different: how many different sizes.
        smallest, median, largest: by area, width and height.
        squeezed: images with one side more than twice the other, which frames show as squares.
        small: images with a side below that of the frames.
    """

    images: int
    decoded: bool
    different: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    squeezed: int
    small: int


@dataclass(frozen=True)
class Sequences:
    """Videos, or posed views of scenes.

    Attributes:
        sequences: how many.
        frames: the fewest, the median and the most in one.
        frames_per_s: how many sequences have each rate; the key None where it is unknown.
        too_short: sequences that give no record.
    """

    sequences: int
    frames: tuple[int, int, int]
    frames_per_s: dict[float | None, int]
    too_short: int


def sizes_of(found: Iterable[tuple[int, int]], decoded: bool, size_px: int) -> Sizes | None:
    """The figures of some sizes; None where there are none.

    Args:
        found: width and height of each image.
        decoded: see `Sizes`.
        size_px: side of the frames.
    """
    counts = Counter(found)
    if not counts:
        return None
    ordered = sorted(counts, key=lambda size: (size[0] * size[1], size))
    images, middle, below = counts.total(), ordered[-1], 0
    for size in ordered:
        below += counts[size]
        if 2 * below >= images:
            middle = size
            break
    squeezed = sum(n for size, n in counts.items() if max(size) > _SQUEEZED * min(size))
    small = sum(n for size, n in counts.items() if min(size) < size_px)
    return Sizes(images, decoded, len(counts), ordered[0], middle, ordered[-1], squeezed, small)


def sequences_of(dataset: SequenceDataset) -> Sequences:
    """The figures of the sequences of a split."""
    lengths = sorted(len(sequence) for sequence in dataset.sequences)
    short = sum(
        len(each) < (dataset.clip.frames - 1) * dataset.stride(each) + 1 for each in dataset.sequences
    )
    rates = Counter(sequence.frames_per_s for sequence in dataset.sequences)
    return Sequences(len(lengths), (lengths[0], lengths[len(lengths) // 2], lengths[-1]), dict(rates), short)
