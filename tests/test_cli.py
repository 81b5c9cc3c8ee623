"""The command line from outside: exit codes, messages, what is imported, what is left on disk."""

import dataclasses
import errno
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import transframer
from transframer import cli
from transframer.errors import DataError, PluginError
from transframer.options import documented
from transframer.registry import VARIABLE, task_names

HEAVY = ("torch", "torchvision", "timm", "datasets")


def run(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "transframer", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
    )


def imported(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "transframer", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["tasks"], ["--version"], ["tasks", "--help"], *([c, "--help"] for c in cli.COMMANDS)],
)
def test_help_and_listing_import_nothing_heavy(words):
    assert not imported(*words).intersection(HEAVY)


def test_help_and_listing_leave_out_the_option_parser():
    assert not imported("tasks").intersection({"jsonargparse", "yaml", "numpy"})


def test_tasks_lists_every_task_and_its_origin(capsys):
    assert cli.main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(task_names())
    assert all("built in" in line for line in lines)


def test_help_names_every_command(capsys):
    for words in ([], ["--help"], ["-h"]):
        assert cli.main(words) == 0
        text = capsys.readouterr().out
        assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in cli.COMMANDS)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"transframer {transframer.__version__}\n"


@pytest.mark.parametrize("command", [command for command in cli.COMMANDS.values() if command.config])
def test_every_option_is_explained_by_a_light_config(command):
    module, _, name = command.config.partition(":")
    config = getattr(importlib.import_module(module), name)
    assert set(documented(config)) == {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "unknown command 'trian', did you mean 'train'?"),
        ("--inclde x tasks", "unknown option '--inclde', did you mean '--include'?"),
        ("tasks --all", "unrecognized arguments: --all"),
        ("tasks --include", "expected one argument"),
        ("--include nowhere.py tasks", "plugin nowhere.py: there is no such file"),
        ("train --presett tiny", "unknown option --presett, did you mean --preset?"),
        ("train --preset nosuch --steps 1", "nosuch"),
        ("train --steps some", "--steps: 'some'\nexpected a whole number"),
        ("train --steps 1 --tasks depth_estimatio", "did you mean 'depth_estimation'?"),
        ("benchmark no-such-run", "no-such-run: no such folder"),
        ("benchmark empty", "empty: "),
        ("benchmark nowhere", "nowhere: "),
        ("predict --run empty --task depth_estimation broken.png --out o", "broken.png: not an image"),
        ("predict --run empty --task optical_flo broken.png --out o", "did you mean 'optical_flow'?"),
        ("predict --run empty --task depth_estimation missing.png --out o", "missing.png: no such file"),
        ("predict --run empty --task depth_estimation broken.png", "required: out"),
        ("video --run empty broken.png --out clip.mp4", "broken.png: not an image"),
        ("video --run empty missing.mp4 --out clip.mp4", "missing.mp4: "),
        ("video --run empty broken.png --out clip.gif", "expected a name that ends in .mp4"),
        ("video --run empty broken.png", "required: out"),
    ],
)
def test_bad_input_is_told_in_three_lines_and_leaves_nothing_behind(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_text("not a png")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(words.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("transframer: ")
    assert message in output.err
    assert len(output.err.splitlines()) <= 3
    assert sorted(tmp_path.rglob("*")) == before


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "print_tasks", fail)
    return cli.main(["tasks"])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("x", file="f"), 2, "transframer: f: x\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.png"), 2, "the disk is full for out/a.png"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "the disk is full\n"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "out: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(monkeypatch, capsys, error, code, message):
    assert fail_with(monkeypatch, error) == code
    assert message in capsys.readouterr().err


def test_faults_of_the_program_keep_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        fail_with(monkeypatch, ZeroDivisionError())


def test_traceback_on_request(monkeypatch):
    with pytest.raises(PluginError):
        cli.main(["tasks", "--traceback", "--include", "nowhere.py"])
    monkeypatch.setenv("TRANSFRAMER_DEBUG", "1")
    with pytest.raises(DataError):
        fail_with(monkeypatch, DataError("x"))


def test_a_closed_pipe_is_quiet():
    done = subprocess.run(
        f"set -o pipefail; '{sys.executable}' -m transframer tasks | true; echo $?",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")


def test_ctrl_c_ends_with_130_and_one_line(tmp_path):
    slow = tmp_path / "slow_plugin.py"
    slow.write_text("import time; print('sleeping', flush=True); time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-m", "transframer", "tasks", "--include", str(slow)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # tests that run in the background of a shell inherit that the signal is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sleeping\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "transframer: interrupted\n"


def test_a_failed_plugin_of_the_environment_is_told_and_the_rest_listed(tmp_path):
    (tmp_path / "odd.py").write_text("import missing_thing")
    done = run("tasks", **{VARIABLE: str(tmp_path / "odd.py")})
    assert done.returncode == 0
    assert "depth_estimation" in done.stdout
    assert "odd.py: importing odd failed: ModuleNotFoundError" in done.stderr


def test_listing_is_fast():
    def seconds() -> float:
        start = time.perf_counter()
        assert run("tasks").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5
