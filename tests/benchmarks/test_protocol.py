import dataclasses
import importlib

import pytest
import torch

from transframer.benchmarks.protocol import code_version, digest, fingerprint, stamp, weights_hash
from transframer.benchmarks.sources import material_for


@pytest.fixture
def make_stamp(toy_task, toy_source, toy_predictor, toy_config):
    def make(task=toy_task, change=None, **changes):
        config = toy_config(**{"samples": 4, "floor_samples": 3, **changes})
        held_out = toy_source.held_out(task, config.samples)
        if change:
            change(held_out)
        toy_source.held_out = lambda task, n: held_out
        material = material_for(task, toy_source, config)
        del toy_source.held_out
        return stamp(material, toy_predictor, weights_hash(toy_predictor), config, torch.device("cpu"))

    return make


def test_equal_measurements_have_equal_stamps(make_stamp):
    assert digest(make_stamp()) == digest(make_stamp())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"temperature": 0.5},
        {"temperature": 0.5, "samples_per_query": 2},
        {"top_p": 0.9},
        {"batch_size": 4},
        {"samples": 5},
        {"change": lambda samples: samples[0]["images"][0, 0, 0, 0].add_(1)},
        {"change": lambda samples: samples[0].update(level=20.25)},  # a label finer than a grey level
    ],
)
def test_each_thing_a_result_depends_on_changes_the_stamp(make_stamp, changes):
    assert digest(make_stamp(**changes)) != digest(make_stamp())


def test_weights_threads_and_task_settings_change_the_stamp(make_stamp, toy_predictor, toy_task):
    before = digest(make_stamp())
    with torch.no_grad():
        toy_predictor.weight[0] += 1e-6
    assert digest(make_stamp()) != before
    other = dataclasses.replace(toy_task, clip=dataclasses.replace(toy_task.clip, step_s=0.2))
    assert digest(make_stamp(task=other)) != digest(make_stamp())


def test_so_does_any_file_of_the_tasks_own_package(make_stamp, toy_task, tmp_path, monkeypatch):
    package = tmp_path / "stamped"
    package.mkdir()
    for name, text in (("__init__", ""), ("metric", "ONE = 1\n"), ("task", "from stamped import metric\n")):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("stamped.task")
    monkeypatch.setattr(type(toy_task), "__module__", "stamped.task")
    before = make_stamp()
    assert make_stamp() == before
    (package / "metric.py").write_text("ONE = 2\n")
    assert make_stamp()["task_source_sha256"] != before["task_source_sha256"]


def test_where_results_go_does_not_change_the_stamp(make_stamp, tmp_path):
    assert digest(make_stamp(out=tmp_path / "elsewhere", no_cache=True)) == digest(make_stamp())


def test_stamp_states_the_protocol(make_stamp):
    record = make_stamp(samples=4)
    assert record["data"]["split"] == "test"
    assert record["data"]["n"] == 4
    assert record["floor"]["split"] == "training"
    assert record["floor"]["n"] == 3
    assert record["codec"] == [{"quality": 100, "subsampling": "4:4:4", "reference": None}]
    assert record["sampling"]["temperature"] == 0
    assert record["model"]["parameters"] == 2
    assert record["machine"]["threads"] == torch.get_num_threads()


def test_fingerprint_tells_structure_from_content():
    assert fingerprint([1, [2]]) != fingerprint([[1], 2])
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(torch.zeros(4)) != fingerprint(torch.zeros(4, dtype=torch.int32))
    assert fingerprint(torch.arange(4).reshape(2, 2).T) == fingerprint(torch.tensor([[0, 2], [1, 3]]))


def test_code_version_names_the_package_and_its_source():
    version = code_version()
    assert version["version"]
    assert len(version["source_sha256"]) == 64
