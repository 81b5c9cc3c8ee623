"""Detected boxes, and one set of them out of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Boxes found in one image.

    Attributes:
        boxes: x0 y0 x1 y1 in pixels, the last two exclusive.
        labels: class ids.
        scores: 0 to 1.
        size: height and width of the image, pixels.
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    scores: Float[Tensor, " n"]
    size: tuple[int, int]


def box_iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every pair of boxes; 0 for boxes without area.

    >>> box_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])).item()
    0.3333333432674408
    """
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).clamp(min=0).prod(-1) for x in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared).clamp(min=1e-9)


def merge(predictions: Sequence[Detections], min_iou: float = 0.5) -> Detections:
    """One set of detections out of several of the same image.

    For each class the box that most others lie on comes first: of every prediction the box that
    overlaps it most, at least by `min_iou`, joins it and is used up. What was joined becomes one box, its
    sides the medians of theirs, since a few draws may be far off. Its score is the sum of theirs, each times
    its overlap with the new box, over the number of predictions: where these are draws, whose scores are 1,
    the overlap with the truth that they expect.

    Raises:
        ValueError: no predictions.
    """
    if not predictions:
        raise ValueError("nothing to merge")
    boxes, labels, scores = (
        torch.cat([getattr(prediction, name) for prediction in predictions])
        for name in ("boxes", "labels", "scores")
    )
    source = torch.arange(len(predictions)).repeat_interleave(
        torch.tensor([len(prediction.boxes) for prediction in predictions])
    )
    merged: list[tuple[int, Tensor, int, Tensor]] = []  # by the first of the boxes that became it
    for label in labels.unique().tolist():
        left = (labels == label).nonzero()[:, 0]
        while len(left):
            overlap = box_iou(boxes[left], boxes[left]).fill_diagonal_(1.0)
            overlap = overlap.where(overlap >= min_iou, 0.0)
            row = overlap[overlap.sum(1).argmax()]
            order = row.argsort(descending=True, stable=True)
            best = torch.stack([order[source[left[order]] == i][0] for i in source[left].unique()])
            joined = best[row[best] > 0]
            members = left[joined]
            box = boxes[members].quantile(0.5, 0)
            agreement = box_iou(boxes[members], box[None])[:, 0]
            score = (scores[members] * agreement).sum() / len(predictions)
            merged.append((int(members.min()), box, label, score))
            left = left[~torch.isin(torch.arange(len(left)), joined)]
    if not merged:
        return Detections(boxes, labels, scores, predictions[0].size)
    _, found, classes, agreed = zip(*sorted(merged, key=lambda one: one[0]), strict=True)
    return Detections(torch.stack(found), torch.tensor(classes), torch.stack(agreed), predictions[0].size)
