import errno
import json
import os

import pytest
import torch
import toy
from safetensors import SafetensorError

from transframer import __version__
from transframer.errors import CheckpointError
from transframer.training import checkpoint, folders
from transframer.training.checkpoint import last_good, load_run, load_state, save_checkpoint, save_model
from transframer.training.config import TrainConfig
from transframer.training.folders import FormatError, commit, recover, verify

CONFIG = TrainConfig(steps=1)


def save(run, *steps):
    return [save_checkpoint(run, step, {"step": step, "x": torch.full((4,), step)}, CONFIG) for step in steps]


def loaded_step(run, warnings=None):
    return load_state(last_good(run, (warnings if warnings is not None else []).append), torch.device("cpu"))[
        "step"
    ]


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_the_last_ones_are_kept(tmp_path):
    save(tmp_path, 5, 10, 100, 20)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000020",
        "step-000100",
    ]
    assert loaded_step(tmp_path) == 100
    manifest = verify(tmp_path / "checkpoints/step-000100")
    assert manifest["config"]["steps"] == 1
    assert manifest["code_version"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_damage_is_named_and_the_one_before_is_taken(tmp_path, damage):
    _, last = save(tmp_path, 1, 2)
    bad = last / ("manifest.json" if damage == "manifest" else "state.pt")
    match damage:
        case "flip":
            flip(bad, at=bad.stat().st_size // 2)
        case "cut":
            bad.write_bytes(bad.read_bytes()[:-10])
        case "remove":
            bad.unlink()
        case "manifest":
            bad.write_text("{")
    warnings = []
    assert loaded_step(tmp_path, warnings) == 1
    assert len(warnings) == 1
    assert str(bad) in warnings[0]
    save(tmp_path, 2, 3)  # the damaged one takes no place among those kept
    assert loaded_step(tmp_path) == 3
    flip(tmp_path / "checkpoints/step-000003/state.pt")
    assert loaded_step(tmp_path) == 2


def test_no_whole_checkpoint_is_an_error(tmp_path):
    flip(save(tmp_path, 1)[0] / "state.pt")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        loaded_step(tmp_path)


def test_another_format_is_an_error_not_damage(tmp_path):
    _, last = save(tmp_path, 1, 2)
    manifest = json.loads((last / "manifest.json").read_text())
    (last / "manifest.json").write_text(json.dumps(manifest | {"format": 99, "code_version": "9.9"}))
    with pytest.raises(FormatError, match=r"format 99, written by transframer 9\.9"):
        loaded_step(tmp_path)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("at", ["write", "hash", "sync", "rename"])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_kill_at_any_point_leaves_the_checkpoint_before(tmp_path, monkeypatch, at, replacing):
    save(tmp_path, 1, 2)

    def die(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(
            folders.shutil, "rmtree", lambda *arguments, **options: None
        )  # the dead clear nothing up
        if at == "write":
            patch.setattr(checkpoint.torch, "save", die)
        elif at == "rename":
            patch.setattr(folders.Path, "rename", die)
        else:
            patch.setattr(folders, {"hash": "_digest", "sync": "_sync"}[at], die)
        with pytest.raises(Killed):
            save(tmp_path, 2 if replacing else 3)
    assert list((tmp_path / "checkpoints").glob(".partial-*"))
    assert loaded_step(tmp_path) == 2
    assert not list((tmp_path / "checkpoints").glob(".*"))
    save(tmp_path, 3)
    assert loaded_step(tmp_path) == 3


def test_a_kill_between_the_two_renames_is_undone(tmp_path):
    commit(tmp_path / "model", lambda folder: (folder / "a").write_text("1") and None)
    (tmp_path / "model").rename(tmp_path / ".replaced-model")
    recover(tmp_path)
    assert (tmp_path / "model/a").read_text() == "1"


def to_full_disk_by_torch(folder):
    with open("/dev/full", "wb") as file:
        torch.save({"x": torch.zeros(100_000)}, file)


def to_full_disk_by_safetensors(folder):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def to_full_disk(folder):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("write", [to_full_disk_by_torch, to_full_disk_by_safetensors, to_full_disk])
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, write):
    commit(tmp_path / "model", lambda folder: (folder / "a").write_text("1") and None)
    with pytest.raises(CheckpointError, match="disk is full"):
        commit(tmp_path / "model", write)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    verify(tmp_path / "model")


def test_other_failures_are_not_taken_for_the_disk(tmp_path):
    def write(folder):
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        commit(tmp_path / "model", write)
    assert not list(tmp_path.iterdir())


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(Evil(), tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="unreadable training state"):
        load_state(tmp_path, torch.device("cpu"))
    assert not (tmp_path / "ran").exists()


def test_a_model_loads_from_its_run_and_by_itself(tmp_path):
    predictor = toy.ToyPredictor(seed=3)
    checkpoint.save_config(tmp_path, CONFIG)
    save_model(tmp_path, predictor, CONFIG, 1)
    for folder in (tmp_path, str(tmp_path / "model")):
        loaded, config = load_run(folder, toy.ToyPredictor.from_pretrained)
        assert config.steps == 1
        assert not loaded.training
        torch.testing.assert_close(loaded.state_dict(), predictor.state_dict(), rtol=0, atol=0)
    flip(tmp_path / "model/model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        load_run(tmp_path, toy.ToyPredictor.from_pretrained)


def test_weights_of_another_model_are_an_error_that_names_their_writer(tmp_path):
    checkpoint.save_config(tmp_path, CONFIG)
    save_model(tmp_path, toy.ToyPredictor(), CONFIG, 1)

    class Wider(toy.ToyPredictor):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.hidden = torch.nn.Linear(2 * self.hidden.in_features, self.hidden.out_features)

    with pytest.raises(CheckpointError, match=rf"of another model than this version's, by {__version__}"):
        load_run(tmp_path, Wider.from_pretrained)


def test_what_is_no_run_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_run(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="neither a run folder nor a model"):
        load_run(tmp_path)
    checkpoint.save_config(tmp_path, CONFIG)
    with pytest.raises(CheckpointError, match="no model folder yet"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("preset: tiny\nout: x\nflux: 1\n")
    with pytest.raises(CheckpointError, match="unknown settings flux"):
        checkpoint.load_config(tmp_path)
    (tmp_path / "config.yaml").write_text("[1")
    with pytest.raises(CheckpointError, match="unreadable"):
        checkpoint.load_config(tmp_path)
