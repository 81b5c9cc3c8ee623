"""`transframer new-task` writes a package that passes its own tests; names that cannot be are refused."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import blocks, is_understood
from transframer import cli
from transframer.new_task_config import NewTaskConfig

HERE = Path(__file__).parent
FILES = ["README.md", "crack_detection.py", "pyproject.toml", "test_crack_detection.py"]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "crack_detection"
    assert cli.main(["new-task", "crack_detection", "--out", str(folder)]) == 0
    return folder


def python(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)


def test_it_passes_its_own_tests_without_being_installed(package, tmp_path):
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(package), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_its_tests_fail_when_it_is_broken(package, tmp_path):
    code = (package / "crack_detection.py").read_text()
    for name in FILES[1::2]:
        (tmp_path / name).write_bytes((package / name).read_bytes())
    (tmp_path / FILES[1]).write_text(code.replace("> 191.5", "> 127"))
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "contract", cwd=tmp_path)
    assert done.returncode == 1
    assert "coded truth: iou" in done.stdout


def test_it_is_listed_when_it_is_included_and_holds_no_placeholder(package, capsys, fresh_registry):
    assert sorted(path.name for path in package.glob("*.*")) == FILES
    assert cli.main(["--include", str(package / "crack_detection.py"), "tasks"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("crack_detection")]
    assert "crack_detection:CrackDetection" in line
    for path in package.glob("*.*"):
        text = path.read_text().lower()
        assert "my_task" not in text
        assert "mytask" not in text
        assert "my-task" not in text


def test_the_commands_of_its_readme_are_understood(package, monkeypatch, fresh_registry):
    monkeypatch.chdir(package)
    assert cli.main(["--include", "crack_detection.py", "tasks"]) == 0
    (block,) = blocks(package / "README.md", "bash")
    lines = [shlex.split(line.partition(" #")[0]) for line in block.splitlines()]
    commands = [words for program, *words in lines if program == "transframer" and "tasks" not in words]
    assert len(commands) == 3
    assert all(is_understood(words, monkeypatch) for words in commands)


def test_it_is_a_task_after_it_is_installed(package, tmp_path):
    words = ["-m", "uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation"]
    done = python(
        *words, "--python", sys.executable, "--target", str(tmp_path / "site"), str(package), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    done = python("-m", "transframer", "tasks", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("crack_detection")]
    assert line.split()[1:3] == ["plugin", "crack-detection"]


def test_its_code_is_in_the_style_of_this_one(package):
    # its tests, like ours, need no docstrings; and how imports are sorted depends on what ruff takes for ours
    words = ["--config", str(HERE.parent / "pyproject.toml"), "--ignore", "I001", "--extend-per-file-ignores"]
    done = python("-m", "ruff", "check", *words, "test_*.py:D", ".", cwd=package)
    assert done.returncode == 0, done.stdout
    done = python("-m", "ruff", "format", "--check", "--line-length", "110", ".", cwd=package)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("CrackDetection", "is no name of a task"),
        ("crack-detection", "is no name of a task"),
        ("2d_boxes", "is no name of a task"),
        ("class", "is no name of a task"),
        ("cracks_", "is no name of a task"),
        ("depth_estimation", "is a task of transframer"),
        ("json", "a Python module 'json' already"),
        ("frame", "Frame is what a task is written with"),
        ("cracks --out full", "full is there, and not an empty folder"),
        ("cracks --out file", "file is there, and not an empty folder"),
        ("cracks --out file/in/it", "file/in/it: cannot be written"),
        ("", "required: name"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kept.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["new-task", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_is_that_of_the_name_by_default_and_may_be_there_empty(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cracks").mkdir()
    assert cli.main(["new-task", "cracks"]) == 0
    assert (tmp_path / "cracks/cracks.py").is_file()
    assert "pytest cracks" in capsys.readouterr().out


def test_the_class_is_named_after_the_task():
    assert NewTaskConfig("a_2d_box").class_name == "A2dBox"
