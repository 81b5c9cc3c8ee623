"""The training curve of a run as an inline SVG: one small panel per task, coloured by the page's style."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    return _svg(curves) if curves else ""


def _svg(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    import matplotlib  # slow to import, and only needed here
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_rows = -(-len(curves) // PANELS_PER_ROW)
    n_columns = min(len(curves), PANELS_PER_ROW)
    settings: Any = {
        "svg.fonttype": "none",  # text stays text, in the page's own fonts
        "svg.hashsalt": "transframer",
        "font.size": 9,
        "axes.edgecolor": _RULE,
        "axes.titlecolor": _INK,
        "xtick.color": _SOFT,
        "ytick.color": _SOFT,
        "text.color": _SOFT,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(11.2, 0.4 + 2.0 * n_rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False).flatten()
        for panel in panels[len(curves) :]:
            panel.remove()
        for panel, (task, points) in zip(panels, curves.items(), strict=False):
            panel.plot(*zip(*points, strict=True), color=_ACCENT, linewidth=1.4)
            panel.set_title(task.replace("_", " ").capitalize(), fontsize=10, loc="left")
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(axis="y", color=_RULE, linewidth=0.6)
            panel.tick_params(length=0)
            panel.set_ylim(bottom=0)
        figure.supxlabel("minutes of training", fontsize=9)
        figure.supylabel("nats per token", fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text
