"""Average precision of detections as COCO defines it, computed by pycocotools, ready for resampling.

COCOeval first matches detections to true boxes image by image, which is slow, and then accumulates the
matches of all images. Here the two are apart: the first is done once per image, and any multiset of images
can then be accumulated quickly, as a bootstrap needs.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from pycocotools.cocoeval import COCOeval
from torch import Tensor

ImageMatches = list[dict[str, Any] | None]  # one entry of COCOeval.evalImgs per class


def match_image(
    found: tuple[Float[Tensor, "n 4"], Int[Tensor, " n"], Float[Tensor, " n"]],
    true: tuple[Float[Tensor, "m 4"], Int[Tensor, " m"]],
    num_classes: int,
) -> ImageMatches:
    """Matches the detections of one image to its true boxes at IoU 0.50, 0.55, ..., 0.95.

    Args:
        found: boxes x0 y0 x1 y1, class ids, scores.
        true: boxes, class ids.
    """
    evaluation = _evaluation(num_classes, images=1)
    # Filled in place of its _prepare, which wants files, prints, and refuses an image without detections.
    for number, (box, label, score) in enumerate(_rows(*found), 1):
        evaluation._dts[0, label].append(_annotation(number, box) | {"score": score})
    for number, (box, label) in enumerate(_rows(*true), 1):
        evaluation._gts[0, label].append(_annotation(number, box) | {"ignore": 0, "iscrowd": 0})
    evaluation.ious = {(0, k): evaluation.computeIoU(0, k) for k in range(num_classes)}
    params = evaluation.params
    return [evaluation.evaluateImg(0, k, params.areaRng[0], params.maxDets[-1]) for k in range(num_classes)]


def accumulate_images(images: Sequence[ImageMatches], num_classes: int) -> dict[str, float]:
    """Over images: `ap` (mean over IoU 0.50 to 0.95), `ap50`, `ap75`, and `ar` with at most 100 detections.

    A class without true boxes does not count; all are nan where no image has any.

    Args:
        images: from `match_image`; one image may come several times.
    """
    evaluation = _evaluation(num_classes, len(images))
    evaluation.evalImgs = [image[k] for k in range(num_classes) for image in images]
    evaluation._paramsEval = copy.deepcopy(evaluation.params)
    if images:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
    precision = evaluation.eval.get("precision", np.empty((10, 0)))
    recall = evaluation.eval.get("recall", np.empty((10, 0)))
    return {
        "ap": _mean(precision),
        "ap50": _mean(precision[0]),
        "ap75": _mean(precision[5]),
        "ar": _mean(recall),
    }


def _evaluation(num_classes: int, images: int) -> COCOeval:
    evaluation = COCOeval(iouType="bbox")
    params = evaluation.params
    params.catIds, params.imgIds = list(range(num_classes)), list(range(images))
    params.areaRng, params.areaRngLbl, params.maxDets = params.areaRng[:1], params.areaRngLbl[:1], [100]
    return evaluation


def _rows(*columns: Tensor) -> zip:
    return zip(*(column.tolist() for column in columns), strict=True)


def _annotation(number: int, box: Sequence[float]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {"id": number, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan
