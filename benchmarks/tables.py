"""The results of a benchmark as a table: for a terminal, a log file and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from transframer.benchmarks.notes import footnotes
from transframer.benchmarks.numbers import interval, metric_name, number, times
from transframer.benchmarks.parts import AutoencoderResult, RolloutResult
from transframer.benchmarks.results import MetricResult, TaskResult

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
SPECIALIST_COLUMN, SHARE_COLUMN = "specialist [95 % interval]", "of the specialist"
METRIC_COLUMNS = ("metric", "floor", "model [95 % interval]", "model - floor [95 % interval]", "ceiling")
VERSUS_COLUMN = "model - specialist [95 % interval]"
TEXT_COLUMNS = ("task", "metric", "against the floor")
ROLLOUT_COLUMNS = ("measure", "steps ahead", "model [95 % interval]", "reference", "of")
CODEC_COLUMNS = ("code", "bits/frame", "psnr (dB)", "ssim")
CODEBOOK_COLUMNS = ("codebook", "codes", "used", "perplexity")
RELIABILITY_COLUMNS = ("task", "uncertainty", "error", "AUSE [95 % interval]", "AUSE of a random order")


def columns(results: Sequence[TaskResult]) -> tuple[str, ...]:
    """`COLUMNS`, with those of specialists where any was measured."""
    if not any(result.specialist for result in results):
        return COLUMNS
    names = list(COLUMNS)
    names.insert(names.index("floor") + 1, SPECIALIST_COLUMN)
    names.insert(names.index("against the floor") + 1, SHARE_COLUMN)
    return tuple(names)


def rows(results: Sequence[TaskResult]) -> list[list[str]]:
    """One row per task, in the order of `columns`."""
    names = columns(results)
    lines = []
    for result in results:
        share = times(result.of_specialist, result.headline.higher_is_better)
        cells = {
            "task": result.task,
            "metric": metric_name(result.headline),
            "n": str(len(result.per_sample)),
            "floor": number(result.main.floor),
            SPECIALIST_COLUMN: interval(result.main.specialist),
            "model [95 % interval]": interval(result.main.model),
            "ceiling": number(result.main.ceiling),
            "against the floor": result.verdict,
            SHARE_COLUMN: share if result.specialist else "none",
            "bits/frame": ("≤ " if result.likelihood == "bound" else "") + interval(result.bits_per_frame),
            "tokens/frame": f"{result.tokens_per_frame:.0f} ({result.target_tokens_per_frame:.0f})",
            "s/frame": f"{result.seconds_per_frame:.2g}",
        }
        lines.append([cells[name] for name in names])
    return lines


def metric_columns(results: Sequence[TaskResult]) -> tuple[str, ...]:
    """`METRIC_COLUMNS`, with those of specialists where any was measured."""
    if not any(result.specialist for result in results):
        return METRIC_COLUMNS
    name, floor, model, difference, ceiling = METRIC_COLUMNS
    return name, floor, SPECIALIST_COLUMN, model, difference, VERSUS_COLUMN, ceiling


def metric_rows(result: TaskResult, names: Sequence[str]) -> list[list[str]]:
    """Every metric of one task.

    Args:
        names: of the columns, from `metric_columns` of all tasks that share the table.
    """

    def row(name: str, metric: MetricResult) -> list[str]:
        cells = {
            "metric": name,
            "floor": number(metric.floor),
            SPECIALIST_COLUMN: interval(metric.specialist),
            "model [95 % interval]": interval(metric.model),
            "model - floor [95 % interval]": interval(metric.difference),
            VERSUS_COLUMN: interval(metric.versus),
            "ceiling": number(metric.ceiling),
        }
        return [cells[name] for name in names]

    return [row(name, metric) for name, metric in result.metrics.items()]


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


def rollout_rows(found: RolloutResult) -> list[list[str]]:
    """Every measure at 1, 2, 4, ... steps ahead and at the last, in the order of `ROLLOUT_COLUMNS`."""
    steps = sorted({2**power for power in range(found.frames.bit_length())} | {found.frames})
    return [
        [
            f"{curve.name} ({curve.unit})" if curve.unit else curve.name,
            str(step),
            interval(curve.model[step - 1]),
            number(curve.reference[step - 1]),
            curve.reference_name,
        ]
        for curve in found.curves
        for step in steps
    ]


def codec_rows(found: AutoencoderResult) -> list[list[str]]:
    """The autoencoder, its codes at their entropy, and JPEG at the nominal rate: `CODEC_COLUMNS`."""
    quality = [number(found.psnr), number(found.ssim)]
    if found.jpeg_psnr is None or found.jpeg_ssim is None:
        low, high = (f"{bits:,.0f}" for bits in (found.jpeg[0].bits, found.jpeg[-1].bits))
        jpeg = [f"JPEG has {low} to {high} bits: no equal rate", "n/a", "n/a", "n/a"]
    else:
        jpeg = ["JPEG at the same rate", f"{found.nominal_bits:,.0f}"]
        jpeg += [number(found.jpeg_psnr), number(found.jpeg_ssim)]
    return [
        ["autoencoder, codes equally likely", f"{found.nominal_bits:,.0f}", *quality],
        ["autoencoder, codes at their entropy", f"{found.entropy_bits:,.0f}", *quality],
        jpeg,
    ]


def codebook_rows(found: AutoencoderResult) -> list[list[str]]:
    """One row per codebook, in the order of `CODEBOOK_COLUMNS`."""
    return [
        [str(place), f"{book.codes:,}", f"{book.used:.1%}", number(book.perplexity)]
        for place, book in enumerate(found.codebooks, 1)
    ]


def summary(results: Sequence[TaskResult]) -> str:
    """What the table says: a sentence on the floor, and one on the specialists where any were measured."""
    beaten = [result.task for result in results if result.verdict == "beats"]
    said = f"The floor is beaten outside the 95 % interval on {len(beaten)} of {len(results)} tasks."
    rivals = [result for result in results if result.specialist]
    if not rivals:
        return said
    near = sum(result.near_specialist for result in rivals)
    ahead, behind = (sum(r.against_specialist == how for r in rivals) for how in ("beats", "below"))
    return (
        f"{said} 90 % of the specialist's score (at most 1.1 times its error) is reached on {near} of "
        f"{len(rivals)}; outside the paired 95 % interval the model is ahead of it on {ahead} and behind on "
        f"{behind}."
    )


def plain(results: Sequence[TaskResult]) -> str:
    """An aligned table for a log file or a pipe."""
    names = columns(results)
    lines = [list(names), *rows(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    aligned = [
        "  ".join(
            cell.ljust(width) if name in TEXT_COLUMNS else cell.rjust(width)
            for name, cell, width in zip(names, line, widths, strict=True)
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
        *_table(columns(results), rows(results), TEXT_COLUMNS),
    ]
    lines += ["", *(f"- {note}" for note in footnotes(results)), "", "## All metrics", ""]
    names = metric_columns(results)
    every = [[result.task, *row] for result in results for row in metric_rows(result, names)]
    lines += [*_table(("task", *names), every, ("task", "metric")), ""]
    if uncertain := reliability_rows(results):
        lines += ["## Uncertainty", ""]
        lines += [*_table(RELIABILITY_COLUMNS, uncertain, RELIABILITY_COLUMNS[:3]), ""]
    for result in results:
        if result.rollout:
            lines += [f"## Rollouts of {result.task}", ""]
            words = (ROLLOUT_COLUMNS[0], ROLLOUT_COLUMNS[-1])
            lines += [*_table(ROLLOUT_COLUMNS, rollout_rows(result.rollout), words), ""]
        if result.autoencoder:
            lines += [f"## Autoencoder on {result.autoencoder.images} targets of {result.task}", ""]
            lines += [*_table(CODEC_COLUMNS, codec_rows(result.autoencoder), CODEC_COLUMNS[:1]), ""]
            lines += [*_table(CODEBOOK_COLUMNS, codebook_rows(result.autoencoder), ()), ""]
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
    names = columns(results)
    for name in names:
        table.add_column(name, justify="left" if name in TEXT_COLUMNS else "right")
    colours = {"beats": "green", "ties": "yellow", "below": "red", "undefined": "dim"}
    for result, row in zip(results, rows(results), strict=True):
        coloured = f"[{colours[result.verdict]}]{result.verdict}[/]"
        cells = zip(names, row, strict=True)
        table.add_row(*(coloured if name == "against the floor" else cell for name, cell in cells))
    console.print(table)
    for note in footnotes(results):
        console.print(note, style="dim", highlight=False)
    console.print(summary(results), style="bold", highlight=False)


def _table(names: Sequence[str], body: Sequence[Sequence[str]], text: Sequence[str]) -> list[str]:
    rule = [":--" if name in text else "--:" for name in names]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (names, rule, *body)
    ]
