"""The results of a benchmark as a table: for a terminal, a log file and Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transframer.benchmarks.results import MetricResult, Sparsification, TaskResult
from transframer.benchmarks.statistics import Estimate

COLUMNS = (
    "task",
    "metric",
    "n",
    "floor",
    "model [95 % interval]",
    "ceiling",
    "against the floor",
    "bits/frame",
    "tokens/frame",
    "s/frame",
)
TEXT_COLUMNS = ("task", "metric", "against the floor")
RELIABILITY_COLUMNS = ("task", "uncertainty", "error", "AUSE [95 % interval]", "AUSE of a random order")


def number(value: float, reference: float | None = None) -> str:
    """A metric for people: three significant figures, at least; "n/a" for nan, the infinity sign for inf.

    Args:
        reference: a value whose decimals are used, so that an interval reads as one.

    >>> number(0.12345), number(21.337), number(1234.5), number(float("nan")), number(0.5, 12.0)
    ('0.123', '21.34', '1234', 'n/a', '0.50')
    """
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value if reference is None or not math.isfinite(reference) else reference)
    decimals = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:.{decimals}f}"


def interval(estimate: Estimate) -> str:
    """A value with its interval.

    >>> interval(Estimate(0.5, 0.4125, 0.6))
    '0.500 [0.412, 0.600]'
    """
    ends = ", ".join(number(end, estimate.value) for end in (estimate.low, estimate.high))
    return f"{number(estimate.value)} [{ends}]" if not math.isnan(estimate.low) else number(estimate.value)


def arrow(higher_is_better: bool) -> str:
    """Which way is better."""
    return "↑" if higher_is_better else "↓"


def metric_name(result: TaskResult) -> str:
    """The headline with its unit and the direction that is better."""
    unit = f" ({result.headline.unit})" if result.headline.unit else ""
    return f"{result.headline.name}{unit} {arrow(result.headline.higher_is_better)}"


def rows(results: Sequence[TaskResult]) -> list[list[str]]:
    """One row per task, in the order of `COLUMNS`."""
    return [
        [
            result.task,
            metric_name(result),
            str(len(result.per_sample)),
            number(result.main.floor),
            interval(result.main.model),
            number(result.main.ceiling),
            result.verdict,
            interval(result.bits_per_frame),
            f"{result.tokens_per_frame:.0f} ({result.target_tokens_per_frame:.0f})",
            f"{result.seconds_per_frame:.2g}",
        ]
        for result in results
    ]


def metric_rows(result: TaskResult) -> list[list[str]]:
    """Every metric of one task: name, floor, model, model - floor, ceiling."""

    def row(name: str, metric: MetricResult) -> list[str]:
        return [
            name,
            number(metric.floor),
            interval(metric.model),
            interval(metric.difference),
            number(metric.ceiling),
        ]

    return [row(name, metric) for name, metric in result.metrics.items()]


def reliability(found: Sparsification) -> str:
    """How well uncertainty foretells error, in one clause."""
    return f"AUSE {interval(found.ause)}, where 0 is best and a random order has {number(found.ause_random)}"


def reliability_rows(results: Sequence[TaskResult]) -> list[list[str]]:
    """One row per task whose sparsification was measured, in the order of `RELIABILITY_COLUMNS`."""
    measured = [(result.task, result.sparsification) for result in results if result.sparsification]
    return [
        [
            task,
            found.uncertainty.name,
            found.error.name,
            interval(found.ause),
            number(found.ause_random),
        ]
        for task, found in measured
    ]


def summary(results: Sequence[TaskResult]) -> str:
    """What the table says, in one sentence."""
    beaten = [result.task for result in results if result.verdict == "beats"]
    return f"The floor is beaten outside the 95 % interval on {len(beaten)} of {len(results)} tasks."


def footnotes(results: Sequence[TaskResult]) -> list[str]:
    """What a reader of the table must know, sentence by sentence."""
    machines = sorted({r.protocol["machine"]["device"] for r in results})
    batches = sorted({r.protocol["sampling"]["batch_size"] for r in results})
    fitted = sorted({r.protocol["floor"]["split"] for r in results})
    notes = [
        f"floor: the trivial prediction, fitted on {' or '.join(fitted)} samples. ceiling: the true target "
        "coded and decoded. Both on the same samples as the model.",
        "against the floor: beats or below where the floor lies outside the model's 95 % bootstrap interval, "
        "else ties.",
        "bits/frame: exact, of the true coded target. tokens/frame: DCT triples drawn (in the true target).",
        f"s/frame: sampling only, batch size {', '.join(map(str, batches))}, on {', '.join(machines)}.",
    ]
    notes += sorted({r.protocol["data"]["note"] for r in results if "note" in r.protocol["data"]})
    notes += [data_note(r.task, r.protocol["data"]) for r in results if "of" in r.protocol["data"]]
    for result in results:
        if result.sparsification:
            notes.append(f"{result.task}: {reliability(result.sparsification)}.")
        if result.nothing_to_judge:
            count, n = len(result.nothing_to_judge), len(result.per_sample)
            notes.append(f"{result.task}: {count} of {n} samples have nothing to judge on their own.")
        if result.main.model.undefined:
            notes.append(
                f"{result.task}: {result.main.model.undefined} of {result.resamples} resamples had nothing "
                "to judge and are left out of the interval."
            )
    return notes


def data_note(task: str, data: Mapping[str, Any]) -> str:
    """Which samples of a data set were measured, and by what protocol."""
    share = (
        f"all {data['of']:,}" if data["n"] == data["of"] else f"{data['n']:,} of {data['of']:,}, at random"
    )
    protocol = "".join(f" {topic}: {text}." for topic, text in data["protocol"].items())
    return f"{task}: {data['split']} samples of {data['source']}, {share}.{protocol}"


def plain(results: Sequence[TaskResult]) -> str:
    """An aligned table for a log file or a pipe."""
    body = rows(results)
    lines = [list(COLUMNS), *body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    aligned = [
        "  ".join(
            cell.ljust(width) if name in TEXT_COLUMNS else cell.rjust(width)
            for name, cell, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])


def markdown(results: Sequence[TaskResult], command: str) -> str:
    """A Markdown document: the command that made it, the table, its notes and every other metric."""
    lines = [
        "# Benchmark",
        "",
        "```",
        command,
        "```",
        "",
        summary(results),
        "",
        *_table(COLUMNS, rows(results), TEXT_COLUMNS),
    ]
    lines += ["", *(f"- {note}" for note in footnotes(results)), "", "## All metrics", ""]
    names = ("task", "metric", "floor", "model [95 % interval]", "model - floor [95 % interval]", "ceiling")
    every = [[result.task, *row] for result in results for row in metric_rows(result)]
    lines += [*_table(names, every, names[:2]), ""]
    if uncertain := reliability_rows(results):
        lines += ["## Uncertainty", ""]
        lines += [*_table(RELIABILITY_COLUMNS, uncertain, RELIABILITY_COLUMNS[:3]), ""]
    lines += ["## Protocol", ""]
    lines += [f"- {result.task}: `{result.digest}`" for result in results]
    return "\n".join([*lines, "", "The stamps behind these digests are in results.json.", ""])


def print_table(results: Sequence[TaskResult]) -> None:
    """Prints the table: in colour on a terminal, aligned plain text elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        print("\n".join([plain(results), "", *footnotes(results), summary(results)]))
        return
    table = Table(header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in TEXT_COLUMNS else "right")
    colours = {"beats": "green", "ties": "yellow", "below": "red", "undefined": "dim"}
    for result, row in zip(results, rows(results), strict=True):
        table.add_row(*row[:6], f"[{colours[result.verdict]}]{row[6]}[/]", *row[7:])
    console.print(table)
    for note in footnotes(results):
        console.print(note, style="dim", highlight=False)
    console.print(summary(results), style="bold", highlight=False)


def _table(names: Sequence[str], body: Sequence[Sequence[str]], text: Sequence[str]) -> list[str]:
    rule = [":--" if name in text else "--:" for name in names]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (names, rule, *body)
    ]
