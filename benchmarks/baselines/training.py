"""Trains specialists on the world for a number of device-seconds, and keeps them on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from transframer.benchmarks.baselines.catalog import make_specialist
from transframer.benchmarks.baselines.specialist import Specialist
from transframer.benchmarks.protocol import device_name, fingerprint, weights_hash
from transframer.data.formats.atomic import whole_file, write_json
from transframer.data.world import World
from transframer.seeds import seed_for
from transframer.task import Task
from transframer.training.rendering import DeviceWorld
from transframer.training.stopping import StopRequests

# Part of the name under which a specialist is kept: raise it when losses or the training below change.
RECIPE = 1
WARMUP_STEPS = 50
SAVE_EVERY_S = 60.0
SAY_EVERY_S = 30.0


@dataclass(frozen=True)
class TrainedSpecialist:
    """A specialist and what to know of it.

    Attributes:
        network: ready to predict.
        facts: JSON values: `network` (in words), `parameters`, `device_seconds`, `steps`, `samples_seen`,
            `seed`, `weights_sha256`.
    """

    network: Specialist
    facts: dict[str, Any]


def trained_specialist(
    task: Task, *, seconds: float, seed: int, size_px: int, folder: Path, device: torch.device
) -> TrainedSpecialist:
    """The task's specialist, read from a folder, or trained there; a training that was stopped goes on.

    Args:
        seconds: device-seconds to train, the rendering of the scenes included: of a GPU by the clock, of a
            CPU those that its cores worked, so that other programs beside do not shorten the training.
        seed: of the weights and of the world.
        size_px: height and width of the frames.
        folder: of all specialists; this one's files lie in a folder of their own there.

    Raises:
        ConfigError: the task has no specialist.
        DataError: a file cannot be written.
        SystemExit: 130 or 143 when Ctrl-C or SIGTERM stopped it, after it was saved.
    """
    torch.manual_seed(seed_for(seed, "specialist", task.name))
    network = make_specialist(task)
    plan = {
        "task": task.name,
        "settings": dataclasses.asdict(task),
        "network": str(network),  # another architecture is another specialist
        "recipe": RECIPE,
        "learning_rate": network.learning_rate,
        "batch_size": network.batch_size,
        "seconds": seconds,
        "seed": seed,
        "size_px": size_px,
        "scenes": _fingerprint_of_scenes(task, network, seed, size_px),
        "device": device_name(device),  # whose seconds they are
    }
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()[:12]
    own = folder / f"{task.name}-{digest}"
    network = network.to(device)
    facts = _stored(network, own)
    if facts is None:
        with _one_thread():
            facts = _train(network, task, seconds, seed, size_px, own, device)
    return TrainedSpecialist(network.eval(), facts)


def _fingerprint_of_scenes(task: Task, network: Specialist, seed: int, size_px: int) -> str:
    """Of a world that renders or labels otherwise the specialist is another."""
    scenes = World("train", seed, size_px).samples(range(2), task.sample_type, network.training_clip)
    return fingerprint(scenes)


def _stored(network: Specialist, folder: Path) -> dict[str, Any] | None:
    """Loads a finished training; None where there is none, or none that is whole."""
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError):
        return None
    if facts.get("weights_sha256") != fingerprint(dict(sorted(weights.items()))):
        return None
    network.load_state_dict(weights)
    return facts


def _train(
    network: Specialist,
    task: Task,
    seconds: float,
    seed: int,
    size_px: int,
    folder: Path,
    device: torch.device,
) -> dict[str, Any]:
    world = DeviceWorld("train", seed, size_px, device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=network.learning_rate, betas=(0.9, 0.98), weight_decay=0.02
    )
    step, spent = _resumed(network, optimizer, folder / "state.pt", device)
    clock = _DeviceClock(device, spent)
    size, saved_s, said_s = network.batch_size, spent, spent
    network.train()
    with StopRequests() as requests:
        while (spent := clock.seconds()) < seconds:
            for group in optimizer.param_groups:
                group["lr"] = (
                    network.learning_rate * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - spent / seconds)
                )
            scenes = range(step * size, (step + 1) * size)
            samples = world.samples(scenes, task.sample_type, network.training_clip)
            loss = network.loss(samples)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            step += 1
            if spent - said_s >= SAY_EVERY_S or step == 1:
                line = (
                    f"specialist of {task.name}: {spent / seconds:4.0%}  step {step}  loss {loss.item():.4f}"
                )
                print(line, file=sys.stderr, flush=True)
                said_s = spent
            if spent - saved_s >= SAVE_EVERY_S or requests.signal_number:
                _save(network, optimizer, step, clock.seconds(), folder / "state.pt")
                saved_s = spent
            if requests.signal_number:
                print("stopped and saved; the same command continues", file=sys.stderr)
                raise SystemExit(128 + requests.signal_number)
    network.eval()
    facts = {
        "network": network.about,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "device_seconds": round(spent, 1),
        "steps": step,
        "samples_seen": step * size,
        "seed": seed,
        "weights_sha256": weights_hash(network),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "model.safetensors") as temporary:
        save_file({name: x.contiguous() for name, x in network.state_dict().items()}, temporary)
    write_json(folder / "facts.json", facts)
    (folder / "state.pt").unlink(missing_ok=True)
    return facts


@contextmanager
def _one_thread() -> Iterator[None]:
    """So that a CPU's seconds do not depend on how many threads share, or spin for, such small products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _DeviceClock:
    """Seconds that a device has worked for this process: by the clock on a GPU, of all cores on a CPU."""

    def __init__(self, device: torch.device, spent: float) -> None:
        self.now = time.process_time if device.type == "cpu" else time.perf_counter
        self.start = self.now() - spent

    def seconds(self) -> float:
        """So far, those before a stop included."""
        return self.now() - self.start


def _resumed(
    network: Specialist, optimizer: torch.optim.Optimizer, file: Path, device: torch.device
) -> tuple[int, float]:
    """Steps and seconds of a training that was stopped, whose state is put back; zeros for none."""
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, UnpicklingError):  # none, or damaged: anew
        return 0, 0.0
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["spent"]


def _save(network: Specialist, optimizer: torch.optim.Optimizer, step: int, spent: float, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "spent": spent,
    }
    with whole_file(file) as temporary:
        torch.save(state, temporary)
