"""A benchmark beside a specialist that is wrong by two grey levels, so that all can be worked out by hand."""

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from transframer.benchmarks import specialists
from transframer.benchmarks.baselines.specialist import Specialist
from transframer.benchmarks.baselines.training import TrainedSpecialist
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.quality import write_results
from transframer.benchmarks.report import html_report
from transframer.benchmarks.results import TaskResult
from transframer.benchmarks.statistics import Estimate
from transframer.benchmarks.tables import COLUMNS, columns, footnotes, markdown, plain, rows, summary
from transframer.errors import ConfigError, DataError
from transframer.task import Metric
from transframer.training.checkpoint import save_config
from transframer.training.config import TrainConfig

FACTS = {
    "network": "a doubling of the mean",
    "parameters": 3,
    "device_seconds": 61.5,
    "steps": 40,
    "samples_seen": 1280,
    "seed": 7,
    "weights_sha256": "ab" * 32,
}


class Doubling(Specialist):
    """Answers two levels too much; keeps what it was asked, and how it was trained."""

    about = FACTS["network"]

    def __init__(self, task):
        super().__init__(task)
        self.facts, self.asked, self.trainings = FACTS, [], []

    def loss(self, samples):
        raise AssertionError("trained already")

    def predict(self, samples):
        self.asked.append(samples)
        return [2.0 * float(sample["images"][0, 0, 0, 0]) + 2 for sample in samples]


@pytest.fixture
def network(monkeypatch, toy_task):
    """Stands in for the specialist of toy_doubling."""
    network = Doubling(toy_task)

    def trained(task, **how):
        network.trainings.append((task.name, how))
        return TrainedSpecialist(network, network.facts)

    monkeypatch.setattr(specialists, "trained_specialist", trained)
    monkeypatch.setattr(specialists, "has_specialist", lambda task: task.name == "toy_doubling")
    return network


@pytest.fixture
def stored(tmp_path):
    """The settings of the run that is measured: two minutes for two tasks."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = TrainConfig(tasks=["toy_doubling", "other"], minutes=2.0, seed=5, out=folder)
    save_config(folder, config)
    return folder


@pytest.fixture
def measured(toy_benchmark, network, stored):
    return toy_benchmark(specialists=True)[0]


@pytest.fixture
def unserved(toy_task):
    """A task that no specialist was made for."""

    @dataclass(frozen=True)
    class Unserved(type(toy_task)):
        name: ClassVar[str] = "toy_unserved"

    return Unserved()


class TestNumbers:
    def test_every_number_is_the_one_worked_out_by_hand(self, measured):
        # Errors of the model 0 1 2 3 0 1 2 3, of the specialist 2 on every sample.
        assert measured.main.specialist == Estimate(2.0, 2.0, 2.0)
        assert measured.main.versus.value == -0.5
        assert measured.metrics["worst"].specialist.value == 2
        assert measured.metrics["worst"].versus.value == 1
        assert measured.of_specialist == 0.75
        assert measured.near_specialist
        # Where a resample has a mean error of m, the paired difference is m - 2 to the last digit.
        ends = (measured.main.model.low - 2, measured.main.model.high - 2)
        assert (measured.main.versus.low, measured.main.versus.high) == pytest.approx(ends)
        assert measured.against_specialist == "ties"
        assert measured.specialist.network == FACTS["network"]
        assert measured.specialist.samples_seen == 1280
        assert measured.specialist.seconds_per_frame > 0

    def test_model_is_measured_as_it_is_without_a_specialist(self, measured, toy_benchmark):
        (without,) = toy_benchmark()
        assert without.main == dataclasses.replace(measured.main, specialist=None, versus=None)
        assert without.per_sample == measured.per_sample
        assert without.specialist is None
        assert math.isnan(without.of_specialist)
        assert without.against_specialist == "undefined"
        assert all(picture.specialist is None for picture in without.pictures)

    def test_pictures_show_it_with_its_own_score(self, measured, toy_task, toy_source):
        samples = toy_source.held_out(toy_task, 8)
        from transframer.benchmarks.pictures import data_uri

        for picture in measured.pictures:
            level = samples[picture.index]["level"]
            assert picture.specialist == data_uri(toy_task.draw({}, level + 2))
            assert picture.scores["specialist"] == 2
            assert picture.scores["floor"] == abs(level - 40)

    def test_it_is_asked_in_batches_and_its_error_names_them(self, network, stored, toy_benchmark):
        toy_benchmark(specialists=True, batch_size=3)
        assert [len(asked) for asked in network.asked] == [3, 3, 2]

        def refuse(samples):
            raise DataError("too large")

        network.predict = refuse
        with pytest.raises(DataError, match="the specialist of samples 0 to 2: too large"):
            toy_benchmark(specialists=True, no_cache=True)

    def test_labels_are_kept_from_it(self, measured, network, toy_task):
        from transframer.registry import get_task

        depth = get_task("depth_estimation")
        sample = {"images": torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "depth_m": torch.ones(16, 16)}
        trained = TrainedSpecialist(network, FACTS)
        specialists.specialist_answers(trained, depth, [sample], 1, torch.device("cpu"))
        assert set(network.asked[-1][0]) == {"images"}

    @pytest.mark.parametrize(
        ("higher", "model", "rival", "ratio", "near"),
        [
            (True, 0.45, 0.5, 0.9, True),
            (True, 0.44, 0.5, 0.88, False),
            (False, 0.55, 0.5, 1.1, True),
            (False, 0.56, 0.5, 1.12, False),
            (True, 0.1, 0.0, math.inf, True),
            (True, math.inf, math.inf, math.nan, False),
            (False, math.nan, 0.5, math.nan, False),
        ],
    )
    def test_share_of_a_score_and_multiple_of_an_error(self, measured, higher, model, rival, ratio, near):
        main = dataclasses.replace(
            measured.main, model=Estimate(model, model, model), specialist=Estimate(rival, rival, rival)
        )
        result = dataclasses.replace(
            measured, headline=Metric("mae", higher), metrics={**measured.metrics, "mae": main}
        )
        assert result.of_specialist == pytest.approx(ratio, nan_ok=True)
        assert result.near_specialist == near

    @pytest.mark.parametrize(
        ("higher", "low", "high", "said"),
        [
            (True, 0.1, 0.2, "beats"),
            (True, -0.2, -0.1, "below"),
            (False, 0.1, 0.2, "below"),
            (False, -0.2, -0.1, "beats"),
            (True, -0.1, 0.1, "ties"),
            (True, math.nan, math.nan, "undefined"),
        ],
    )
    def test_who_is_ahead_is_read_off_the_paired_interval(self, measured, higher, low, high, said):
        main = dataclasses.replace(measured.main, versus=Estimate(0.15, low, high))
        result = dataclasses.replace(
            measured, headline=Metric("mae", higher), metrics={**measured.metrics, "mae": main}
        )
        assert result.against_specialist == said


class TestTraining:
    def test_it_trains_as_long_as_the_run_was_on_its_task_in_the_world_of_the_run(
        self, measured, network, stored
    ):
        assert network.trainings == [
            (
                "toy_doubling",
                {
                    "seconds": 60.0,  # half of two minutes
                    "seed": 5,
                    "size_px": 16,
                    "folder": stored.parent / "specialists",
                    "device": torch.device("cpu"),
                },
            )
        ]
        assert measured.specialist.run_seconds == 60

    def test_or_for_the_minutes_asked_for(self, network, stored, toy_benchmark):
        (result,) = toy_benchmark(specialists=True, specialist_minutes=0.5)
        assert network.trainings[0][1]["seconds"] == 30
        assert result.specialist.run_seconds == 60

    def test_a_run_of_unknown_time_needs_minutes(self, network, tmp_path, toy_benchmark, toy_predictor):
        with pytest.raises(ConfigError, match="--specialist-minutes"):
            toy_benchmark(specialists=True)
        assert toy_predictor.calls == [], "said before anything is measured"
        (result,) = toy_benchmark(specialists=True, specialist_minutes=0.5)
        assert result.specialist.run_seconds is None

    def test_so_does_a_task_that_the_run_did_not_train_on(self, network, stored, toy_benchmark):
        save_config(stored, TrainConfig(tasks=["other"], minutes=2.0, out=stored))
        with pytest.raises(ConfigError, match=r"did not train on toy_doubling(.|\n)*--specialist-minutes"):
            toy_benchmark(specialists=True)

    def test_a_task_without_one_is_measured_without_and_named(
        self, network, stored, toy_benchmark, toy_task, unserved, capsys
    ):
        first, second = toy_benchmark(tasks=[toy_task, unserved], specialists=True)
        assert first.specialist
        assert second.specialist is None
        assert second.main.model == first.main.model
        assert "no specialist for toy_unserved: measured without one" in capsys.readouterr().err
        assert [name for name, _ in network.trainings] == ["toy_doubling"]


class TestCache:
    def test_it_depends_on_the_specialist(self, measured, network, toy_benchmark):
        assert measured.protocol["specialist"]["weights_sha256"] == FACTS["weights_sha256"]
        asked = len(network.asked)
        assert toy_benchmark(specialists=True) == [measured]
        assert len(network.asked) == asked
        network.facts = {**FACTS, "weights_sha256": "cd" * 32}
        (other,) = toy_benchmark(specialists=True)
        assert len(network.asked) == 2 * asked
        assert other.digest != measured.digest

    def test_without_specialists_a_stamp_says_nothing_of_them(self, measured, toy_benchmark):
        (without,) = toy_benchmark()
        assert "specialist" not in without.protocol
        assert without.digest != measured.digest

    def test_result_survives_json_and_an_older_one_is_read(self, measured):
        record = json.loads(json.dumps(measured.to_json(), allow_nan=False))
        assert TaskResult.from_json(record) == measured
        del record["specialist"]
        for metric in record["metrics"].values():
            del metric["specialist"], metric["versus"]
        for picture in record["pictures"]:
            del picture["specialist"]
        older = TaskResult.from_json(record)
        assert older.specialist is older.main.specialist is older.main.versus is None


class TestTables:
    @pytest.fixture
    def results(self, measured, unserved, toy_benchmark):
        return [measured, *toy_benchmark(task=unserved)]

    def test_columns_are_there_only_where_one_was_measured(self, results):
        names = columns(results)
        assert names[3:6] == ("floor", "specialist [95 % interval]", "model [95 % interval]")
        assert set(names) - set(COLUMNS) == {"specialist [95 % interval]", "of the specialist"}
        assert columns(results[1:]) == COLUMNS
        first, second = (dict(zip(names, row, strict=True)) for row in rows(results))
        assert first["specialist [95 % interval]"] == "2.000 [2.000, 2.000]"
        assert first["of the specialist"] == "0.75x"
        assert second["specialist [95 % interval]"] == second["of the specialist"] == "none"
        assert first["floor"] == second["floor"] == "13.00"

    def test_a_score_is_given_in_per_cent(self, results):
        score = dataclasses.replace(results[0], headline=Metric("mae", higher_is_better=True))
        row = dict(zip(columns([score]), rows([score])[0], strict=True))
        assert row["of the specialist"] == "75 %"

    def test_notes_say_what_it_is_and_what_it_was_given(self, results):
        notes = footnotes(results)
        (said,) = [note for note in notes if note.startswith("toy_doubling, specialist: ")]
        for part in (
            FACTS["network"],
            "3 parameters",
            "62 device-seconds",
            "(the run spent 60 s on the task)",
            "40 steps",
            "1,280 samples",
        ):
            assert part in said
        assert "toy_unserved: there is no specialist." in notes
        assert not any("decibels" in note for note in notes)
        decibels = dataclasses.replace(results[0], headline=Metric("mae", True, "dB"))
        assert any("decibels are logarithmic" in note for note in footnotes([decibels]))
        assert not any("specialist" in note for note in footnotes(results[1:]))

    def test_summary_counts_those_near_ahead_and_behind(self, results):
        assert summary(results[1:]).endswith("1 of 1 tasks.")
        assert "reached on 1 of 1; " in summary(results)
        assert "ahead of it on 0 and behind on 0." in summary(results)
        main = dataclasses.replace(results[0].main, versus=Estimate(-0.5, -0.7, -0.3))
        better = dataclasses.replace(results[0], metrics={**results[0].metrics, "mae": main})
        main = dataclasses.replace(
            results[0].main, specialist=Estimate(1.0, 1.0, 1.0), versus=Estimate(0.5, 0.3, 0.7)
        )
        worse = dataclasses.replace(results[0], metrics={**results[0].metrics, "mae": main})
        said = summary([better, worse, worse, *results])
        assert "reached on 2 of 4; " in said
        assert "ahead of it on 1 and behind on 2." in said

    def test_markdown_and_plain_tables_keep_their_shape(self, results, capsys):
        text = markdown(results, "transframer benchmark run")
        tables = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE)
        assert len(tables) == 2
        for table in tables:
            assert len({line.count("|") for line in table.strip().splitlines()}) == 1
        header, _, main, *_ = tables[1].splitlines()
        cells = dict(zip(header.split(" | "), main.split(" | "), strict=True))
        assert cells["model - specialist [95 % interval]"].startswith("-0.500 [")
        lines = plain(results).splitlines()
        assert lines[0].index("of the specialist") + 17 == lines[2].index("0.75x") + 5


class TestReport:
    def test_bar_picture_and_table_show_it(self, measured, stored, toy_config):
        page = html_report([measured], "transframer benchmark run --specialists", stored)
        assert all(picture.specialist in page for picture in measured.pictures)
        heads = re.search(r'<table class="pictures"><tr>(.*?)</tr>', page)[1]
        order = re.findall(r"<th>(.*?)</th>", heads)
        assert order == ["", "context", "truth", "prediction", "specialist", "floor", "ceiling"]
        # On the scale from the floor, 13, to the ceiling, 0: 11 of 13; the bar shows -0.3 to 1.05.
        (mark,) = re.findall(r'<i class="rival" style="left:([\d.]+)%">', page)
        assert float(mark) == pytest.approx(100 * (11 / 13 + 0.3) / 1.35, abs=0.01)
        assert "the specialist 85%" in page
        assert 'class="legend' in page
        write_results(toy_config(specialists=True), [measured])
        record = json.loads((stored / "benchmark/results.json").read_text())["results"][0]
        assert record["specialist"]["steps"] == 40
        assert record["metrics"]["mae"]["versus"]["value"] == -0.5

    def test_without_one_nothing_of_it_is_there(self, measured, toy_benchmark, stored):
        page = html_report(toy_benchmark(), "transframer benchmark run", stored).partition("</style>")[2]
        assert "specialist" not in page
        assert "rival" not in page
        assert "legend" not in page


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "field"),
        [
            ({"specialists": True, "data": "motorcycle"}, "specialists"),
            ({"specialists": True, "data": "photos"}, "specialists"),
            ({"specialist_minutes": 1.0}, "specialist_minutes"),
            ({"specialists": True, "specialist_minutes": 0.0}, "specialist_minutes"),
            ({"specialists": True, "specialist_minutes": math.nan}, "specialist_minutes"),
        ],
    )
    def test_those_that_contradict_each_other_name_their_field(self, settings, field):
        with pytest.raises(ConfigError) as caught:
            BenchmarkConfig(**settings)
        assert caught.value.field == field

    def test_the_command_states_them(self):
        command = BenchmarkConfig(specialists=True, specialist_minutes=2.5).command
        assert command == "transframer benchmark --specialists --specialist-minutes 2.5"
