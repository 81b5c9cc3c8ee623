"""The illustrated report: one HTML file that needs nothing outside itself."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transframer.benchmarks.curves import training_curves
from transframer.benchmarks.results import Picture, TaskResult
from transframer.benchmarks.style import CSS
from transframer.benchmarks.tables import (
    COLUMNS,
    TEXT_COLUMNS,
    footnotes,
    metric_name,
    metric_rows,
    number,
    rows,
    summary,
)

# The stretch of the floor-to-ceiling scale that a bar shows; what lies outside is drawn at its end.
_LEFT, _RIGHT = -0.3, 1.05


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
        _glance(results),
        _numbers(results, command),
        *(_task(result) for result in results),
        _training(run),
        _protocol(results),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(name)}: benchmark</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(results: Sequence[TaskResult], name: str) -> str:
    first = results[0].protocol
    memory = max(result.peak_memory_bytes for result in results) / 2**30
    accelerator = max(result.peak_accelerator_bytes for result in results) / 2**30
    sampling = first["sampling"]
    how = "greedy" if sampling["temperature"] == 0 else f"temperature {sampling['temperature']:g}"
    if sampling["top_p"] < 1 and sampling["temperature"] > 0:
        how += f", top-p {sampling['top_p']:g}"
    facts = {
        "Model": f"{first['model']['parameters'] / 1e6:.1f} M parameters",
        "Data": f"{first['data']['source']}, {first['data']['split']} split",
        "Frames": f"{first['data']['size_px']} x {first['data']['size_px']} px",
        "Samples per task": ", ".join(map(str, sorted({len(result.per_sample) for result in results}))),
        "Sampling": f"{how}, {sampling['samples_per_query']} per query",
        "Device": first["machine"]["device"],
        "Peak memory": f"{memory:.2f} GiB" + (f", GPU {accelerator:.2f} GiB" if accelerator else ""),
        "Weights": first["model"]["weights_sha256"][:12],
    }
    listed = "".join(
        f"<div><dt>{_text(key)}</dt><dd>{_text(value)}</dd></div>" for key, value in facts.items()
    )
    links = "".join(f'<a href="#{_text(result.task)}">{_title(result.task)}</a>' for result in results)
    return (
        f'<header><div class="eyebrow">Transframer benchmark</div><h1>{_text(name)}</h1>'
        f'<p class="lead">{_text(summary(results))}</p><dl class="facts">{listed}</dl>'
        f'<nav>{links}<a href="#training">Training</a><a href="#protocol">Protocol</a></nav></header>'
    )


def _glance(results: Sequence[TaskResult]) -> str:
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
            f'<div class="row"><a href="#{_text(result.task)}">{_title(result.task)}</a>{_bar(result)}'
            f'<span class="value">{_text(result.headline.name)} <b>{number(model.value)}</b>{spread}</span>'
            f'<span class="said {result.verdict}">{result.verdict}</span></div>'
        )
    return (
        f'<section class="glance">{"".join(lines)}<p class="small soft">Each scale runs from the trivial '
        "answer (floor) to the true target coded and decoded (ceiling), linear in the headline metric; the "
        "whisker is the model's 95 % bootstrap interval.</p></section>"
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
    ]
    if all(map(math.isfinite, ends)):
        low, high = sorted(map(_place, ends))
        parts += [_mark("span", low, high - low), _mark("cap", low), _mark("cap", high)]
    label = f"{at:.0%} of the way from floor to ceiling"
    return f'<div class="bar" role="img" aria-label="{label}" title="{label}">{"".join(parts)}</div>'


def _mark(kind: str, left: float, width: float | None = None) -> str:
    size = "" if width is None else f";width:{width:.2f}%"
    return f'<i class="{kind}" style="left:{left:.2f}%{size}"></i>'


def _place(value: float) -> float:
    """Per cent of a bar's width."""
    return 100 * (min(max(value, _LEFT), _RIGHT) - _LEFT) / (_RIGHT - _LEFT)


def _numbers(results: Sequence[TaskResult], command: str) -> str:
    notes = "".join(f"<li>{_text(note)}</li>" for note in footnotes(results))
    table = _table(COLUMNS, rows(results), [column in TEXT_COLUMNS for column in COLUMNS])
    return f'<h2>Results</h2>{table}<ul class="notes">{notes}</ul><pre>{_text(command)}</pre>'


def _task(result: TaskResult) -> str:
    names = ("metric", "floor", "model [95 % interval]", "model - floor [95 % interval]", "ceiling")
    metrics = _table(names, metric_rows(result), [True] + 4 * [False])
    seen = "".join(_picture(picture, result.headline.name) for picture in result.pictures)
    columns = ["", "context", "truth", "prediction", "floor", "ceiling"]
    columns += ["uncertainty"] if any(picture.uncertainty for picture in result.pictures) else []
    heads = "".join(f"<th>{column}</th>" for column in columns)
    return (
        f'<section><h3 id="{_text(result.task)}">{_title(result.task)}</h3>'
        f'<div class="definitions">{_prose(result.definitions)}</div>{metrics}'
        f'<div class="scroll"><table class="pictures"><tr>{heads}</tr>{seen}</table></div>'
        f'<p class="small soft">Samples: best, median and worst of {len(result.per_sample)} by '
        f"{_text(metric_name(result))} of the sample alone, and others drawn at random.</p></section>"
    )


def _picture(picture: Picture, metric: str) -> str:
    scores = "<br>".join(f"{_text(who)} {number(value)}" for who, value in picture.scores.items())
    cells = [f'<div class="frames">{"".join(_image(uri, "context frame") for uri in picture.context)}</div>']
    for what in ("truth", "model", "floor", "ceiling"):
        cells.append(_image(getattr(picture, what), f"{what} of sample {picture.index}"))
    if picture.uncertainty:
        image = _image(picture.uncertainty, f"uncertainty of sample {picture.index}")
        caption = f"std 0 to {picture.uncertainty_max:.0f} of 255"
        cells.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    about = f"sample {picture.index}<br>{_text(metric)}<br>{scores}"
    which = f'<b>{picture.chosen_as}</b><span class="soft">{about}</span>'
    return f'<tr><td class="which">{which}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _image(uri: str, what: str) -> str:
    return f'<img src="{uri}" alt="{_text(what)}">'


def _training(run: Path) -> str:
    svg = training_curves(run / "metrics.jsonl")
    curve = (
        f'<p class="soft">Nats per token of each task on the training stream, before each update.</p>'
        f'<div class="curves">{svg}</div>'
        if svg
        else '<p class="soft">No metrics.jsonl beside these weights, so no training curve.</p>'
    )
    settings = run / "config.yaml"
    written = f"<pre>{_text(settings.read_text(encoding='utf-8'))}</pre>" if settings.is_file() else ""
    config = f"<details><summary>Settings of the run</summary>{written}</details>" if written else ""
    return f'<section id="training"><h2>Training</h2>{curve}{config}</section>'


def _protocol(results: Sequence[TaskResult]) -> str:
    stamps = [result.protocol for result in results]
    shared = {key: value for key, value in stamps[0].items() if all(s.get(key) == value for s in stamps)}
    lines = "".join(
        f"<tr><td>{_text(name)}</td><td>{_text(str(value))}</td></tr>" for name, value in _flat("", shared)
    )
    each = "".join(
        f"<details><summary>{_title(result.task)}, stamp {result.digest}</summary>"
        f"<pre>{_text(json.dumps(result.protocol, indent=1))}</pre></details>"
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


def _table(names: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    kinds = ["" if is_left else "figure" for is_left in left]
    kinds[names.index("model [95 % interval]")] += " model"
    heads = "".join(f'<th class="{kind}">{_text(name)}</th>' for kind, name in zip(kinds, names, strict=True))
    lines = []
    for row in body:
        cells = (
            f'<td class="{cell if name == "against the floor" else kind}">{_text(cell)}</td>'
            for name, kind, cell in zip(names, kinds, row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table class="numbers"><tr>{heads}</tr>{"".join(lines)}</table></div>'


def _prose(text: str) -> str:
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    marked = (re.sub("`([^`]+)`", r"<code>\1</code>", _text(paragraph)) for paragraph in paragraphs)
    return "".join(f"<p>{paragraph}</p>" for paragraph in marked)


def _title(task: str) -> str:
    return _text(task.replace("_", " ").capitalize())


def _text(value: str) -> str:
    return html.escape(value, quote=True)
