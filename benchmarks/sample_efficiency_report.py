"""The comparison of fine-tuning with training from scratch as a table, JSON, Markdown and a figure."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transframer.benchmarks.json_records import strict
from transframer.benchmarks.numbers import interval, metric_name, number
from transframer.benchmarks.sample_efficiency_config import SampleEfficiencyConfig
from transframer.benchmarks.statistics import Estimate
from transframer.data.formats.atomic import whole_file, write_text
from transframer.task import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEM = "sample_efficiency"
_INK, _SOFT, _RULE, _ACCENT = "#16181d", "#5c6370", "#e3e5ea", "#1f5fd0"  # the report's, in light mode


@dataclass(frozen=True)
class Training:
    """How one model was trained.

    Attributes:
        learning_rate: the peak.
        steps: taken in all.
        seconds: until the last one; fewer than asked for where held-out frames took no fewer bits any more.
        kept_step: of the model that is kept, the one with the fewest bits per held-out frame.
        held_out_bits: these bits.
    """

    learning_rate: float
    steps: int
    seconds: float
    kept_step: int
    held_out_bits: float


@dataclass(frozen=True)
class Comparison:
    """One metric of both models on the same samples.

    Attributes:
        scratch: of the model that started from random weights.
        finetuned: of the one that started from trained weights.
        difference: finetuned - scratch, resampled in pairs.
        floor: of the trivial answer.
    """

    scratch: Estimate
    finetuned: Estimate
    difference: Estimate
    floor: float


@dataclass(frozen=True)
class Row:
    """One number of training samples.

    Attributes:
        samples: the number.
        whole: whether that is the whole training part.
        training: of "scratch" and "finetuned".
        headline: the task's metric that is shown.
        metrics: all of them by name.
        protocols: the benchmark's stamps of both models.
    """

    samples: int
    whole: bool
    training: dict[str, Training]
    headline: Metric
    metrics: dict[str, Comparison]
    protocols: dict[str, Any]

    @property
    def main(self) -> Comparison:
        """The headline metric."""
        return self.metrics[self.headline.name]

    @property
    def name(self) -> str:
        """The number for people."""
        return f"{self.samples:,}" + (" (all)" if self.whole else "")


def write_report(config: SampleEfficiencyConfig, rows: Sequence[Row]) -> str:
    """Writes sample_efficiency.json, .md, .png and .svg into the folder of the results.

    Returns:
        The text of the Markdown file.

    Raises:
        DataError: a file cannot be written.
    """
    record = {"settings": config.of_training, "rows": [dataclasses.asdict(row) for row in rows]}
    write_text(config.out / f"{STEM}.json", json.dumps(strict(record), indent=1, allow_nan=False) + "\n")
    text = markdown(config, rows)
    write_text(config.out / f"{STEM}.md", text)
    _draw(config, rows, config.out)
    return text


def markdown(config: SampleEfficiencyConfig, rows: Sequence[Row]) -> str:
    """The table, what it is of, and how the models were trained."""
    first = rows[0]
    data = first.protocols["finetuned"]["data"]
    rates = {name: f"{each.learning_rate:g}" for name, each in first.training.items()}
    start = Path(config.from_).name
    table = [
        [row.name, *(interval(each) for each in (row.main.scratch, row.main.finetuned, row.main.difference))]
        for row in rows
    ]
    trained = [
        [row.name, {"scratch": "scratch", "finetuned": start}[name], f"{each.steps:,}", f"{each.seconds:.0f}",
         f"{each.kept_step:,}", number(each.held_out_bits)]
        for row in rows
        for name, each in row.training.items()
    ]  # fmt: skip
    heads = ["training samples", "start", "steps", "seconds", "kept step", "bits per held-out frame"]
    side = f"{data['size_px']} x {data['size_px']} px"
    said = [
        f"{data['source']} at {side}: {metric_name(first.headline)} on {data['n']:,} of",
        f"{data.get('of', data['n']):,} test samples,",
        "the same for all, with 95 % intervals; the difference is that of pairs.",
        f"The floor is {number(first.main.floor)}.",
        f"Each model was trained for at most {config.minutes:g} minutes on {config.batch_size} samples a",
        f"step, by the same code; the peak learning rate is {rates['scratch']} from scratch",
        f"and {rates['finetuned']} from {start}.",
    ]
    return f"""# {config.task}: from {start} and from scratch

{" ".join(said)}

{_table(["training samples", "from scratch", f"from {start}", "difference"], table)}

How each was trained; the model with the fewest bits per held-out frame is kept:

{_table(heads, trained)}
"""


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *body))


def _draw(config: SampleEfficiencyConfig, rows: Sequence[Row], folder: Path) -> None:
    """The headline by the number of training samples, as PNG and SVG."""
    import matplotlib  # slow to import, and only needed here
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "transframer",
        "font.size": 9,
        "text.color": _INK,
    }
    settings |= {name: _SOFT for name in ("axes.labelcolor", "xtick.color", "ytick.color")}
    with matplotlib.rc_context(settings | {"axes.edgecolor": _RULE}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        _curves(figure, config, rows)
        for suffix, metadata in ((".png", {}), (".svg", {"Date": None})):
            with whole_file(folder / (STEM + suffix)) as temporary:
                figure.savefig(temporary, dpi=200, metadata=metadata)


def _curves(figure: Figure, config: SampleEfficiencyConfig, rows: Sequence[Row]) -> None:
    panel = figure.subplots()
    counts = [row.samples for row in rows]
    for name, label, color, line in (
        ("finetuned", f"from {Path(config.from_).name}", _ACCENT, "-"),
        ("scratch", "from scratch", _SOFT, "--"),
    ):
        estimates = [getattr(row.main, name) for row in rows]
        low, high = ([getattr(each, end) for each in estimates] for end in ("low", "high"))
        panel.fill_between(counts, low, high, color=color, alpha=0.15, linewidth=0)
        values = [each.value for each in estimates]
        panel.plot(counts, values, color=color, linestyle=line, linewidth=1.6, marker="o", ms=4, label=label)
    floor = rows[0].main.floor
    if math.isfinite(floor):
        panel.axhline(floor, color=_SOFT, linewidth=1, linestyle=":", label="floor")
    panel.set_xscale("log")
    panel.set_xticks(counts, [row.name.replace(" ", "\n") for row in rows])
    panel.set_xticks([], minor=True)
    panel.set_xlabel("training samples")
    panel.set_ylabel(metric_name(rows[0].headline))
    data = rows[0].protocols["finetuned"]["data"]["source"].partition(" ")[0]  # the format
    panel.set_title(f"{config.task.replace('_', ' ').capitalize()}, {data}", fontsize=10, loc="left", pad=24)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color=_RULE, linewidth=0.6)
    panel.tick_params(length=0)
    # Between the title and the panel: the curves may run anywhere inside it.
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.4, ncols=3, frameon=False)
