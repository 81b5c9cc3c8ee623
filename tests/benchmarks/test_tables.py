import dataclasses
import math
import re

import pytest

from transframer.benchmarks.notes import data_note, footnotes
from transframer.benchmarks.statistics import Estimate
from transframer.benchmarks.tables import COLUMNS, markdown, plain, print_table, rows, summary


@pytest.fixture
def results(toy_benchmark):
    return toy_benchmark()


def test_row_says_what_was_measured(results):
    row = dict(zip(COLUMNS, rows(results)[0], strict=True))
    assert row["task"] == "toy_doubling"
    assert row["metric"] == "mae (levels) ↓"
    assert row["n"] == "8"
    assert row["floor"] == "13.00"
    assert row["model [95 % interval]"].startswith("1.500 [")
    assert row["ceiling"] == "0.000"
    assert row["against the floor"] == "beats"
    assert row["tokens/frame"].startswith("7 (")


def test_markdown_tables_have_one_shape_and_name_the_command(results):
    text = markdown(results, "transframer benchmark run")
    assert "transframer benchmark run" in text
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE)
    assert len(tables) == 2
    for table, body in zip(tables, (1, 2), strict=True):  # one task; its two metrics
        lines = table.strip().splitlines()
        assert len(lines) == 2 + body
        assert len({line.count("|") for line in lines}) == 1
        assert re.fullmatch(r"\|( (:--|--:) \|)+", lines[1])


def test_plain_table_is_aligned_and_has_no_escape_codes(results, capsys):
    lines = plain(results).splitlines()
    assert len(lines) == 3
    assert lines[0].index("floor") + len("floor") == lines[2].index("13.00") + len("13.00")
    print_table(results)
    printed = capsys.readouterr().out
    assert lines[2] in printed
    assert "\x1b" not in printed
    assert "beaten outside the 95 % interval on 1 of 1 tasks" in printed


def test_undefined_values_and_samples_are_said(results):
    (result,) = results
    main = dataclasses.replace(result.main, model=Estimate(math.nan, math.nan, math.nan, 12))
    odd = dataclasses.replace(
        result, metrics={**result.metrics, "mae": main}, per_sample=[math.nan, 1.0, math.nan]
    )
    row = dict(zip(COLUMNS, rows([odd])[0], strict=True))
    assert row["model [95 % interval]"] == "n/a"
    assert row["against the floor"] == "undefined"
    notes = " ".join(footnotes([odd]))
    assert "2 of 3 samples have nothing to judge" in notes
    assert "12 of 1000 resamples" in notes
    assert "0 of 1 tasks" in summary([odd])


def test_what_to_know_of_the_data_is_said_once(toy_benchmark, toy_source):
    class Odd(type(toy_source)):
        def description(self, task):
            return {**super().description(task), "note": "One scene only."}

    results = 2 * toy_benchmark(source=Odd())
    assert footnotes(results).count("One scene only.") == 1


def test_which_samples_of_a_data_set_and_by_what_protocol():
    data = {"source": "nyu (here)", "split": "test", "n": 64, "of": 1654, "protocol": {"crop": "rows 1 to 2"}}
    said = "depth: test samples of nyu (here), 64 of 1,654, at random. crop: rows 1 to 2."
    assert data_note("depth", data) == said
    assert "all 64." in data_note("depth", {**data, "of": 64, "protocol": {}})
