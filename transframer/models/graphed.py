"""Drawing a chunk's events on a GPU: the step of one event is recorded once, and replayed for the others.

An event is some two hundred small operations, which a GPU does faster than Python asks for them. A CUDA
graph asks for all of them at once. What it reads and writes must stay where it is, so that the state of the
samples is kept in tensors that every step overwrites, the place in the chunk among them; and caches are
attended to as wholes, with a mask of what they hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.models.choosing import PATIENCE, ChunkDecoder, stops, without_padding
from transframer.models.decoder import STOP

_REHEARSED = 2  # steps before one is recorded: libraries make room for themselves in them
_WORTH_RECORDING = 8  # events; recording costs about as much as four
_unable: set[torch.device] = set()  # where recording has failed


class GraphedChunk(ChunkDecoder):
    """A chunk whose events are drawn one by one by replaying one step.

    For draws event by event, not for estimates by coefficient, whose steps depend on what they find. On a CPU
    the same step runs unrecorded. Samples that have stopped stay in the batch, and draw stops.
    """

    def draw(self, uniform: Float[Tensor, "b n 3"]) -> tuple[Int[Tensor, "3 b m"], Float[Tensor, " b"]]:
        """As of `ChunkDecoder`."""
        (b, n, _), device = uniform.shape, uniform.device
        self._uniform, self._drawn = uniform, stops(b, n, device)
        self._nats, self._event_number = uniform.new_zeros(b), torch.zeros(1, device=device).long()
        layers = [layer for stack in self.caches for layer in stack]
        self._end = torch.tensor([layers[0].length], device=device)
        for layer in layers:
            layer.end = self._end
        self._held = [self.next_input.clone(), self.last_channel.clone(), self.last_position.clone()]
        self._held += [self.grid.clone(), self._drawn, self._nats, self._event_number, self._end]
        record = device.type == "cuda" and n >= _WORTH_RECORDING and device not in _unable
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            step = self._recorded() if record else self._step
            for i in range(n):
                step()
                if (i + 1) % PATIENCE == 0 and bool((self._drawn[0, :, i] == STOP).all()):
                    break
        return without_padding(self._drawn), self._nats

    @torch.no_grad()
    def _step(self) -> None:
        """Draws the next event of each sample, all of its state read from and written to the same tensors."""
        self.next_input, self.last_channel, self.last_position, self.grid = self._held[:4]
        event, gained = self._event(self._uniform.index_select(1, self._event_number)[:, 0])
        changed = self.next_input, self.last_channel, self.last_position, self.grid
        for held, new in zip(self._held, changed, strict=False):
            held.copy_(new)
        self._drawn.index_copy_(2, self._event_number, event[..., None])
        self._nats.add_(gained)
        self._event_number.add_(1)
        self._end.add_(1)

    def _rehearse(self) -> None:
        """Takes some steps, and takes them back."""
        before = [held.clone() for held in self._held]
        for _ in range(_REHEARSED):
            self._step()
        for held, value in zip(self._held, before, strict=True):
            held.copy_(value)

    def _recorded(self) -> Callable[[], None]:
        """The step as a graph; the step itself, with a warning, where it cannot be recorded."""
        current, side = torch.cuda.current_stream(), _side_stream(self._uniform.device)
        graph = torch.cuda.CUDAGraph()
        try:
            side.wait_stream(current)
            with torch.cuda.stream(side):
                self._rehearse()
            current.wait_stream(side)
            # Other threads, which may render scenes meanwhile, do what they like.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                self._step()
        except RuntimeError as error:
            torch.cuda.set_stream(current)
            _unable.add(self._uniform.device)
            warnings.warn(f"drawing without a CUDA graph, which is slower: {error}", stacklevel=2)
            return self._step
        return graph.replay


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: libraries keep some memory for every stream that they have run on."""
    return torch.cuda.Stream(device)
