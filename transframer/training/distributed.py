"""One process or many: what a run needs of torch.distributed, and nothing where there is one process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from transframer.errors import ConfigError
from transframer.predictor import FramePredictor, Loss


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: 0 to world_size - 1; rank 0 alone writes.
        world_size: how many processes train together.
        device: this process's own.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the reports and checkpoints."""
        return self.rank == 0

    def greatest(self, *values: float) -> list[float]:
        """The greatest of each value over the processes; every process must ask."""
        return self._reduce(torch.tensor(values, dtype=torch.float64), dist.ReduceOp.MAX).tolist()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a CPU tensor over the processes; every process must ask."""
        return self._reduce(values.clone(), dist.ReduceOp.SUM)

    def from_first(self, value: Any) -> Any:
        """What rank 0 passed, on every process; an error it passed is raised on all of them."""
        if self.world_size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            value = box[0]
        if isinstance(value, Exception):
            raise value
        return value

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes."""
        if self.world_size == 1:
            return module
        # A slice may leave out a task or a camera, and with it the use of some weights. Searching for those
        # also keeps the buckets as they are, so that a resumed run adds gradients up in the same order.
        return DistributedDataParallel(module, find_unused_parameters=True, gradient_as_bucket_view=True)

    def _reduce(self, values: torch.Tensor, operation: Any) -> torch.Tensor:
        if self.world_size > 1:
            dist.all_reduce(values, op=operation)
        return values


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device by name; auto is CUDA where available, and each process of a machine gets its own.

    Raises:
        ConfigError: for a device that is not there.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if cuda else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is no device", field="device", expected="auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"{name!r} is not supported", field="device", expected="auto, cpu or cuda")
    if device.type == "cuda":
        if not cuda:
            raise ConfigError("no CUDA device is available", field="device", next_step="use --device cpu")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if device.index >= torch.cuda.device_count():
            raise ConfigError(
                f"{name!r} is not there",
                field="device",
                expected=f"one of {torch.cuda.device_count()} devices",
            )
        torch.cuda.set_device(device)
    return device


class LossOf(nn.Module):
    """A predictor's loss as a forward pass, which is what data-parallel wrappers take."""

    def __init__(self, predictor: FramePredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, batch: Any, generator: torch.Generator) -> Loss:
        """See `FramePredictor.loss`."""
        return self.predictor.loss(batch, generator)


@contextlib.contextmanager
def ranks(device: str = "auto") -> Iterator[Ranks]:
    """Joins the processes that torchrun started, if it did, and leaves them at the end.

    Restarts after a lost process are reliable where the launcher runs with
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world_size == 1:
        yield Ranks(0, 1, chosen)
        return
    # Decisions to stop travel as CPU tensors, by gloo, whatever carries the gradients.
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world_size, chosen)
    finally:
        dist.destroy_process_group()
