"""Peak memory of one kind of work, measured in a process of its own.

`python -m transframer.benchmarks.speed_memory '{"what": "sampling", ...}'` prints it; `peaks` calls that.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transframer.benchmarks.peers import PEERS
from transframer.errors import TransframerError
from transframer.training.tally import peak_memory_mib

TRAINING_BATCH = 16
_TIMEOUT_S = 1800


def peaks(
    presets: Sequence[str],
    *,
    batch: int,
    events: int,
    device: str,
    peer_presets: Sequence[str] = (),
    threads: int = 1,
    report: Callable[[str], object] = lambda what: None,
) -> Iterator[dict[str, Any]]:
    """Peak memory by size: of drawing one batch, of a training step of 16 frames, and of drawing with peers,
    but for those that compile.

    Args:
        presets: the sizes.
        batch: frames that are drawn at once.
        events: drawn for a frame.
        device: where to compute.
        peer_presets: the sizes at which the installed peers are measured too.
        threads: of PyTorch.
        report: told what is going to be measured.

    Raises:
        TransframerError: a process failed.
    """
    report("memory: a process for each")
    jobs: list[dict[str, Any]] = []
    for preset in presets:
        common = {"preset": preset, "events": events, "device": device, "threads": threads}
        jobs.append({"what": "sampling", "who": "ours", "batch": batch, **common})
        jobs.append({"what": "training", "who": "ours", "batch": TRAINING_BATCH, **common})
        able = [peer.name for peer in PEERS if peer.installed and not peer.compiled]
        for name in able if preset in peer_presets else ():
            jobs.append({"what": "sampling", "who": name, "batch": batch, **common})
    for job in jobs:
        yield _in_a_process(job)


def _in_a_process(job: dict[str, Any]) -> dict[str, Any]:
    words = [sys.executable, "-W", "ignore", "-m", __spec__.name, json.dumps(job)]
    environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise TransframerError(f"measuring the memory of {job} took more than {_TIMEOUT_S} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TransframerError(f"measuring the memory of {job} failed: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def resident_peak_mib() -> float:
    """The greatest resident size of this process, in MiB.

    On Linux a process inherits the figure of its parent in `resource.getrusage`; /proc knows its own.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        status = ""
    own = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(own[1]) / 2**10 if own else peak_memory_mib()


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Does a job in this process.

    Args:
        job: what ("sampling" or "training"), who, preset, batch, events, device and threads.

    Returns:
        The job with its peak, and with what was resident before the model was made, in MiB.
    """
    import torch

    from transframer.benchmarks import sampling_speed, speed_training

    torch.set_num_threads(job["threads"])
    device = torch.device(job["device"])
    peer = next((peer for peer in PEERS if peer.name == job["who"]), None)
    if peer is not None:
        importlib.import_module(peer.package)
    asked = speed_training.episodes(job["batch"]) if job["what"] == "training" else []
    before = resident_peak_mib()
    if asked:
        model = speed_training.model_of(job["preset"], asked, device)
        speed_training.stepper(model, model.collate(asked).to(device))()
    else:
        config = sampling_speed.config_of(job["preset"], job["events"], one_chunk=peer is not None)
        if peer is None:
            sampling_speed.ours("ours", config, job["events"], job["batch"], device).draw()
        else:
            peer.subject(sampling_speed.likeness(config, job["events"]), job["batch"], device).draw()
    result = {**job, "before_mib": before, "peak_mib": resident_peak_mib()}
    if device.type == "cuda":
        result["peak_gpu_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return result


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
