"""What to change about a data set, or about a task's settings, by what an inspection found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transframer.data.inspection.dense import Depths, Flows
from transframer.data.inspection.inspect import Inspection
from transframer.data.inspection.labels import Boxes, Classes
from transframer.data.inspection.tasks import setting
from transframer.task import Task

_FEW_RECORDS, _IMBALANCE, _BAD_SHARE, _LONG_CHUNKS = 500, 100, 0.001, 8
# A task's settings cannot suit each value: this share may lie beyond them.
_SHARE_BEYOND = 0.01
_METRES_BEYOND_BELIEF = 500
_NAMED = 10


@dataclass(frozen=True)
class Advice:
    """A line of advice.

    Attributes:
        mend: whether training or its figures suffer where it is not followed; else it is worth a thought.
        split: which it is about, "" for all.
        found: what was found.
        change: what to do about it.
    """

    mend: bool
    split: str
    found: str
    change: str

    def __str__(self) -> str:
        place = f"{self.split}: " if self.split else ""
        return f"{place}{self.found}: {self.change}"


def advice(
    found: Mapping[str, Inspection], copies: Sequence[tuple[Path, Path]], task: Task | None, size_px: int
) -> list[Advice]:
    """What to change, the most urgent first.

    Args:
        found: the inspections by split.
        copies: files that two splits share.
    """
    first = next(iter(found), None)
    lines = [
        Advice(mend, split, *text)
        for split, each in found.items()
        for mend, *text in _of_split(split, each, task, size_px)
        if mend or split == first  # what is worth a thought is so once
    ]
    if copies:
        one, other = copies[0]
        what = f"{len(copies)} images of one split are in another too, such as {one} and {other}"
        lines.append(Advice(True, "", what, "remove one of the two, or scores are too good"))
    return sorted(dict.fromkeys(lines), key=lambda line: not line.mend)


def settings_option(task: Task, **values: Any) -> str:
    """The option that changes settings of a task."""
    return f"--task-settings '{json.dumps(values)}'"


def _of_split(
    split: str, found: Inspection, task: Task | None, size_px: int
) -> Iterator[tuple[bool, str, str]]:
    training = split == "train"
    if found.unreadable:
        share = found.bad_records / max(1, found.records)
        change = "repair them, or remove them"
        if training and share > _BAD_SHARE:
            change += " (training stops above 0.1 %, see --max-bad-share)"
        what = f"{len(found.unreadable)} files cannot be read, which {found.bad_records} records need"
        yield True, f"{what} ({share:.2%})", change
    if found.refused:
        refused = sum(problem.records for problem in found.refused)
        yield True, f"the task does not take {refused} of {found.sampled} records", "correct their labels"
    if found.task_problem:
        yield True, found.task_problem, _for_task_problem(found, size_px)
    if training and found.records < _FEW_RECORDS:
        yield False, f"{found.records} records are few", "start from a trained model: transframer finetune"
    for classes in found.classes:
        yield from _of_classes(classes, training)
    if found.boxes:
        yield from _of_boxes(found.boxes, size_px)
    if found.depths:
        yield from _of_depths(found.depths, task)
    if found.flows:
        yield from of_flows(found.flows, task)
    yield from _of_shapes(found, size_px)
    if found.coding and task:
        yield from _of_coding(found, task)


def _for_task_problem(found: Inspection, size_px: int) -> str:
    for classes in found.classes:
        if classes.key == "label" and len(classes.names) > (size_px // 8) ** 2:
            return f"--size-px {_side_for(len(classes.names))}, or fewer classes"
    return "change the task's settings, or choose another task"


def _of_classes(classes: Classes, training: bool) -> Iterator[tuple[bool, str, str]]:
    if classes.wrong:
        ids = ", ".join(f"{value} ({count} times)" for value, count in [*classes.wrong.items()][:_NAMED])
        yield (
            True,
            f"{classes.key} has ids that are no class: {ids}",
            f"map them to 0 to {len(classes.counts) - 1}"
            + (", or to 255 where not labelled" if classes.key == "mask" else ""),
        )
    if classes.unlabelled == 1:
        yield True, f"{classes.key} has no label at all", "add labels, or choose another format"
        return
    if classes.unlabelled > 0.5:
        yield False, f"{classes.unlabelled:.0%} of {classes.key} is not labelled", "label more"
    if classes.empty and (training or classes.every_record):
        names = ", ".join(classes.empty[:_NAMED]) + (", ..." if len(classes.empty) > _NAMED else "")
        seen = "" if classes.every_record else f" in {classes.records} records sampled"
        yield (
            training and classes.every_record,
            f"{len(classes.empty)} of {len(classes.counts)} classes of {classes.key} do not occur{seen} "
            f"({names})",
            "add examples, or remove the classes" if classes.every_record else "look at more (--samples)",
        )
    if training and classes.imbalance > _IMBALANCE:
        yield (
            False,
            f"the most frequent class of {classes.key} occurs {classes.imbalance:.0f} times as often as "
            "the least",
            "add examples of rare classes, or judge by a mean over classes",
        )


def _of_boxes(boxes: Boxes, size_px: int) -> Iterator[tuple[bool, str, str]]:
    if boxes.flat:
        yield True, f"{boxes.flat} boxes without area", "remove them, or write them as x0 y0 x1 y1"
    if boxes.outside:
        yield True, f"{boxes.outside} boxes leave their image", "are they x0 y0 x1 y1, in pixels of the file?"
    if boxes.vanishing:
        needed = 16 * math.ceil(boxes.size_px_needed / 16 - 1e-6)
        share = boxes.vanishing / max(1, boxes.boxes)
        larger = f"--size-px {needed}, or " if size_px < needed <= 512 else ""
        yield (
            share > _SHARE_BEYOND,
            f"{boxes.vanishing} boxes ({share:.1%}) are less than a pixel wide or high at {size_px} px",
            f"{larger}leave them out",
        )


def _of_depths(depths: Depths, task: Task | None) -> Iterator[tuple[bool, str, str]]:
    near, middle, far = depths.percentiles_m
    if depths.wrong:
        yield True, f"{depths.wrong} depths below 0 or not finite", "write 0 where depth is unknown"
    if depths.unknown == 1:
        yield True, "no depth is known", "add labels, or choose another format"
    if middle > _METRES_BEYOND_BELIEF:
        yield True, f"a median depth of {middle:.0f} m", "are these millimetres? convert them to metres"
    if task is None or depths.out_of_range is None or math.isnan(middle):
        return
    low, high = (setting(task, name) for name in ("min_depth_m", "max_depth_m"))
    option = settings_option(task, min_depth_m=_rounded(near, -1), max_depth_m=_rounded(far, 1))
    if depths.out_of_range > _SHARE_BEYOND:
        what = f"{depths.out_of_range:.1%} of the depths lie outside {low:g} to {high:g} m"
        yield True, f"{what}, are clamped and never judged", option
    elif (near**-0.5 - far**-0.5) < 0.5 * (low**-0.5 - high**-0.5):
        yield False, f"depths use less than half of the greys for {low:g} to {high:g} m", option


def of_flows(flows: Flows, task: Task | None) -> Iterator[tuple[bool, str, str]]:
    """What the flows of a data set call for: whether it is a fault, what was found, what to change."""
    if flows.unknown == 1:
        yield True, "no flow is known", "add labels, or choose another format"
    if task is None or flows.out_of_range is None or not flows.component_px > 0:  # unknown, or none moves
        return
    greatest = setting(task, "max_flow_px")
    option = settings_option(task, max_flow_px=_rounded(flows.component_px, 1))
    if flows.out_of_range > _SHARE_BEYOND:
        what = f"{flows.out_of_range:.1%} of the flows exceed {greatest:g} px in a frame"
        yield True, f"{what} and are clamped", f"{option}, or a smaller --size-px"
    elif flows.component_px < greatest / 4:
        yield False, f"99 % of the flows stay below a quarter of {greatest:g} px", option


def _of_shapes(found: Inspection, size_px: int) -> Iterator[tuple[bool, str, str]]:
    if (sizes := found.sizes) is not None:
        if sizes.squeezed > 0.05 * sizes.images:
            what = f"{sizes.squeezed} of {sizes.images} images are more than twice as long as wide"
            yield False, f"{what}, or as wide as long", "frames are square: crop them first"
        if sizes.small > 0.5 * sizes.images:
            what = f"{sizes.small} of {sizes.images} images are smaller than the frames"
            labels = max((len(each.names) for each in found.classes if each.key == "label"), default=1)
            enough = max(16 * math.ceil(min(sizes.median) / 16), _side_for(labels))
            if enough < size_px:
                yield False, what, f"--size-px {enough} shows as much, and takes fewer tokens"
    if found.sequences and found.sequences.too_short:
        what = f"{found.sequences.too_short} of {found.sequences.sequences} sequences are too short"
        yield False, f"{what} and left out", "a smaller --data-options.frame_stride, or a shorter clip"


def _of_coding(found: Inspection, task: Task) -> Iterator[tuple[bool, str, str]]:
    coding = found.coding
    assert coding is not None
    if coding.worse_than_world:
        name, _, higher = coding.headline
        what = f"coding alone brings {name} to {coding.value:.3g}"
        bound = f"{'at least' if higher else 'at most'} {coding.bound:.3g}"
        change = "a larger --size-px"
        if coding.finer:
            quality, value, tokens = coding.finer
            option = settings_option(task, quality=quality)
            change = f"{option} brings {value:.3g} at {tokens:.0f} tokens a frame; or {change}"
        yield False, f"{what}, where the world's scenes have {bound}", change
    shortest = min(coding.chunks_largest.values())
    if shortest > _LONG_CHUNKS:
        what = f"the longest frame has {coding.tokens_largest} tokens, {shortest} chunks in any preset"
        yield False, what, "a smaller --size-px, or a lower quality"


def _side_for(classes: int) -> int:
    """The side of frames that have a block of 8 x 8 pixels for each class of an image."""
    return 16 * math.ceil(math.ceil(math.sqrt(classes)) / 2)


def _rounded(value: float, direction: int) -> float:
    """Down (-1) or up (1) to two significant digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    count = math.floor(value / step + 1e-9) if direction < 0 else math.ceil(value / step - 1e-9)
    return float(f"{count * step:.2g}")
