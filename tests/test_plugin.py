"""A task in a separately installed package: found, formatted, trained on, benchmarked and used, with no edit
of this package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from transframer.cli import main

HERE = Path(__file__).parent
NAME = "boundary_detection"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder into which the plugin is installed from its source, without network."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(HERE / "plugin", folder / "source")
    words = ["-m", "uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation"]
    words += ["--python", sys.executable, "--target", str(folder / "site"), str(folder / "source")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def python(site: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)


def transframer(site: Path, words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return python(site, "-m", "transframer", *words.split(), cwd=cwd)


def test_it_is_listed_with_its_origin_and_not_imported(site):
    done = python(site, "-X", "importtime", "-m", "transframer", "tasks")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(NAME)]
    assert line.split()[1:] == [
        "plugin",
        "transframer-boundaries",
        "transframer_boundaries:BoundaryDetection",
    ]
    assert len(done.stdout.splitlines()) == 13
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transframer_boundaries"}


def test_the_world_serves_it_and_its_round_trip_holds(site):
    code = f"""
from transframer.codec import round_trips
from transframer.data.world import World
from transframer.registry import get_task
task = get_task("{NAME}")
samples = World("test").samples(range(8), task.sample_type, task.clip)
episodes = [task.format(sample) for sample in samples]
decoded = [task.decode(frame, episode) for frame, episode in zip(round_trips(episodes), episodes)]
scores = [task.score(prediction, sample) for prediction, sample in zip(decoded, samples)]
assert min(task.summarise([score])["f1"] for score in scores) >= task.round_trip_bound
floor = task.floor(World("train").samples(range(32), task.sample_type, task.clip))
scores = [task.score(floor(episode), sample) for episode, sample in zip(episodes, samples)]
assert 0.1 < task.summarise(scores)["f1"] < 0.8
"""
    done = python(site, "-c", code)
    assert done.returncode == 0, done.stderr


def test_it_is_trained_on_benchmarked_and_used(site, tmp_path):
    Image.new("RGB", (50, 40), "gray").save(tmp_path / "photo.png")
    code = f"""
from transframer.cli import main
for words in (
    "train --preset tiny --tasks {NAME},depth_estimation --steps 2 --batch-size 2 --size-px 32 --workers 0 "
    "--validations 1 --validation-episodes 1 --pictures 1 --out run",
    "benchmark run --tasks {NAME} --samples 2 --floor-samples 4",
    "predict --run run --task {NAME} photo.png --out out",
):
    assert main(words.split()) == 0, words
"""
    done = python(site, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert NAME in (tmp_path / "run/config.yaml").read_text()
    assert NAME in (tmp_path / "run/benchmark/report.html").read_text()
    assert Image.open(tmp_path / f"out/photo_{NAME}.png").size == (50, 40)


def test_without_the_plugin_its_name_is_unknown(capsys):
    assert main(["predict", "--run", "run", "--task", NAME, "photo.png", "--out", "out"]) == 2
    assert f"unknown task '{NAME}'" in capsys.readouterr().err


def test_a_plugin_that_fails_to_import_is_named_and_the_others_work(site, distribution, tmp_path):
    folder = distribution("sad-tasks", {"sad": "sad_tasks:Sad"})
    (folder / "sad_tasks.py").write_text("import a_missing_library\n")
    done = transframer(folder, "tasks")
    assert done.returncode == 0
    assert "plugin sad-tasks" in done.stdout
    done = transframer(folder, "predict --run run --task sad photo.png --out out", tmp_path)
    assert done.returncode == 2
    assert "plugin sad-tasks: importing sad_tasks failed: ModuleNotFoundError" in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_two_plugins_that_claim_one_name_are_both_named(site, distribution):
    rival = distribution("rival", {NAME: "rival:Boundaries"})
    done = transframer(Path(f"{site}{os.pathsep}{rival}"), "tasks")
    assert done.returncode == 2
    assert "transframer-boundaries" in done.stderr
    assert "rival" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
