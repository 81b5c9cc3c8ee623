"""Makes a run the weights that come with the package: `python -m transframer.weights.ship RUN NAME`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from transframer.errors import ConfigError, exit_code
from transframer.training.checkpoint import load_run, save_config
from transframer.training.spent import task_seconds, write_spent

CARD = "README.md"


def ship(run: Path, name: str, into: Path = Path(__file__).parent) -> Path:
    """Writes the run's model in bfloat16, with its settings but for the paths of the machine that trained it.

    spent.json says how long the run, and those that it started from, trained on each task: for as long a
    specialist is trained to compare with.

    The model card, README.md, is written by hand and kept.

    Raises:
        ConfigError: the folder has no model card.
        TransframerError: as of `load_run` and of `task_seconds`.
    """
    folder = into / name
    if not (folder / CARD).is_file():
        raise ConfigError(
            "no model card",
            file=folder / CARD,
            next_step="write down data, minutes, hardware, figures, limits",
        )
    predictor, config = load_run(run)
    seconds = task_seconds(run)
    of_its_machine: dict[str, Any] = {
        "start_from": None,
        "lora_rank": 0,
        "data": None,
        "data_tasks": [],
        "data_options": {},
        "crop": 1.0,
        "flip": False,
        "color": 0.0,
    }
    config = dataclasses.replace(config, out=Path("runs") / name, **of_its_machine)
    predictor.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[operator]
    save_config(folder, config)
    write_spent(folder, seconds)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Ships a run and prints how large its files are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("name", help="of the weights, such as generalist")
    options = parser.parse_args(argv)
    folder = ship(options.run, options.name)
    for file in sorted(folder.iterdir()):
        print(f"{file}: {file.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    sys.exit(exit_code(main))
