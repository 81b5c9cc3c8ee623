"""The overview of a report: one bar per task, from the floor to the ceiling."""

from __future__ import annotations

import math
from collections.abc import Sequence

from transframer.benchmarks.markup import text, title
from transframer.benchmarks.numbers import arrow, number
from transframer.benchmarks.results import TaskResult

# The stretch of the floor-to-ceiling scale that a bar shows; what lies outside is drawn at its end.
_LEFT, _RIGHT = -0.3, 1.05


def glance(results: Sequence[TaskResult]) -> str:
    """Every task's headline as a bar between floor and ceiling, with its interval and its verdict.

    A specialist's headline is a mark on the same scale, where one was measured.
    """
    ticks = "".join(
        f'<i class="tick" style="left:{_place(at):.2f}%">{label}</i>'
        for at, label in ((0.0, "floor"), (1.0, "ceiling"))
    )
    lines = [f'<div class="axis"><span></span><div class="bar">{ticks}</div><span></span><span></span></div>']
    for result in results:
        model = result.main.model
        ends = f"{number(model.low, model.value)} to {number(model.high, model.value)}"
        spread = f' <span class="soft">{ends}</span>' if not math.isnan(model.low) else ""
        lines.append(
            f'<div class="row"><a href="#{text(result.task)}">{title(result.task)}</a>{_bar(result)}'
            f'<span class="value">{text(result.headline.name)} {arrow(result.headline.higher_is_better)} '
            f"<b>{number(model.value)}</b>{spread}</span>"
            f'<span class="said {result.verdict}">{result.verdict}</span></div>'
        )
    legend = ""
    if any(result.specialist for result in results):
        legend = (
            '<p class="legend small"><span class="bar"><i class="dot"></i></span>model'
            '<span class="bar"><i class="rival"></i></span>specialist: made for the task alone</p>'
        )
    return (
        f'<section class="glance">{"".join(lines)}{legend}<p class="small soft">Each scale runs from the '
        "trivial answer (floor) to the true target coded and decoded (ceiling), linear in the headline "
        "metric; the whisker is the model's 95 % bootstrap interval.</p></section>"
    )


def _bar(result: TaskResult) -> str:
    model = result.main.model
    at, *ends = (result.on_scale(value) for value in (model.value, model.low, model.high))
    if not math.isfinite(at):
        return '<div class="bar small soft">no scale: floor and ceiling are equal or undefined</div>'
    zero, here = _place(0.0), _place(at)
    parts = [
        _mark("track", zero, _place(1.0) - zero),
        _mark("fill" if at >= 0 else "fill worse", min(zero, here), abs(here - zero)),
        _mark("end", zero),
        _mark("end", _place(1.0)),
        _mark("dot", here),
    ]
    if all(map(math.isfinite, ends)):
        low, high = sorted(map(_place, ends))
        parts += [_mark("span", low, high - low), _mark("cap", low), _mark("cap", high)]
    label = f"{at:.0%} of the way from floor to ceiling"
    rival = math.nan if result.main.specialist is None else result.on_scale(result.main.specialist.value)
    if math.isfinite(rival):
        parts.append(_mark("rival", _place(rival)))
        label += f", the specialist {rival:.0%}"
    return f'<div class="bar" role="img" aria-label="{label}" title="{label}">{"".join(parts)}</div>'


def _mark(kind: str, left: float, width: float | None = None) -> str:
    size = "" if width is None else f";width:{width:.2f}%"
    return f'<i class="{kind}" style="left:{left:.2f}%{size}"></i>'


def _place(value: float) -> float:
    """Per cent of a bar's width."""
    return 100 * (min(max(value, _LEFT), _RIGHT) - _LEFT) / (_RIGHT - _LEFT)
