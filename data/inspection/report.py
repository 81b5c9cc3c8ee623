"""The findings of an inspection as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from transframer.data.inspection.dense import Depths, Flows
from transframer.data.inspection.inspect import Inspection, Problem
from transframer.data.inspection.labels import Boxes, Classes

_CLASSES_SHOWN = 20
_UNITS = {"label": "records", "mask": "pixels", "box_labels": "boxes", "instance_labels": "instances"}


def report(found: Inspection) -> Iterator[tuple[str, str]]:
    """The findings as names and texts, a line each; no name where a line goes on with the one before."""
    yield "records", f"{found.records}, of which {found.sampled} were decoded in full"
    others = f", {counted(found.files.others, 'other file')}" if found.files.others else ""
    yield "files", f"{counted(found.files.images, 'image')}{others}; {len(found.unreadable)} unreadable"
    yield from (("  unreadable", _problem(each)) for each in found.unreadable)
    if sizes := found.sizes:
        small, middle, large = (f"{w} x {h}" for w, h in (sizes.smallest, sizes.median, sizes.largest))
        of = f"; {sizes.images} images decoded" if sizes.decoded else ""
        spread = f"{small} to {large}, median {middle}, {sizes.different} different"
        yield "sizes", f"{f'all {small}' if small == large else spread} (width x height{of})"
        yield "", f"{sizes.squeezed} beyond 2:1, {sizes.small} with a side shorter than the frames'"
    if each := found.sequences:
        shortest, middling, longest = each.frames
        yield "sequences", f"{each.sequences} of {shortest} to {longest} frames, median {middling}"
        rates = ", ".join(
            f"{n} at {'an unknown rate' if rate is None else f'{rate:g}'}"
            for rate, n in each.frames_per_s.items()
        )
        yield "", f"frames per second: {rates}; {each.too_short} too short for a record"
    for classes in found.classes:
        yield from _classes(classes)
    if found.boxes:
        yield from _boxes(found.boxes)
    if found.depths:
        yield from _depths(found.depths, found.depths.records == found.records)
    if found.flows:
        yield from _flows(found.flows, found.flows.records == found.records)
    yield from (("refused", _problem(each)) for each in found.refused)
    if coding := found.coding:
        name, unit, _ = coding.headline
        value = f"{coding.value:.4g}{' ' * bool(unit)}{unit}"
        yield "codec", f"{name} {value} after coding and decoding {counted(coding.records, 'true target')}"
        mean, most = f"{coding.tokens_mean:.1f}", coding.tokens_largest
        yield "tokens", f"{mean} in a frame on average, {most} in the longest"
        chunks = ", ".join(f"{preset} {count}" for preset, count in coding.chunks_largest.items())
        yield "", f"chunks of the longest frame, by preset: {chunks}"


def _problem(problem: Problem) -> str:
    times = f" ({problem.records} records)" if problem.records > 1 else ""
    return f"{problem.file}: {problem.reason}{times}"


def _classes(classes: Classes) -> Iterator[tuple[str, str]]:
    total = sum(classes.counts)
    present = sum(1 for count in classes.counts if count)
    unlabelled = f", {classes.unlabelled:.1%} unlabelled" if classes.unlabelled else ""
    place = _of(classes.records, classes.every_record)
    unit = _UNITS[classes.key]
    yield classes.key, f"{present} of {len(classes.counts)} classes in {place}: {total} {unit}{unlabelled}"
    order = sorted(range(len(classes.counts)), key=lambda number: -classes.counts[number])
    between = len(order) - _CLASSES_SHOWN
    for rank, number in enumerate(order):
        if between > 0 and rank == _CLASSES_SHOWN // 2:
            yield "", f"... {between} classes between ..."
        if between > 0 and 0 <= rank - _CLASSES_SHOWN // 2 < between:
            continue
        count = classes.counts[number]
        with_it = "" if classes.key == "label" else f", in {classes.records_with[number]} records"
        yield "", f"{count:>9} {count / max(1, total):>6.1%} {classes.name(number)}{with_it}"
    for value, count in classes.wrong.items():
        yield "", f"{count:>9}        id {value}, which is no class"


def _boxes(boxes: Boxes) -> Iterator[tuple[str, str]]:
    fewest, usual, most = boxes.per_image
    place = _of(boxes.records, boxes.every_record)
    yield "boxes", f"{boxes.boxes} in {place}; {fewest:g} to {most:g} in one, median {usual:g}"
    low, middle, high = boxes.short_side_px
    yield "", f"short sides {low:.3g} to {high:.4g} px on disk, median {middle:.3g}"
    wrong = f"{boxes.outside} outside, {boxes.flat} without area"
    yield "", f"{boxes.vanishing} below a pixel in frames, {wrong}"


def _depths(depths: Depths, every_record: bool) -> Iterator[tuple[str, str]]:
    metres = ", ".join(f"{value:.3g} m" for value in depths.percentiles_m)
    yield "depth", f"{metres} (1st, 50th, 99th percentile) in {_of(depths.records, every_record)}"
    beyond = "" if depths.out_of_range is None else f", {depths.out_of_range:.2%} out of the task's range"
    yield "", f"{depths.unknown:.1%} unknown{beyond}"


def _flows(flows: Flows, every_record: bool) -> Iterator[tuple[str, str]]:
    lengths = ", ".join(f"{value:.3g}" for value in flows.length_px)
    ranks = "50th, 99th percentile, greatest"
    yield "flow", f"{lengths} px on disk ({ranks}) in {_of(flows.records, every_record)}"
    share = flows.out_of_range
    beyond = "" if share is None else f", {share:.2%} beyond the task's greatest"
    yield "", f"{flows.component_px:.3g} px in frames (99th percentile); {flows.unknown:.1%} unknown{beyond}"


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def _of(records: int, every_record: bool) -> str:
    return f"{'all' if every_record else 'a sample of'} {counted(records, 'record')}"
