"""The Markdown report of speeds."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def markdown(record: Mapping[str, Any]) -> str:
    """The report of what `transframer.benchmarks.speed` recorded."""
    sections = ["# Speed", _machine(record)]
    for part, rows in record["parts"].items():
        if rows:
            sections.append(f"## {part.capitalize()}\n\n{_NOTES[part]}\n\n{_TABLES[part](rows)}")
    return "\n\n".join(sections) + "\n"


def table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [heads, *body]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "---|" * len(heads), *rows[1:]])


def number(value: float) -> str:
    """Three digits, more for what is large.

    >>> number(1234.5), number(0.01234), number(12.34)
    ('1,234', '0.0123', '12.3')
    """
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def spread(values: Mapping[str, float | None] | None) -> str:
    """Median and range, as far as they are known.

    >>> spread({"median": 2.0, "low": 1.0, "high": 4.0}), spread(None)
    ('2.00 [1.00, 4.00]', '')
    """
    if values is None:
        return ""
    median, low, high = (values[name] for name in ("median", "low", "high"))
    if median is None or low is None or high is None:
        return "" if median is None else number(median)
    return f"{number(median)} [{number(low)}, {number(high)}]"


def _machine(record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    code = machine["code"]
    commit = (code["commit"] or "unknown") + (", with changes" if code["dirty"] else "")
    facts = {
        "processor": f"{machine['processor']}, {machine['cores']} cores",
        "caches": ", ".join(f"{name} {size}" for name, size in machine["caches"].items()),
        "device": f"{machine['device']}, {machine['threads']} threads",
        "system": f"{machine['system']}, Python {machine['python']}",
        "packages": ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
        "commit": commit,
        "time": machine["time"],
        "rates and ratios by": record["clock"],
    }
    if measured := machine.get("measured"):
        for name, key, what in (
            ("memory bandwidth", "memory_bytes_per_s", "GB/s, reading 512 MiB"),
            ("matrix products", "matrix_flops_per_s", "GFLOP/s in fp32"),
        ):
            facts[name] = spread({k: v / 1e9 for k, v in measured[key].items()}) + f" {what}"
    facts |= dict(record["missing"])
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)
    settings = ", ".join(f"{key} {_plain(value)}" for key, value in record["settings"].items())
    how = "Medians over the rounds, with the smallest and the largest; all of one line's group take turns."
    return f"{how} Settings: {settings}.\n\n{lines}"


def _plain(value: Any) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)


def _sampling(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["size", "who", "decoding, tokens/s", "wall clock", "ours / this", "encoded too, tokens/s"]
    heads += ["ours / this", "s/frame", "encoding, s/frame", "parameters M: all, decoder, read"]
    heads += ["limit from memory", "from cache", "of it"]
    body = []
    for row in rows:
        facts = row["facts"]
        sizes = (facts[key] / 1e6 for key in ("parameters", "decoder_parameters", "read_parameters"))
        body.append(
            [
                row["what"],
                row["who"],
                spread(row["rate"]),
                spread(row["wall"]),
                spread(row["ratio"]),
                number(facts["whole_tokens_per_s"]["median"]),
                spread(facts.get("whole_ratio")),
                number(facts["seconds_per_frame"]["median"]),
                number(facts["encoding_seconds_per_frame"]["median"]),
                ", ".join(map(number, sizes)),
                number(facts["limit_from_memory"]),
                number(facts["limit_from_cache"]),
                f"{row['rate']['median'] / facts['limit_from_cache']:.0%}",
            ]
        )
    return table(heads, body)


def _training(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["size", "who", "tokens/s", "wall clock", "ours / this", "frames/s", "parameters M"]
    heads += ["limit from products, tokens/s", "of it"]
    body = [
        [
            row["what"],
            row["who"],
            spread(row["rate"]),
            spread(row["wall"]),
            spread(row["ratio"]),
            spread(row["facts"]["frames_per_s"]),
            number(row["facts"]["parameters"] / 1e6),
            *_of_limit(row),
        ]
        for row in rows
    ]
    return table(heads, body)


def _of_limit(row: Mapping[str, Any]) -> tuple[str, str]:
    limit = row["facts"].get("limit_from_products")
    return ("", "") if limit is None else (number(limit), f"{row['rate']['median'] / limit:.0%}")


def _rates(rows: Sequence[Mapping[str, Any]]) -> str:
    body = [
        [
            row["what"],
            row["who"],
            spread(row["rate"]),
            spread(row["wall"]),
            spread(row["ratio"]),
        ]
        for row in rows
    ]
    return table(["what", "who", "frames/s", "wall clock", "ours / this"], body)


def _codec(rows: Sequence[Mapping[str, Any]]) -> str:
    body = [[row["what"], row["who"], spread(row["rate"]), spread(row["ratio"])] for row in rows]
    return table(["what", "who", "frames/s", "ours / this"], body)


def _memory(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["what", "size", "who", "batch", "peak MiB", "of these before the model", "on the device"]
    body = [
        [
            row["what"],
            row["preset"],
            row["who"],
            str(row["batch"]),
            number(row["peak_mib"]),
            number(row["before_mib"]),
            number(row["peak_gpu_mib"]) if "peak_gpu_mib" in row else "",
        ]
        for row in rows
    ]
    return table(heads, body)


_TABLES: dict[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {
    "sampling": _sampling,
    "training": _training,
    "codec": _codec,
    "world": _rates,
    "memory": _memory,
}

_NOTES = {
    "sampling": "Random weights, frames of 64 px, fp32. A token is an event of ours, which reads all "
    "decoders once. The limits: the bytes of weights and caches that a token reads, over the bandwidth of "
    "the memory and over that of an array as large as the weights, which may lie in a cache; or its "
    "products, where they take longer. Peers have our decoder's parameters within 1 %; those with a key and "
    "value for each head read fewer of them, as more of them project the encoder's vectors once a frame.",
    "training": "A step of ours is loss, gradient and update, frames of all tasks in turns; a token is an "
    "event that was scored. The limit: the matrix products and convolutions of the step over the rate of a "
    "large product in the same precision; what is reached of it is the model FLOP utilisation. Beside the "
    "plain decoder (same U-Net, as many parameters) no update is made; `tasks` are "
    "frames of all tasks in turns, `long` ones fill their chunk. One thread, processor time.",
    "codec": "Photographs at quality 50, 4:2:0, one thread, processor time. Encode: RGB to triples; decode: "
    "back; from files: JPEG files to grids. The peers encode to a file (simplejpeg) or to non-zero "
    "coefficients (scipy).",
    "world": "Frames of 64 px rendered with these labels, by one worker.",
    "memory": "Each in a process of its own: a batch is drawn, or one training step made.",
}
