"""Curves as inline SVGs in the page's colours: of training, a small panel per task; of parts of a result."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transframer.benchmarks.parts import RolloutResult, Sparsification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS_PER_ROW = 4
# matplotlib writes colours as they are; these stand-ins become variables of the page's style sheet, so that
# the figure follows light and dark mode.
_VARIABLES = {
    "#010203": "var(--ink)",
    "#040506": "var(--soft)",
    "#070809": "var(--rule)",
    "#0a0b0c": "var(--accent)",
}
_INK, _SOFT, _RULE, _ACCENT = _VARIABLES


def read_curves(metrics: Path) -> dict[str, list[tuple[float, float]]]:
    """Per task, minutes of training and nats per token, from the "train" lines of a metrics.jsonl.

    A last line that was cut short by a stop is left out. Empty where the file is missing.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("kind") == "train":
            for task, values in record["tasks"].items():
                curves.setdefault(task, []).append((record["seconds"] / 60, values["nats_per_event"]))
    return dict(sorted(curves.items()))


def training_curves(metrics: Path) -> str:
    """The curves as an SVG element; empty where there are none.

    Args:
        metrics: a run's metrics.jsonl.
    """
    curves = read_curves(metrics)
    if not curves:
        return ""
    n_rows = -(-len(curves) // PANELS_PER_ROW)
    n_columns = min(len(curves), PANELS_PER_ROW)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False).flatten()
        for panel in panels[len(curves) :]:
            panel.remove()
        for panel, (task, points) in zip(panels, curves.items(), strict=False):
            panel.plot(*zip(*points, strict=True), color=_ACCENT, linewidth=1.4)
            panel.set_title(task.replace("_", " ").capitalize(), fontsize=10, loc="left")
            _tidy(panel)
        figure.supxlabel("minutes of training", fontsize=9)
        figure.supylabel("nats per token", fontsize=9)

    return _svg(draw, (11.2, 0.4 + 2.0 * n_rows))


def sparsification_curve(found: Sparsification) -> str:
    """The mean error of what remains, by uncertainty, by the oracle and at random, as an SVG element."""
    removed = [100 * share for share in found.removed]
    unit = f" ({found.error.unit})" if found.error.unit else ""

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        panel.axhline(found.by_uncertainty[0], color=_SOFT, linewidth=1, linestyle=":", label="random order")
        panel.plot(removed, found.by_uncertainty, color=_ACCENT, linewidth=1.6, label="most uncertain first")
        panel.plot(removed, found.oracle, color=_INK, linewidth=1.2, linestyle="--", label="oracle")
        panel.set_xlim(0, 100)
        panel.set_xlabel("% of pixels removed", fontsize=9)
        panel.set_ylabel(f"{found.error.name}{unit}", fontsize=9)
        _tidy(panel)
        # Beside the panel: the curves may run anywhere inside it.
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)

    return _svg(draw, (7.0, 2.5))


def drift_curves(found: RolloutResult) -> str:
    """Each measure of drawn videos by steps ahead, with its interval and its reference, as an SVG element."""
    steps = range(1, found.frames + 1)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(found.curves), squeeze=False).flatten()
        for panel, curve in zip(panels, found.curves, strict=True):
            low, high = ([getattr(each, end) for each in curve.model] for end in ("low", "high"))
            marker = "o" if found.frames == 1 else None  # a line of one point is not seen
            panel.fill_between(steps, low, high, color=_ACCENT, alpha=0.18, linewidth=0)
            panel.plot(steps, curve.reference, color=_SOFT, linewidth=1.2, linestyle="--", marker=marker)
            values = [each.value for each in curve.model]
            panel.plot(steps, values, color=_ACCENT, linewidth=1.6, marker=marker)
            name = curve.name.upper() if curve.name in ("psnr", "ssim") else curve.name.capitalize()
            panel.set_title(f"{name} ({curve.unit})" if curve.unit else name, fontsize=10, loc="left")
            _tidy(panel, from_zero=curve.name == "sharpness")
            panel.xaxis.get_major_locator().set_params(integer=True)
        figure.supxlabel("steps after the prompt", fontsize=9)

    return _svg(draw, (11.2, 2.6))


def _tidy(panel: Any, *, from_zero: bool = True) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color=_RULE, linewidth=0.6)
    panel.tick_params(length=0)
    if from_zero:
        panel.set_ylim(bottom=0)


def _svg(draw: Callable[[Figure], None], inches: tuple[float, float]) -> str:
    """What `draw` draws on a figure of this size, as an element for the page."""
    import matplotlib  # slow to import, and only needed here
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",  # text stays text, in the page's own fonts
        "svg.hashsalt": "transframer",
        "font.size": 9,
        "axes.edgecolor": _RULE,
        "axes.labelcolor": _SOFT,
        "axes.titlecolor": _INK,
        "xtick.color": _SOFT,
        "ytick.color": _SOFT,
        "text.color": _SOFT,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # a page of several figures would have them twice
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text
