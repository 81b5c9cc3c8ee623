import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import pytest

from transframer.benchmarks.curves import read_curves, training_curves
from transframer.benchmarks.report import html_report
from transframer.benchmarks.statistics import Estimate

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects images, ids and every address, and checks that elements are nested as they are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.ids, self.addresses, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.addresses += [values[name] for name in ("src", "href", "xlink:href", "data") if name in values]
        self.addresses += re.findall(r"url\(([^)]*)\)", values.get("style") or "")
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "img":
            self.images.append(values)
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "style":
            assert "@import" not in data
            assert "url(" not in data


def read(document):
    reader = Reader()
    reader.feed(document)
    assert reader.open == []
    return reader


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my <run>"
    folder.mkdir()
    lines = [
        {
            "kind": "train",
            "step": i,
            "seconds": 30.0 * i,
            "tasks": {"toy_doubling": {"nats_per_event": 3 / i}},
        }
        for i in range(1, 20)
    ]
    lines.append({"kind": "validation", "step": 20, "seconds": 600.0, "tasks": {}})
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"kind": "tra'
    (folder / "metrics.jsonl").write_text(text)
    (folder / "config.yaml").write_text("preset: tiny\nnote: a < b\n")
    return folder


@pytest.fixture
def results(toy_benchmark):
    (first,) = toy_benchmark(samples_per_query=2)
    return [first, dataclasses.replace(first, task="another_task")]


def test_report_shows_every_task_and_picture_and_needs_nothing_outside(results, run):
    reader = read(html_report(results, "transframer benchmark run --samples 8", run))
    for result in results:
        assert result.task in reader.ids
        expected = {
            uri
            for picture in result.pictures
            for uri in (
                *picture.context, picture.truth, picture.model, picture.floor, picture.ceiling,
                picture.uncertainty,
            )
        }  # fmt: skip
        assert expected <= {image["src"] for image in reader.images}
    per_row = 6  # context, truth, prediction, floor, ceiling, uncertainty
    assert len(reader.images) == per_row * sum(len(result.pictures) for result in results)
    assert all(image["alt"] for image in reader.images)
    for address in reader.addresses:
        assert address.startswith(("data:image/png;base64,", "#")), address
    targets = {address[1:] for address in reader.addresses if address.startswith("#")}
    assert targets <= set(reader.ids)


def test_report_says_how_it_was_measured(results, run):
    document = html_report(results, "transframer benchmark run --samples 8", run)
    text = " ".join(" ".join(read(document).text).split())
    assert "my <run>" in text
    assert "transframer benchmark run --samples 8" in text
    assert "Doubles a grey level ." in text
    assert "is the mean absolute error" in text
    assert "preset: tiny note: a < b" in text
    assert results[0].digest in text
    assert results[0].protocol["model"]["weights_sha256"] in text
    assert "best" in text
    assert "worst" in text
    assert "<svg" in document


def test_report_without_training_curve_or_scale_says_so(results, tmp_path):
    main = dataclasses.replace(
        results[0].main, model=Estimate(math.nan, math.nan, math.nan), ceiling=results[0].main.floor
    )
    odd = dataclasses.replace(results[0], metrics={**results[0].metrics, "mae": main})
    text = " ".join(read(html_report([odd], "transframer benchmark x", tmp_path)).text)
    assert "no training curve" in text
    assert "no scale" in text


def test_curves_are_minutes_and_nats_and_a_torn_line_is_left_out(run):
    points = read_curves(run / "metrics.jsonl")["toy_doubling"]
    assert points[0] == (0.5, 3.0)
    assert points[-1] == pytest.approx((9.5, 3 / 19))
    assert len(points) == 19


def test_curve_follows_the_colours_of_the_page_and_names_its_axes(run):
    svg = training_curves(run / "metrics.jsonl")
    assert svg.startswith("<svg")
    for said in ("var(--accent)", "minutes of training", "nats per token", "Toy doubling"):
        assert said in svg
    assert not re.search(r"#0[0-9a-c]0[0-9a-c]0[0-9a-c]\b", svg)
    assert training_curves(run / "missing.jsonl") == ""
