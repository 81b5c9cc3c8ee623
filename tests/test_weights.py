"""The weights that come with the package: found by name, small, complete, and named in no other way."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import transframer.weights
from transframer.benchmarks.config import BenchmarkConfig
from transframer.cli import main
from transframer.data.formats.images import load_image, save_png
from transframer.data.world import World
from transframer.errors import CheckpointError, ConfigError
from transframer.models.transframer import Transframer
from transframer.registry import get_task
from transframer.training.checkpoint import load_run, save_config, stored_config
from transframer.weights import GENERALIST, home, located, names
from transframer.weights.ship import ship

FOLDER = Path(transframer.weights.__file__).parent


def test_names_and_paths(tmp_path, monkeypatch):
    assert GENERALIST in names()
    assert located(GENERALIST) == FOLDER / GENERALIST
    assert located("runs/tiny") == Path("runs/tiny")
    assert home(GENERALIST) == Path("runs/generalist")
    assert home("runs/tiny") == Path("runs/tiny")
    assert BenchmarkConfig().folder == Path("runs/generalist/benchmark")
    assert BenchmarkConfig(samples=3).command == "transframer benchmark --samples 3"
    monkeypatch.chdir(tmp_path)
    Path(GENERALIST).mkdir()
    assert located(GENERALIST) == Path(GENERALIST), "a folder of yours wins"
    with pytest.raises(CheckpointError, match="no such folder") as raised:
        load_run("generalists")
    assert GENERALIST in raised.value.expected


@pytest.mark.parametrize("name", names())
def test_they_are_small_and_say_what_they_are(name):
    files = {path.name: path for path in (FOLDER / name).iterdir()}
    assert set(files) == {"README.md", "config.json", "config.yaml", "model.safetensors", "spent.json"}
    assert sum(path.stat().st_size for path in files.values()) < 25e6
    card = files["README.md"].read_text()
    for heading in ("## Data", "## Training", "## Figures", "## Limits", "## Licence"):
        assert heading in card
    settings = yaml.safe_load(files["config.yaml"].read_text())
    assert settings["out"] == f"runs/{name}"
    assert settings["start_from"] is settings["data"] is None
    assert "/tmp" not in files["config.yaml"].read_text() + card


def test_the_generalist_knows_the_eight_tasks_and_predicts_as_it_is_loaded(tmp_path, monkeypatch):
    predictor, settings = load_run(GENERALIST)
    assert stored_config(GENERALIST) == settings
    assert len(settings.tasks) == 8
    assert {p.dtype for p in predictor.parameters()} == {torch.float32}
    other = Transframer.from_pretrained(GENERALIST)
    for one, two in zip(predictor.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    monkeypatch.chdir(tmp_path)
    task = get_task("depth_estimation")
    sample = World("test", 0, 64).samples([0], task.sample_type, task.clip)[0]
    save_png(tmp_path / "photo.png", sample["images"][0])
    assert main(["predict", "photo.png", "--task", "depth_estimation", "--out", "out"]) == 0
    assert load_image(tmp_path / "out/photo_depth_estimation_picture.png").shape[1] > 64


def test_its_depth_is_better_than_the_floor():
    predictor, settings = load_run(GENERALIST)
    task = get_task("depth_estimation")
    samples = World("validation", 0, settings.size_px).samples(range(16), task.sample_type, task.clip)
    from transframer.predict import predict_samples

    scores = [
        task.score(p, s) for p, s in zip(predict_samples(predictor, task, samples), samples, strict=True)
    ]
    training = World("train", 0, settings.size_px).samples(range(64), task.sample_type, task.clip)
    floor = task.floor(training)
    trivial = [task.score(floor(task.format(s).without_target()), s) for s in samples]
    assert task.summarise(scores)["abs_rel"] < 0.8 * task.summarise(trivial)["abs_rel"]


def test_a_model_tuned_with_augmentation_can_be_shipped(tmp_path):
    run = shutil.copytree(FOLDER / GENERALIST, tmp_path / "run")
    config = dataclasses.replace(stored_config(run), data="photos", crop=0.8, flip=True, color=0.3)
    save_config(run, config)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("a card")
    shipped = stored_config(ship(run, "mine", tmp_path))
    assert (shipped.data, shipped.crop, shipped.flip, shipped.color) == (None, 1.0, False, 0.0)


def test_shipping_needs_a_card_and_halves_the_size(tmp_path):
    from safetensors import safe_open

    with pytest.raises(ConfigError, match="no model card"):
        ship(Path(GENERALIST), "mine", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("a card")
    folder = ship(Path(GENERALIST), "mine", tmp_path)
    assert (folder / "README.md").read_text() == "a card"
    with safe_open(folder / "model.safetensors", "pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds <= {torch.bfloat16, torch.int64, torch.bool}
    again, _ = load_run(folder)
    first, _ = load_run(GENERALIST)
    for one, two in zip(again.parameters(), first.parameters(), strict=True):
        assert torch.equal(one, two)
