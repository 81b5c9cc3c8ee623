"""How fast the world renders: `python -m transframer.benchmarks.world --workers 2`.

Every worker is a process with one thread, as in a data loader, and renders scenes of its own. The rate of a
round is the frames of all workers over the slowest one's time. Where other programs share the cores, the
second column says more: frames over the processor time that the workers used. Medians over rounds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import time

import torch

from transframer.data.world import World
from transframer.errors import exit_code
from transframer.task import Clip

LABEL_SETS = (("rgb",), ("depth_m", "mask"), ("rgb", "depth_m", "mask", "flow"))
_CLIP = Clip(frames=2)


def timed(worker: int, labels: tuple[str, ...], clips: int, size_px: int, device: str) -> tuple[float, float]:
    """Seconds by the wall and of processor time in which one worker renders `clips` clips of two frames.

    Args:
        worker: which scenes, so that no two workers render the same.
        labels: what to compute, out of `transframer.data.world.LABELS`.
        size_px: side of the image.
        device: where to compute.
    """
    world = World("train", worker, size_px, device)
    started, used = time.perf_counter(), time.process_time()
    world.clips(range(clips), _CLIP, labels)
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, time.process_time() - used


def rates(
    labels: tuple[str, ...],
    *,
    workers: int = 1,
    clips: int = 256,
    rounds: int = 5,
    size_px: int = 64,
    device: str = "cpu",
) -> tuple[float, float]:
    """Frames per second, and per second of one core; medians over rounds, after one that does not count.

    Args:
        labels: what to compute, out of `transframer.data.world.LABELS`.
        workers: processes; 1 renders in this one.
        clips: clips of two frames that each worker renders in a round.
        rounds: how many rounds count.
        size_px: side of the image.
        device: where to compute.
    """
    jobs = [(worker, labels, clips, size_px, device) for worker in range(workers)]
    if workers == 1:
        seconds = [[timed(*jobs[0])] for _ in range(rounds + 1)]
    else:
        with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
            seconds = [pool.starmap(timed, jobs, chunksize=1) for _ in range(rounds + 1)]
    frames = workers * clips * _CLIP.frames
    by_wall = [frames / max(wall for wall, _ in times) for times in seconds[1:]]
    by_core = [frames / sum(used for _, used in times) for times in seconds[1:]]
    return statistics.median(by_wall), statistics.median(by_core)


def main(arguments: list[str] | None = None) -> None:
    """Prints a table of frames per second by labels.

    Args:
        arguments: of the command line; those of this process where None.
    """
    parser = argparse.ArgumentParser(description="Frames per second that the world renders.")
    parser.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes of one thread"
    )
    parser.add_argument("--clips", type=int, default=256, help="clips of two frames per worker and round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, after one that does not")
    parser.add_argument("--size-px", type=int, default=64, help="side of the image")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; with cuda, one worker is enough")
    options = vars(parser.parse_args(arguments))
    torch.set_num_threads(1)
    cores = f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}"
    print(f"torch {torch.__version__}, {cores}, {options}")
    print(f"{'labels':<28}{'frames/s':>10}{'per core':>10}")
    for labels in LABEL_SETS:
        wall, core = rates(labels, **options)
        print(f"{' '.join(labels):<28}{wall:>10.0f}{core:>10.0f}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
