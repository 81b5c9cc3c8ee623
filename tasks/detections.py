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

    Box by box, in order: each joins the set's box of its class that it overlaps most, at least by
    `min_iou`, and that its own prediction has not joined yet; else it is added to the set. A merged box is
    the mean of those that joined; its score is their sum over the number of predictions, that is, for
    boxes of score 1, the share of the predictions that contain it.

    Raises:
        ValueError: no predictions.
    """
    if not predictions:
        raise ValueError("nothing to merge")
    groups: list[list[tuple[Tensor, float]]] = []
    labels: list[int] = []
    for prediction in predictions:
        joined: set[int] = set()
        for box, label, score in zip(
            prediction.boxes, prediction.labels.tolist(), prediction.scores.tolist(), strict=True
        ):
            best, where = min_iou, -1
            for group, members in enumerate(groups):
                if group not in joined and labels[group] == label:
                    iou = box_iou(box[None], _mean(members)[None]).item()
                    if iou >= best:
                        best, where = iou, group
            if where < 0:
                where = len(groups)
                groups.append([])
                labels.append(label)
            groups[where].append((box, score))
            joined.add(where)
    return Detections(
        torch.stack([_mean(members) for members in groups]) if groups else torch.zeros(0, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor([sum(score for _, score in members) / len(predictions) for members in groups]),
        predictions[0].size,
    )


def _mean(members: Sequence[tuple[Tensor, float]]) -> Tensor:
    return torch.stack([box for box, _ in members]).mean(0)
