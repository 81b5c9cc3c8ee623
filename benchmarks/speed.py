"""`transframer benchmark speed`: how fast everything is beside its peers and its limits, in one process."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

import torch

from transframer.benchmarks import codec_speed, sampling_speed, speed_memory, speed_training, world
from transframer.benchmarks.machine import LARGE_BYTES, bandwidth, described, matrix_rate
from transframer.benchmarks.peers import INSTALL, PEERS
from transframer.benchmarks.speed_config import SpeedConfig
from transframer.benchmarks.speed_report import markdown
from transframer.benchmarks.timing import Clock, Row, Spread
from transframer.data.formats.atomic import write_text
from transframer.training.distributed import choose_device
from transframer.training.precision import keep_kernels

_CLIPS = 128


def measure_speed(config: SpeedConfig) -> dict[str, Any]:
    """Measures, and writes speed.json and speed.md after every part, each whole or not at all.

    Returns:
        What speed.json holds: the settings, the machine, the peers that are missing, and the rows.

    Raises:
        TransframerError: a setting that this machine cannot serve, a file that cannot be written.
    """
    device = choose_device(config.device)
    torch.set_num_threads(config.threads)
    clock = Clock(device, config.threads)
    record: dict[str, Any] = {
        "settings": json.loads(json.dumps(asdict(config), default=str)),
        "clock": clock.name,
        "machine": described(clock),
        "missing": missing_peers() if config.peers else {},
        "parts": {},
    }
    for name, why in record["missing"].items():
        _say(f"{name}: {why}")
    keep_kernels()  # as a training does
    limits: dict[str, Spread] = {}
    if {"sampling", "training"} & set(config.parts):
        _say("limits: memory bandwidth, matrix products")
        rounds = max(3, config.rounds)
        limits = {
            "memory_bytes_per_s": bandwidth(LARGE_BYTES, clock, rounds),
            "matrix_flops_per_s": matrix_rate(clock, rounds),
        }
        if config.precision == "bf16" and "training" in config.parts:
            limits["bf16_matrix_flops_per_s"] = matrix_rate(clock, rounds, torch.bfloat16)
        record["machine"]["measured"] = as_json(limits)
    for part in config.parts:
        rows = PARTS[part](config, clock, limits)
        done = record["parts"][part] = []
        try:
            for row in rows:
                done.append(as_json(row))
                _say(_line(row))
        finally:  # what was measured before an interruption is kept
            _write(config, record)
    print(f"report: {config.out / 'speed.md'}")
    return record


def missing_peers() -> dict[str, str]:
    """Why each peer that is not measured is not, by its package."""
    names = {peer.package: peer.installed for peer in PEERS}
    names |= {name: importlib.util.find_spec(name) is not None for name in ("simplejpeg", "scipy")}
    return {name: INSTALL for name, installed in names.items() if not installed}


def as_json(value: Any) -> Any:
    """Dataclasses as dictionaries, at any depth."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: as_json(item) for key, item in vars(value).items()}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value


def _sampling(config: SpeedConfig, clock: Clock, limits: dict[str, Spread]) -> Iterator[Row]:
    return sampling_speed.speeds(
        config.presets,
        config.batches,
        clock,
        events=config.events,
        rounds=config.rounds,
        memory_bandwidth=limits["memory_bytes_per_s"].median,
        matrix_rate=limits["matrix_flops_per_s"].median,
        peer_presets=config.peer_presets if config.peers else (),
        compiled=config.compiled,
        report=_say,
    )


def _training(config: SpeedConfig, clock: Clock, limits: dict[str, Spread]) -> Iterator[Row]:
    rate = limits["bf16_matrix_flops_per_s" if config.precision == "bf16" else "matrix_flops_per_s"].median
    yield from speed_training.speeds(
        config.presets,
        clock,
        rounds=config.rounds,
        matrix_rate=rate,
        batch_size=config.training_batch,
        precision=config.precision,
        report=_say,
    )
    if config.peers and not clock.by_processor:
        _say("training: the plain decoder is compared on one thread of a CPU only")
    elif config.peers:
        asked = [preset for preset in config.presets if preset in config.peer_presets]
        yield from speed_training.beside_plain(asked, rounds=config.rounds, report=_say)


def _codec(config: SpeedConfig, clock: Clock, limits: dict[str, Spread]) -> Iterator[Row]:
    """On the CPU, one thread and processor time, wherever the rest runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for size_px in config.sizes_px:
            _say(f"codec: {size_px} px")
            for speed in codec_speed.speeds([size_px], rounds=config.rounds):
                if not config.peers and speed.who != "Pillow":
                    continue
                ours, peer = (
                    Spread(median, *ends)
                    for median, ends in ((speed.ours, speed.ours_range), (speed.peer, speed.peer_range))
                )
                what = f"{speed.what}, {size_px} px"
                facts = {"size_px": size_px, "clock": "processor time"}
                yield Row("codec", what, f"ours, beside {speed.who}", "frames/s", ours, None, None, facts)
                ratio = Spread(speed.ratio, speed.low, speed.high)
                yield Row("codec", what, speed.who, "frames/s", peer, None, ratio, facts)
    finally:
        torch.set_num_threads(threads)


def _world(config: SpeedConfig, clock: Clock, limits: dict[str, Spread]) -> Iterator[Row]:
    for labels in world.LABEL_SETS:
        laps = [
            world.timed(0, labels, _CLIPS, sampling_speed.SIZE_PX, str(clock.device))
            for _ in range(config.rounds + 1)
        ][1:]
        frames = 2 * _CLIPS  # of a clip of two
        by_wall = Spread.of([frames / wall for wall, _ in laps])
        by_processor = Spread.of([frames / max(used, 1e-9) for _, used in laps])
        rate = by_processor if clock.by_processor else by_wall
        yield Row("world", " ".join(labels), "ours", "frames/s", rate, by_wall)


def _memory(config: SpeedConfig, clock: Clock, limits: dict[str, Spread]) -> Iterator[dict[str, Any]]:
    return speed_memory.peaks(
        config.presets,
        batch=max(config.batches),
        events=config.events,
        device=str(clock.device),
        peer_presets=config.peer_presets if config.peers else (),
        threads=config.threads,
        report=_say,
    )


PARTS: dict[str, Callable[[SpeedConfig, Clock, dict[str, Spread]], Iterator[Any]]] = {
    "sampling": _sampling,
    "training": _training,
    "codec": _codec,
    "world": _world,
    "memory": _memory,
}


def _line(row: Any) -> str:
    if isinstance(row, dict):
        return f"  {row['what']}, {row['preset']}, {row['who']}: {row['peak_mib']:.0f} MiB"
    ratio = f", ours is {row.ratio.median:.2f} times as fast" if row.ratio else ""
    return f"  {row.what}, {row.who}: {_short(row.rate.median)} {row.unit}{ratio}"


def _short(value: float) -> str:
    return f"{value:,.{max(0, 2 - int(math.log10(max(value, 1))))}f}"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _write(config: SpeedConfig, record: dict[str, Any]) -> None:
    write_text(config.out / "speed.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(config.out / "speed.md", markdown(record))
