"""Seconds that runs spent on their tasks, each worked out by hand."""

import json
from pathlib import Path

import pytest

from transframer.errors import CheckpointError, ConfigError
from transframer.training.checkpoint import save_config
from transframer.training.config import TrainConfig
from transframer.training.spent import SPENT, task_seconds, write_spent
from transframer.weights import GENERALIST
from transframer.weights.ship import ship


def run(folder, *, log=None, **settings):
    folder.mkdir()
    save_config(folder, TrainConfig(out=folder, **settings))
    if log is not None:
        (folder / "metrics.jsonl").write_text(log)
    return folder


def lines(*seconds):
    return "".join(json.dumps({"kind": "train", "step": 1, "seconds": value}) + "\n" for value in seconds)


def test_the_last_line_of_the_log_is_shared_by_the_weights_of_the_tasks(tmp_path):
    folder = run(
        tmp_path / "a", tasks=["flow", "depth"], weights={"flow": 3.0}, minutes=1000.0, log=lines(10, 80)
    )
    assert task_seconds(folder) == {"flow": 60, "depth": 20}


def test_the_time_of_processes_that_train_together_adds_up(tmp_path):
    log = lines(10) + json.dumps({"kind": "train", "step": 2, "seconds": 40, "processes": 3}) + "\n"
    assert task_seconds(run(tmp_path / "a", tasks=["flow"], steps=9, log=log)) == {"flow": 120}


def test_a_line_that_a_kill_cut_short_does_not_count(tmp_path):
    folder = run(tmp_path / "a", tasks=["flow"], steps=9, log=lines(10, 80) + '{"kind": "train", "sec')
    assert task_seconds(folder) == {"flow": 80}


def test_without_a_log_the_minutes_count(tmp_path):
    folder = run(tmp_path / "a", tasks=["flow", "depth"], minutes=2.0)
    assert task_seconds(folder) == {"flow": 60, "depth": 60}


def test_the_model_in_a_run_has_the_time_of_the_run(tmp_path):
    folder = run(tmp_path / "a", tasks=["flow"], steps=9, log=lines(80))
    run(folder / "model", tasks=["flow"], steps=9)
    assert task_seconds(folder) == task_seconds(folder / "model") == {"flow": 80}


def test_runs_that_it_started_from_are_added_as_far_as_they_are_there(tmp_path):
    first = run(tmp_path / "first", tasks=["flow", "depth"], minutes=2.0)
    second = run(tmp_path / "second", tasks=["flow", "views"], minutes=4.0, start_from=first)
    third = run(tmp_path / "third", tasks=["flow"], minutes=1.0, start_from=second)
    assert task_seconds(third) == {"flow": 60 + 120 + 60, "views": 120, "depth": 60}
    second.rename(tmp_path / "elsewhere")
    assert task_seconds(third) == {"flow": 60}


def test_a_run_in_the_folder_of_its_own_ancestor_ends(tmp_path):
    first = run(tmp_path / "first", tasks=["flow"], minutes=1.0, start_from=tmp_path / "second")
    second = run(tmp_path / "second", tasks=["flow"], minutes=2.0, start_from=first)
    assert task_seconds(second) == {"flow": 180}


def test_what_is_written_beside_weights_wins(tmp_path):
    folder = run(tmp_path / "a", tasks=["flow"], minutes=2.0)
    write_spent(folder, {"flow": 90.0, "depth": 30.0})
    assert task_seconds(folder) == {"flow": 90, "depth": 30}
    assert json.loads((folder / SPENT).read_text())["minutes"] == 2


@pytest.mark.parametrize("text", ["", "[]", '{"minutes": 2}', '{"task_seconds": {"flow": "long"}}'])
def test_damaged_record_is_named(tmp_path, text):
    folder = run(tmp_path / "a", tasks=["flow"], minutes=2.0)
    (folder / SPENT).write_text(text)
    with pytest.raises(CheckpointError, match="unreadable") as caught:
        task_seconds(folder)
    assert caught.value.file == folder / SPENT


@pytest.mark.parametrize("log", [None, ""])
def test_where_nothing_is_known_the_option_is_named(tmp_path, log):
    folder = run(tmp_path / "a", tasks=["flow"], steps=9, log=log)
    with pytest.raises(ConfigError, match="--specialist-minutes"):
        task_seconds(folder)
    with pytest.raises(ConfigError, match="--specialist-minutes"):
        task_seconds(tmp_path / "no run")


def test_shipped_weights_keep_the_time_of_their_run(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("a card")
    folder = ship(Path(GENERALIST), "mine", tmp_path)
    spent = task_seconds(GENERALIST)
    assert len(spent) == 8
    assert task_seconds(folder) == spent
    settings = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(settings.replace("minutes: ", "minutes: 1"))
    assert task_seconds(folder) == spent, "by the record, whatever the settings say"
