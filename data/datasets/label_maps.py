"""Label maps in image files, as several data sets store them: a class or an object number at each pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from transframer.data.formats.images import image_size, opened_image
from transframer.errors import DataError


def read_numbers(path: Path, image: Path) -> Int[np.ndarray, "h w"]:
    """The numbers at the pixels of a grey or palette image; of a palette, the indices and not the colours.

    Args:
        image: the image that is labelled; its size must be the same.

    Raises:
        DataError: a file that is missing, damaged, in colour, or of another size than the image.
    """
    with opened_image(path) as labels:
        if labels.mode not in ("1", "L", "P") and not labels.mode.startswith("I"):
            raise DataError(
                f"an image of mode {labels.mode}",
                file=path,
                expected="one number a pixel: grey, or a palette",
            )
        numbers = np.asarray(labels).astype(np.int64)
    check_size(path, numbers, image)
    return numbers


def check_size(path: Path, labels: Shaped[np.ndarray, "h w *c"], image: Path) -> None:
    """Raises a DataError where labels have not the size of their image."""
    height, width = image_size(image)
    if labels.shape[:2] != (height, width):
        raise DataError(
            f"labels of {labels.shape[1]} x {labels.shape[0]} pixels",
            file=path,
            expected=f"{width} x {height}, as {image} has",
        )


def classes_of(
    numbers: Int[np.ndarray, "h w"], class_of: Int[np.ndarray, " n"], path: Path
) -> Int[Tensor, "h w"]:
    """The class ids of a label map.

    Args:
        class_of: the class id of each number from 0 on; -1 for numbers that must not occur.
        path: the file, for messages.

    Raises:
        DataError: a number without a class.
    """
    known = (numbers >= 0) & (numbers < len(class_of))
    classes = np.where(known, class_of[np.where(known, numbers, 0)], -1)
    if (classes < 0).any():
        raise DataError(
            f"the number {numbers[classes < 0][0]}, which stands for no class",
            file=path,
            expected=f"numbers up to {np.nonzero(class_of >= 0)[0].max()}",
        )
    return torch.from_numpy(classes)


def consecutive(numbers: Int[np.ndarray, "h w"]) -> tuple[Int[Tensor, "h w"], Int[np.ndarray, " k"]]:
    """Object numbers, not negative, turned into 1..k, 0 staying 0; and the k old numbers, which rise."""
    present = np.bincount(numbers.ravel()) > 0
    present[:1] = False
    places = np.cumsum(present) * present
    return torch.from_numpy(places[numbers]), np.flatnonzero(present)
