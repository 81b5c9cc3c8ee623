"""Segmented objects for people and other programs: pictures, COCO's JSON, a PNG of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from transframer.data.formats.atomic import whole_file
from transframer.tasks.drawing import class_colours, draw_boxes
from transframer.tasks.instance_masks import Instances, numbers_of

_INSIDE, _OUTLINE = 0.5, 0.9  # opacity


def draw_instances(
    image: UInt8[Tensor, "3 h w"], instances: Instances, classes: Sequence[str]
) -> UInt8[Tensor, "3 h2 w2"]:
    """The enlarged image, the objects tinted and outlined in the colours of their classes, with their boxes,
    classes and, where below 1, scores."""
    colours, shown = class_colours(len(classes)).float()[..., None, None], image.float()
    grey = shown.mean(0)
    for mask, label in zip(instances.masks, instances.labels.tolist(), strict=True):
        outline = mask & (F.max_pool2d(1 - mask[None].float(), 3, 1, 1)[0] > 0)
        opacity = torch.where(outline, _OUTLINE, _INSIDE)
        shown = shown.where(~mask, opacity * colours[label] + (1 - opacity) * grey)
    captions = [
        classes[label] + (f" {score:.2f}" if score < 1 else "")
        for label, score in zip(instances.labels.tolist(), instances.scores.tolist(), strict=True)
    ]
    boxes = torch.tensor([_box(mask) for mask in instances.masks], dtype=torch.float32).view(-1, 4)
    tinted = shown.round().to(torch.uint8)
    return draw_boxes(tinted, boxes, instances.labels, captions, len(classes))


def coco_results(instances: Instances, classes: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's results format, with the classes' names beside their ids."""
    rows = zip(instances.masks, instances.labels.tolist(), instances.scores.tolist(), strict=True)
    return [
        {
            "image_id": 0,
            "category_id": label,
            "category": classes[label],
            "segmentation": run_lengths(mask),
            "score": round(score, 6),
        }
        for mask, label, score in rows
    ]


def run_lengths(mask: Bool[Tensor, "h w"]) -> dict[str, Any]:
    """COCO's run-length code of a mask, ready for JSON."""
    code = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}


def save_numbers(path: Path, instances: Instances) -> None:
    """Saves a 16-bit PNG: 0 where there is no object, else its number from 1; later ones hide earlier ones.

    Raises:
        DataError: the file cannot be written.
    """
    picture = Image.fromarray(numbers_of(instances.masks).numpy().astype(np.uint16))
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG")


def _box(mask: Bool[Tensor, "h w"]) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1, the last two exclusive; zeros of an empty mask."""
    y, x = mask.nonzero(as_tuple=True)
    if not len(y):
        return 0, 0, 0, 0
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
