"""Runs of the real `train` that take a second: a very small model, and a folder of small pictures."""

import dataclasses
import json

import numpy as np
import torch
from PIL import Image

from transframer.models.presets import PRESETS
from transframer.training.config import TrainConfig

TASK = "image_classification"
CLASSES = ("circles", "lines", "squares")


def shrink(monkeypatch, **changes):
    """Makes the preset tiny much smaller than it is."""
    small = dataclasses.replace(
        PRESETS["tiny"], encoder_widths=(32,), encoder_blocks=(1,), pixel_stem=(), width=32, value_layers=1,
        chunk_events=24, chunk_overlap=4, **changes,
    )  # fmt: skip
    monkeypatch.setitem(PRESETS, "tiny", small)


def pictures(folder, each=8):
    """An ImageFolder of three classes, a brightness each, with a little noise; not square."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = 60 * number + generator.integers(0, 60, (24, 40, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def settings(out, data, **changes):
    base = dict(
        tasks=[TASK], steps=4, batch_size=8, workers=0, validations=1, validation_episodes=2, pictures=0,
        data=str(data), data_format="image_folder", size_px=32, device="cpu", out=out,
    )  # fmt: skip
    return TrainConfig(**base | changes)


def weights(folder, step):
    """The whole state that a step ended with."""
    path = folder / f"checkpoints/step-{step:06d}/state.pt"
    state = torch.load(path, weights_only=True)
    return {name: state[name] for name in ("predictor", "average", "optimizer", "best")}


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
