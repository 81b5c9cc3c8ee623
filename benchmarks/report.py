"""The illustrated report: one HTML file that needs nothing outside itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transframer.benchmarks.bars import glance
from transframer.benchmarks.curves import training_curves
from transframer.benchmarks.markup import figure, number_table, prose, text, title
from transframer.benchmarks.notes import footnotes
from transframer.benchmarks.numbers import metric_name, number
from transframer.benchmarks.report_parts import autoencoder_section, rollout_section, sparsification_section
from transframer.benchmarks.results import Picture, TaskResult
from transframer.benchmarks.style import CSS
from transframer.benchmarks.tables import (
    TEXT_COLUMNS,
    columns,
    metric_columns,
    metric_rows,
    rows,
    summary,
)

_GRID_PX, _GAP_PX = 1020, 14  # the page's width but for the first column; padding of a cell


def html_report(results: Sequence[TaskResult], command: str, run: Path) -> str:
    """The report as an HTML document without scripts and without links to anything outside.

    Args:
        results: of all tasks, in the order to show them.
        command: the command line that made them.
        run: the run folder; its metrics.jsonl gives the training curve, its config.yaml the settings.
    """
    name = run.resolve().name
    sections = [
        _header(results, name),
        glance(results),
        _numbers(results, command),
        *(_task(result) for result in results),
        _training(run),
        _protocol(results),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(name)}: benchmark</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(results: Sequence[TaskResult], name: str) -> str:
    first = results[0].protocol
    memory = max(result.peak_memory_bytes for result in results) / 2**30
    accelerator = max(result.peak_accelerator_bytes for result in results) / 2**30
    bound = any(result.likelihood == "bound" for result in results)
    facts = {
        "Model": f"{first['model']['parameters']:,} parameters",
        "Data": f"{first['data']['source']}, {first['data']['split']} split",
        "Frames": f"{first['data']['size_px']} x {first['data']['size_px']} px",
        "Samples per task": ", ".join(map(str, sorted({len(result.per_sample) for result in results}))),
        "Sampling": _sampling(results),
        "Likelihood": "lower bound: bits/frame are at most" if bound else "exact",
        "Device": first["machine"]["device"],
        "Peak memory": f"{memory:.2f} GiB" + (f", GPU {accelerator:.2f} GiB" if accelerator else ""),
        "Weights": first["model"]["weights_sha256"][:12],
    }
    listed = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in facts.items())
    links = "".join(f'<a href="#{text(result.task)}">{title(result.task)}</a>' for result in results)
    return (
        f'<header><div class="eyebrow">Transframer benchmark</div><h1>{text(name)}</h1>'
        f'<p class="lead">{text(summary(results))}</p><dl class="facts">{listed}</dl>'
        f'<nav>{links}<a href="#training">Training</a><a href="#protocol">Protocol</a></nav></header>'
    )


def _sampling(results: Sequence[TaskResult]) -> str:
    """How frames were drawn: in one phrase where all tasks agree, else with the tasks of each."""
    tasks: dict[str, list[str]] = {}
    for result in results:
        settings = result.protocol["sampling"]
        count, temperature, top_p = (settings[key] for key in ("samples_per_query", "temperature", "top_p"))
        how = f"temperature {temperature:g}" if temperature else "each task's point estimate"
        how += f", top-p {top_p:g}" if top_p < 1 and temperature > 0 else ""
        tasks.setdefault(f"{how}, {count} per query", []).append(result.task)
    if len(tasks) == 1:
        return next(iter(tasks))
    usual = max(tasks, key=lambda how: len(tasks[how]))
    others = (f"{', '.join(names)}: {how}" for how, names in tasks.items() if how != usual)
    return "; ".join([usual, *others])


def _numbers(results: Sequence[TaskResult], command: str) -> str:
    notes = "".join(f"<li>{text(note)}</li>" for note in footnotes(results))
    table = number_table(columns(results), rows(results), TEXT_COLUMNS, wide=True)
    return f'<h2>Results</h2>{table}<ul class="notes">{notes}</ul><pre>{text(command)}</pre>'


def _task(result: TaskResult) -> str:
    names = metric_columns([result])
    metrics = number_table(names, metric_rows(result, names), names[:1])
    drawn = ["model", *(["specialist"] if result.specialist else []), "floor", "ceiling"]
    seen = "".join(_picture(picture, result.headline.name, drawn) for picture in result.pictures)
    shown_as = ["", "context", "truth", "prediction", *drawn[1:]]
    several = result.protocol["sampling"]["samples_per_query"]
    shown_as += ["uncertainty"] if several > 1 else []
    shown = [picture.uncertainty_name for picture in result.pictures if picture.uncertainty]
    spread = f" Uncertainty: {shown[0]} over the {several} frames drawn." if shown else ""
    heads = "".join(f"<th>{column}</th>" for column in shown_as)
    # As large as lets a row fit the page; beyond 5 frames of context it scrolls.
    across = len(shown_as) - 2 + max((len(picture.context) for picture in result.pictures), default=1)
    width = min(168, max(96, _GRID_PX // across - _GAP_PX))
    return (
        f'<section><h3 id="{text(result.task)}">{title(result.task)}</h3>'
        f'<div class="definitions">{prose(result.definitions)}</div>{metrics}'
        f'<div class="scroll" style="--width:{width}px"><table class="pictures">'
        f"<tr>{heads}</tr>{seen}</table></div>"
        f'<p class="small soft">Samples: best, median and worst of {len(result.per_sample)} by '
        f"{text(metric_name(result.headline))} of the sample alone, and others drawn at random."
        f"{text(spread)}</p>"
        f"{sparsification_section(result)}{rollout_section(result)}{autoencoder_section(result)}</section>"
    )


def _picture(picture: Picture, metric: str, drawn: Sequence[str]) -> str:
    scores = "<br>".join(f"{text(who)} {number(value)}" for who, value in picture.scores.items())
    *times, query_time = (None if time is None else f"t = {time:.3g}" for time in picture.times)
    context = (
        figure(uri, f"context frame of sample {picture.index}", time)
        for uri, time in zip(picture.context, times, strict=True)
    )
    cells = [f'<div class="frames">{"".join(context)}</div>']
    cells.append(figure(picture.truth, f"truth of sample {picture.index}", query_time))
    for what in drawn:
        cells.append(figure(getattr(picture, what), f"{what} of sample {picture.index}"))
    if picture.uncertainty:
        scale = f"0 to {picture.uncertainty_max:.3g} {picture.uncertainty_unit}".strip()
        cells.append(figure(picture.uncertainty, f"uncertainty of sample {picture.index}", scale))
    about = f"sample {picture.index}<br>{text(metric)}<br>{scores}"
    which = f'<b>{picture.chosen_as}</b><span class="soft">{about}</span>'
    return f'<tr><td class="which">{which}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _training(run: Path) -> str:
    svg = training_curves(run / "metrics.jsonl")
    curve = (
        '<p class="soft">Nats per token of each task on the training stream, before each update.</p>'
        f'<div class="curves">{svg}</div>'
        if svg
        else '<p class="soft">No metrics.jsonl beside these weights, so no training curve.</p>'
    )
    settings = run / "config.yaml"
    written = f"<pre>{text(settings.read_text(encoding='utf-8'))}</pre>" if settings.is_file() else ""
    config = f"<details><summary>Settings of the run</summary>{written}</details>" if written else ""
    return f'<section id="training"><h2>Training</h2>{curve}{config}</section>'


def _protocol(results: Sequence[TaskResult]) -> str:
    first, *others = (dict(_flat("", result.protocol)) for result in results)
    shared = {name: value for name, value in first.items() if all(o.get(name) == value for o in others)}
    lines = "".join(f"<tr><td>{text(name)}</td><td>{text(str(v))}</td></tr>" for name, v in shared.items())
    each = "".join(
        f"<details><summary>{title(result.task)}, stamp {result.digest}</summary>"
        f"<pre>{text(json.dumps(result.protocol, indent=1))}</pre></details>"
        for result in results
    )
    return (
        '<section id="protocol"><h2>Protocol</h2><p class="soft">A result is stamped with all that it '
        "depends on; equal stamps mean equal numbers. Training samples serve to fit the floors and nothing "
        "else. No sample is skipped. Shared by all tasks:</p>"
        f'<div class="scroll"><table>{lines}</table></div>{each}</section>'
    )


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [row for key, item in value.items() for row in _flat(f"{prefix} {key}".strip(), item)]
