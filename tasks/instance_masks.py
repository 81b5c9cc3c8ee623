"""Segmented objects of one image, one set of them out of several, and the mean ones of a set of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.data.formats.images import resize_nearest


@dataclass(frozen=True)
class Instances:
    """Objects found in one image.

    Attributes:
        masks: the pixels of each.
        labels: class ids.
        scores: 0 to 1.
    """

    masks: Bool[Tensor, "n h w"]
    labels: Int[Tensor, " n"]
    scores: Float[Tensor, " n"]


def numbers_of(masks: Bool[Tensor, "n h w"]) -> Int[Tensor, "h w"]:
    """The number of the object at each pixel, from 1, 0 for none; where masks overlap, the last one's."""
    order = torch.arange(1, len(masks) + 1)[:, None, None]
    return torch.cat([order.new_zeros(1, *masks.shape[1:]), masks * order]).amax(0)


def mask_iou(a: Bool[Tensor, "n h w"], b: Bool[Tensor, "m h w"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every pair of masks; 0 for two empty ones.

    >>> mask_iou(torch.tensor([[[True, True]]]), torch.tensor([[[True, False]]])).item()
    0.5
    """
    one, other = a.flatten(1).float(), b.flatten(1).float()
    shared = one @ other.T
    return shared / (one.sum(1)[:, None] + other.sum(1) - shared).clamp(min=1)


def merge(predictions: Sequence[Instances], min_iou: float = 0.5) -> Instances:
    """One set of objects out of several of the same image.

    Object by object, in order: each joins the group of its class whose mean mask it overlaps most, at least
    by `min_iou`, and that its own prediction has not joined yet; else it starts a group. A merged mask has
    the pixels that more than half of its group have; its score is the sum of theirs over the number of
    predictions.
    """
    groups: list[tuple[int, list[Tensor], list[float]]] = []
    for prediction in predictions:
        free = list(range(len(groups)))
        for mask, label, score in zip(
            prediction.masks, prediction.labels.tolist(), prediction.scores.tolist(), strict=True
        ):
            likely = [g for g in free if groups[g][0] == label]
            ious = [mask_iou(mask[None], _mean(groups[g][1])[None]).item() for g in likely]
            if max(ious, default=0.0) < min_iou:
                groups.append((label, [mask], [score]))
                continue
            best = likely[ious.index(max(ious))]
            groups[best][1].append(mask)
            groups[best][2].append(score)
            free.remove(best)
    scores = [sum(each) / len(predictions) for _, _, each in groups]
    masks, labels = [_mean(each) for _, each, _ in groups], [label for label, _, _ in groups]
    return _instances(masks, labels, scores, predictions[0])


def mean_instances(images: Sequence[Instances], num_classes: int) -> Instances:
    """One object of each class: the pixels that hold one most often, as many as one covers on average.

    Its score is the share of the images with one. A class without objects has none.
    """
    masks, labels = [], []
    for k in range(num_classes):
        objects = torch.cat([image.masks[image.labels == k] for image in images]).float()
        area = int(objects.sum() / max(1, len(objects)))
        if area:
            often = objects.mean(0)
            masks.append(often >= often.flatten().topk(area).values[-1])
            labels.append(k)
    share = [sum(bool((image.labels == k).any()) for image in images) / len(images) for k in labels]
    return _instances(masks, labels, share, images[0])


def resize_instances(instances: Instances, size: tuple[int, int]) -> Instances:
    """The same objects at `size` (height, width), by the nearest pixel."""
    masks = [resize_nearest(mask, size) for mask in instances.masks]
    empty = torch.zeros(0, *size, dtype=torch.bool)
    return Instances(torch.stack(masks) if masks else empty, instances.labels, instances.scores)


def _instances(
    masks: Sequence[Tensor], labels: Sequence[int], scores: Sequence[float], like: Instances
) -> Instances:
    stacked = torch.stack(list(masks)) if masks else like.masks[:0]
    return Instances(stacked, torch.tensor(labels, dtype=torch.int64), torch.tensor(scores))


def _mean(masks: Sequence[Tensor]) -> Bool[Tensor, "h w"]:
    return torch.stack(list(masks)).float().mean(0) > 0.5
