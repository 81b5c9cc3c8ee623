"""How segmented objects are judged: COCO's average precision of masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from transframer.tasks.average_precision import ImageMatches, accumulate_images
from transframer.tasks.instance_masks import Instances, mask_iou
from transframer.tasks.instance_output import run_lengths


@dataclass(frozen=True)
class InstanceScore:
    """What one image adds to the metrics.

    Attributes:
        matches: which objects match which true ones, as COCOeval has it.
        best_iou: of each true object, the IoU with the best one found of its class.
    """

    matches: ImageMatches
    best_iou: Float[Tensor, " m"]


def score_instances(found: Instances, true: Instances, num_classes: int) -> InstanceScore:
    """Compares the objects of one image with the true ones."""
    iou = mask_iou(true.masks, found.masks) * (true.labels[:, None] == found.labels)
    best = torch.cat([iou, torch.zeros(len(true.labels), 1)], 1).amax(1)
    truth, results = _coco(true, num_classes), _coco(found, num_classes)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells what it does
        evaluation = COCOeval(truth, results, "segm")
        params = evaluation.params
        params.areaRng, params.areaRngLbl, params.maxDets = params.areaRng[:1], params.areaRngLbl[:1], [100]
        evaluation.evaluate()
    return InstanceScore(evaluation.evalImgs, best)


def instance_metrics(scores: Sequence[InstanceScore], num_classes: int) -> dict[str, float]:
    """COCO's `ap` (mean over IoU 0.50 to 0.95), `ap50`, `ap75`, `ar` of masks, and `best_iou`.

    `best_iou` is the mean over true objects of the IoU with the best one found of their class; all are nan
    where there are no true objects.
    """
    best = torch.cat([score.best_iou for score in scores]) if scores else torch.zeros(0)
    metrics = accumulate_images([score.matches for score in scores], num_classes)
    return metrics | {"best_iou": best.mean().item() if len(best) else math.nan}


def _coco(instances: Instances, num_classes: int) -> COCO:
    """The objects of one image as pycocotools holds those of a file."""
    coco = COCO()
    rows = zip(instances.masks, instances.labels.tolist(), instances.scores.tolist(), strict=True)
    annotations = [
        {"id": number, "image_id": 0, "category_id": label, "score": score, "iscrowd": 0}
        | {"segmentation": run_lengths(mask), "area": int(mask.sum())}
        for number, (mask, label, score) in enumerate(rows, 1)
    ]
    image = {"id": 0, "height": instances.masks.shape[1], "width": instances.masks.shape[2]}
    categories = [{"id": k} for k in range(num_classes)]
    coco.dataset = {"images": [image], "categories": categories, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
