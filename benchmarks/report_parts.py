"""The sections of a report that only some measurements have: sparsification, rollouts, an autoencoder."""

from __future__ import annotations

from transframer.benchmarks.curves import drift_curves, sparsification_curve
from transframer.benchmarks.markup import figure, number_table, text
from transframer.benchmarks.notes import reliability, rollout_notes
from transframer.benchmarks.parts import Strip
from transframer.benchmarks.results import TaskResult
from transframer.benchmarks.tables import (
    CODEBOOK_COLUMNS,
    CODEC_COLUMNS,
    ROLLOUT_COLUMNS,
    codebook_rows,
    codec_rows,
    rollout_rows,
)

_STRIP_PX = 112  # eight of them and the names of the rows fit the page


def sparsification_section(result: TaskResult) -> str:
    """The curves of what remains as uncertain pixels are removed; empty where none were measured."""
    if result.sparsification is None:
        return ""
    found = result.sparsification
    return (
        f'<figure class="sparsification">{sparsification_curve(found)}<figcaption>Sparsification: the mean '
        f"error of the pixels that remain when others are removed, by {text(found.uncertainty.name)}, by the "
        f"error itself (oracle) or at random; {found.pixels:,} pixels. {text(reliability(found))}."
        "</figcaption></figure>"
    )


def rollout_section(result: TaskResult) -> str:
    """Curves of the drift of drawn videos, their numbers and one video; empty where none were drawn."""
    found = result.rollout
    if found is None:
        return ""
    notes = "".join(f"<li>{text(note[0].upper() + note[1:])}</li>" for note in rollout_notes(found))
    strip = _strip(found.strip) if found.strip else ""
    return (
        f'<h4>Rollouts</h4><ul class="notes">{notes}</ul>'
        f'<figure class="drift">{drift_curves(found)}<figcaption>By steps after the prompt, with 95 % '
        f"intervals over the {found.videos} videos. Dashed: the last prompt frame repeated; for sharpness, "
        "which is the mean gradient of the drawn frames over that of the true ones, the truth."
        f"</figcaption></figure>{strip}<details><summary>Numbers</summary>"
        f"{number_table(ROLLOUT_COLUMNS, rollout_rows(found), (ROLLOUT_COLUMNS[0], ROLLOUT_COLUMNS[-1]))}"
        "</details>"
    )


def autoencoder_section(result: TaskResult) -> str:
    """What the model's code keeps and at what rate, beside JPEG; empty of a model without an autoencoder."""
    found = result.autoencoder
    if found is None:
        return ""
    return (
        f"<h4>Autoencoder</h4>{number_table(CODEC_COLUMNS, codec_rows(found), CODEC_COLUMNS[:1])}"
        f"{number_table(CODEBOOK_COLUMNS, codebook_rows(found), ())}"
        f'<p class="small soft">Of {found.images} true targets, coded and decoded. JPEG: entropy-coded data '
        "alone, without headers and tables, interpolated between qualities in the logarithm of the rate. "
        "Perplexity: exp of the entropy of the codes.</p>"
    )


def _strip(strip: Strip) -> str:
    heads = "".join(f"<th>{'+' if place else 'step +'}{step}</th>" for place, step in enumerate(strip.steps))
    lines = []
    for name, uris in (("truth", strip.truth), ("drawn", strip.drawn)):
        cells = "".join(
            f"<td>{figure(uri, f'{name}, {step} steps after the prompt')}</td>"
            for step, uri in zip(strip.steps, uris, strict=True)
        )
        lines.append(f'<tr><td class="which"><b>{name}</b></td>{cells}</tr>')
    return (
        f'<div class="scroll" style="--width:{_STRIP_PX}px"><table class="pictures strip">'
        f'<tr><th class="soft">video {strip.video}</th>{heads}</tr>{"".join(lines)}</table></div>'
    )
