"""How fast a training step is beside a plain decoder's: `python -m transframer.benchmarks.training_speed`.

One thread, processor time, forward and backward, the same batches for both; the optimiser's step, equal for
both, is left out. The peer is `transframer.benchmarks.plain`: the same U-Net, width, heads, layers, chunks
and targets, and as many parameters. Both take turns on every batch; the ratio is ours over the peer's events
per second, and a row gives its median and its range over the batches. Only events that are scored count.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from transframer.benchmarks.plain import parameter_count, stand_in
from transframer.data.world import World
from transframer.models.presets import PRESETS, TransframerConfig
from transframer.models.transframer import Transframer
from transframer.registry import get_task
from transframer.training.precision import keep_kernels

SIZE_PX = 64
PRECISIONS = ("fp32", "bf16")
# `tiny`, and the model of the project's first comparison with the public implementation: 256 channels, 6
# layers, 8 episodes; its encoder is as wide beside the decoder as the presets' are.
CONFIGS = {
    "tiny": PRESETS["tiny"],
    "256": TransframerConfig(
        encoder_widths=(224, 320),
        width=256,
        channel_layers=2,
        position_layers=2,
        value_layers=2,
        heads=8,
        mlp_ratio=4.0,
        chunk_events=256,
        chunk_overlap=32,
    ),
}
# Without what the plain decoder lacks: the draft, its hints, the sketch and the stem on the pixels.
CONFIGS["bare"] = replace(CONFIGS["256"], draft=False, sketch=False, pixel_stem=())
# Those of the demo: figures stay comparable when a task is registered.
TASKS = (
    "depth_estimation", "frame_interpolation", "image_classification", "object_detection", "optical_flow",
    "semantic_segmentation", "video_prediction", "view_synthesis",
)  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """One comparison.

    Attributes:
        what: the configuration, and the episodes: "tasks" in turns, each as long as its frames are, or
            "long", whose chunks have one length, so that nothing is padded.
        precision: "fp32", or "bf16" as training does it, by autocast.
        batch: episodes in a step.
        parameters, peer_parameters: trained numbers.
        ours, peer: scored events per second of processor time, median over the batches.
        frames, peer_frames: target frames per second, likewise.
        ratio: ours over the peer's events per second, median over the batches.
        low, high: the smallest and the largest ratio of a batch.
        memory, peer_memory: bytes an episode saves for the backward pass, median over the batches.
    """

    what: str
    precision: str
    batch: int
    parameters: int
    peer_parameters: int
    ours: float
    peer: float
    frames: float
    peer_frames: float
    ratio: float
    low: float
    high: float
    memory: float
    peer_memory: float


def speeds(
    config: TransframerConfig,
    what: str,
    *,
    precision: str = "fp32",
    batch: int = 8,
    rounds: int = 5,
    tasks: Sequence[str] = (),
    length: str = "tasks",
) -> Speed:
    """Times training steps of a model of these settings and of its stand-in, in turns.

    Args:
        what: names the settings in the row.
        rounds: batches; one more comes before, to warm up.
        tasks: of the episodes; empty for those of the demo.
        length: "tasks" or "long", see `Speed`.
    """
    names = list(tasks or TASKS)
    episodes = _Episodes(names, length)
    config = replace(config, tasks=tuple(names), kinds=episodes.kinds)
    torch.manual_seed(0)
    model = Transframer(config)
    peer = stand_in(config, parameter_count(model))
    rows = []
    for i in range(-1, rounds):
        inputs = model.collate(episodes.batch(max(i, 0), batch))
        turns = (model, peer) if i % 2 else (peer, model)
        measured = {id(network): _measure(network, inputs, precision, i) for network in turns}
        mine, theirs = measured[id(model)], measured[id(peer)]
        if mine[0] != theirs[0]:
            raise AssertionError("ours and the stand-in were given different targets")
        if i >= 0:
            rows.append((mine, theirs))
    ratios = [theirs[1] / mine[1] for mine, theirs in rows]
    ours, others = ([row[k] for row in rows] for k in (0, 1))
    middle = statistics.median
    return Speed(
        what=f"{what}, {length}",
        precision=precision,
        batch=batch,
        parameters=parameter_count(model),
        peer_parameters=parameter_count(peer),
        ours=middle(events / used for events, used, _ in ours),
        peer=middle(events / used for events, used, _ in others),
        frames=middle(batch / used for _, used, _ in ours),
        peer_frames=middle(batch / used for _, used, _ in others),
        ratio=middle(ratios),
        low=min(ratios),
        high=max(ratios),
        memory=middle(saved / batch for *_, saved in ours),
        peer_memory=middle(saved / batch for *_, saved in others),
    )


class _Episodes:
    """Batches of episodes of the world."""

    def __init__(self, names: Sequence[str], length: str) -> None:
        self.tasks, self.long = [get_task(name) for name in names], length == "long"
        self.world = World("train", 0, SIZE_PX)
        self.kinds = tuple(
            sorted({frame.kind for e in self._of(range(len(names))) for frame in _annotations(e)})
        )

    def batch(self, index: int, count: int) -> list:
        """Episodes number index * count and on."""
        return self._of(range(index * count, (index + 1) * count))

    def _of(self, numbers: Sequence[int]) -> list:
        episodes = []
        for i in numbers:
            task = self.tasks[i % len(self.tasks)]
            episode = task.format(self.world.samples([i], task.sample_type, task.clip)[0])
            if self.long and episode.target is not None:  # noise codes every coefficient: no chunk is short
                noise = torch.randint(
                    256, episode.target.image.shape, generator=torch.Generator().manual_seed(i)
                )
                episode = replace(episode, target=replace(episode.target, image=noise.to(torch.uint8)))
            episodes.append(episode)
        return episodes


def _annotations(episode) -> list:
    return [*(frame.annotation for frame in episode.context), episode.query]


def _measure(network, inputs, precision: str, seed: int) -> tuple[int, float, int]:
    """Scored events of one step, its seconds of processor time, and the bytes it saved for backward.

    The bytes are counted in a forward pass of its own, so that counting takes no part in the time.
    """

    def forward() -> tuple[Tensor, int]:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = network.loss(inputs, torch.Generator().manual_seed(max(seed, 0)))
        return loss.total, int(loss.events.sum())

    network.zero_grad(set_to_none=True)
    began = time.process_time()
    total, events = forward()
    total.backward()
    used = time.process_time() - began
    return events, used, saved_bytes(forward, network)


def saved_bytes(forward, network: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass, each storage once, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that its own graph holds would keep all of the graph for good

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward()  # held until all is counted, or a freed storage's address could come again
    del kept
    return sum(storages.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of ratios.

    Args:
        arguments: of the command line; those of this process where None.
    """
    parser = argparse.ArgumentParser(description="A training step's speed beside a plain decoder's.")
    parser.add_argument("--configs", nargs="+", default=["256"], choices=CONFIGS, help="settings to time")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS, help="fp32, bf16")
    parser.add_argument("--lengths", nargs="+", default=["tasks", "long"], choices=["tasks", "long"])
    parser.add_argument("--batch", type=int, default=8, help="episodes in a step")
    parser.add_argument("--rounds", type=int, default=5, help="batches of each row")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_kernels()  # as a training does
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {vars(options)}")
    print(f"{'':<14}{'':<6}{'ours/s':>8}{'peer/s':>8}{'ratio':>7}  {'[range]':<14}{'MB an episode':>14}")
    for name in options.configs:
        for precision in options.precisions:
            for length in options.lengths:
                row = speeds(
                    CONFIGS[name],
                    name,
                    precision=precision,
                    batch=options.batch,
                    rounds=options.rounds,
                    length=length,
                )
                print(
                    f"{row.what:<14}{row.precision:<6}{row.ours:>8.0f}{row.peer:>8.0f}{row.ratio:>7.2f}"
                    f"  [{row.low:.2f}, {row.high:.2f}]"
                    f"  {row.memory / 2**20:>6.1f} {row.peer_memory / 2**20:>6.1f}"
                    f"  {row.frames:.2f} {row.peer_frames:.2f} frames/s"
                    f"  {row.parameters:,} {row.peer_parameters:,} parameters",
                    flush=True,
                )


if __name__ == "__main__":
    main()
