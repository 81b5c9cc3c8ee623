"""Pieces of HTML that the sections of a report share."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from transframer.benchmarks.pictures import png_width

_DRAWN_PX = 150  # a picture as wide as this was drawn large, with text in it: it is not enlarged but legible
EMPHASISED, VERDICT = "model [95 % interval]", "against the floor"


def number_table(
    names: Sequence[str], body: Sequence[Sequence[str]], words: Sequence[str], *, wide: bool = False
) -> str:
    """A table of results, which scrolls where the page is narrow.

    Args:
        names: of the columns.
        body: rows of cells.
        words: the columns that hold words and not numbers.
        wide: as wide as the page.
    """
    kinds = {name: "" if name in words else "figure" for name in names}
    if EMPHASISED in kinds:
        kinds[EMPHASISED] += " model"
    heads = "".join(f'<th class="{kind}">{text(name)}</th>' for name, kind in kinds.items())
    lines = []
    for row in body:
        cells = (
            f'<td class="{cell if name == VERDICT else kind}">{text(cell)}</td>'
            for (name, kind), cell in zip(kinds.items(), row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    width = " wide" if wide else ""
    return f'<div class="scroll"><table class="numbers{width}"><tr>{heads}</tr>{"".join(lines)}</table></div>'


def figure(uri: str, what: str, caption: str | None = None) -> str:
    """A picture, with a line below it where there is something to say.

    Args:
        uri: from `pictures.data_uri`.
        what: it shows, for those who do not see it.
    """
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    kind = "drawn" if png_width(uri) >= _DRAWN_PX else "frame"
    return f'<figure><img class="{kind}" src="{uri}" alt="{text(what)}">{below}</figure>'


def prose(words: str) -> str:
    """Paragraphs of a docstring, with its `code` set as code.

    >>> prose("Of `a < b`,\\nthe first.")
    '<p>Of <code>a &lt; b</code>, the first.</p>'
    """
    marked = re.sub("`([^`]+)`", r"<code>\1</code>", text(words))
    return "".join(f"<p>{' '.join(part.split())}</p>" for part in marked.split("\n\n"))


def title(task: str) -> str:
    """A task's name for people.

    >>> title("optical_flow")
    'Optical flow'
    """
    return text(task.replace("_", " ").capitalize())


def text(value: str) -> str:
    """Any text, escaped for an element or an attribute."""
    return html.escape(value, quote=True)
