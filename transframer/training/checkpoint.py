"""The training state on disk, and the trained model of a run folder.

A run folder holds config.yaml, metrics.jsonl, log.txt, samples/, checkpoints/step-000123/ (what --resume
needs) and model/ (what `benchmark` and `predict` load: the averaged weights and the settings).
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError

from transframer import __version__
from transframer.data.formats.atomic import write_text
from transframer.errors import CheckpointError
from transframer.models.catalog import DEFAULT_MODEL, get_model
from transframer.predictor import FramePredictor
from transframer.training.config import TrainConfig
from transframer.training.folders import MANIFEST, FormatError, commit, recover, verify
from transframer.weights import located, names

CONFIG, STATE, MODEL, CHECKPOINTS = "config.yaml", "state.pt", "model", "checkpoints"


def save_checkpoint(run: Path, step: int, state: dict[str, Any], config: TrainConfig) -> Path:
    """Saves the training state of a step whole or not at all, then drops all but the last `config.keep`.

    Args:
        state: tensors, numbers and strings in dicts and lists.

    Raises:
        CheckpointError: where the disk is full or refuses.
    """
    folder = run / CHECKPOINTS / f"step-{step:06d}"
    facts = {"step": step, "config": config.to_dict()}

    def write(partial: Path) -> None:
        with (partial / STATE).open("wb") as file:  # given a path, torch.save hides that the disk is full
            torch.save(state, file)

    commit(folder, write, facts)
    for old in _newest_first(run)[config.keep :]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def last_good(run: Path, warn: Callable[[str], None]) -> Path:
    """The last checkpoint that is whole; damaged ones are named, and set aside.

    Args:
        warn: is told of each damaged file.

    Raises:
        CheckpointError: where none is whole, or one is of another format.
    """
    recover(run)
    recover(run / CHECKPOINTS)
    for folder in _newest_first(run):
        try:
            verify(folder)
        except FormatError:  # not damage: an older checkpoint is of no help
            raise
        except CheckpointError as error:
            # Out of the way, or it would count among the last ones kept.
            aside = folder.with_name(f"damaged-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            warn(f"{error.file}: {error.found}; set aside as {aside.name}, falling back to the one before")
            continue
        return folder
    raise CheckpointError(
        "no whole checkpoint",
        file=run / CHECKPOINTS,
        expected=f"a folder step-NUMBER with {STATE} and its manifest",
        next_step="start the run anew, in another folder",
    )


def load_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """The training state in a verified checkpoint; reads tensors and plain values only, runs no code."""
    try:
        return torch.load(folder / STATE, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError("unreadable training state", file=folder / STATE) from error


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Says of weights that do not fit the model where they lie and what wrote them.

    Raises:
        CheckpointError: names, shapes or settings that this version's model does not have.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, KeyError, SafetensorError) as error:
        manifest = folder / MANIFEST
        writer = json.loads(manifest.read_text()).get("code_version") if manifest.is_file() else None
        raise CheckpointError(
            "weights or settings of another model than this version's" + (f", by {writer}" if writer else ""),
            file=folder,
            expected=f"what transframer {__version__} builds at this commit",
            next_step="train anew, or use the code that wrote it",
        ) from error


def save_config(folder: Path, config: TrainConfig) -> None:
    """Writes the resolved settings as YAML, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    write_text(folder / CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False))


def load_config(folder: Path) -> TrainConfig:
    """The settings of a run folder.

    Raises:
        CheckpointError: where it is none, or was written by other code.
    """
    path = folder / CONFIG
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"not a run folder: {CONFIG} is missing" if folder.is_dir() else "no such folder",
            file=folder,
            expected="a folder made by `transframer train`",
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError("unreadable", file=path, expected="the settings of a run, as YAML") from error
    if not isinstance(values, dict):
        raise CheckpointError("not a mapping", file=path, expected="the settings of a run, as YAML")
    return TrainConfig.from_dict(values, path)


def save_model(run: Path, predictor: FramePredictor, config: TrainConfig, step: int) -> None:
    """Saves the predictor with its settings as RUN/model, which is complete in itself and can be shared."""

    def write(partial: Path) -> None:
        predictor.save_pretrained(partial)  # type: ignore[operator]
        save_config(partial, config)

    commit(run / MODEL, write, {"step": step})


def load_run(
    path: Path | str, from_pretrained: Callable[[Path], FramePredictor] | None = None
) -> tuple[FramePredictor, TrainConfig]:
    """The trained predictor in a run folder or in a folder of pretrained weights, and its settings.

    Args:
        path: a run folder, one that `save_pretrained` wrote, or the name of weights of the package.
        from_pretrained: reads the predictor; that of the class that its config.json names if not given.

    Returns:
        The predictor in evaluation mode, on the CPU, and the settings it was trained with; the default
        settings where the weights come without.

    Raises:
        CheckpointError: names what is missing or damaged, or of another model.
    """
    path = located(path)
    folder = path / MODEL if (path / MODEL).is_dir() else path
    if not (folder / "config.json").is_file():
        if (path / CONFIG).is_file():
            raise CheckpointError(
                f"no {MODEL} folder yet",
                file=path,
                expected="a run that has saved its model once",
                next_step="let it train on: a model is saved with every checkpoint",
            )
        raise CheckpointError(
            "neither a run folder nor a model" if path.is_dir() else "no such folder",
            file=path,
            expected=f"{CONFIG} and {MODEL} of a run, config.json and model.safetensors of a model, or the "
            f"name of weights that come with the package: {', '.join(names()) or 'none'}",
        )
    if (folder / MANIFEST).is_file():
        verify(folder)
    config = load_config(folder) if (folder / CONFIG).is_file() else TrainConfig()
    if from_pretrained is None:
        from_pretrained = _class_of(folder).from_pretrained  # type: ignore[attr-defined]
    with fitting(folder):
        return from_pretrained(folder).eval(), config


def _class_of(folder: Path) -> type[FramePredictor]:
    """The class that the settings beside the weights name: a Transframer's name none."""
    try:
        settings = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError("unreadable", file=folder / "config.json", expected="JSON") from error
    named = settings.get("model", DEFAULT_MODEL) if isinstance(settings, dict) else DEFAULT_MODEL
    return get_model(named).predictor_class


def stored_config(path: Path | str) -> TrainConfig:
    """The settings that a run or its model was trained with, without its weights; defaults where none are."""
    path = located(path)
    for folder in (path / MODEL, path):
        if (folder / CONFIG).is_file():
            return load_config(folder)
    return TrainConfig()


def _newest_first(run: Path) -> list[Path]:
    folders = [folder for folder in (run / CHECKPOINTS).glob("step-*") if folder.name[5:].isdigit()]
    return sorted(folders, key=lambda folder: int(folder.name[5:]), reverse=True)
