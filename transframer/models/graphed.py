"""Drawing a chunk's events on a GPU: the step of one event is recorded once, and replayed for the others.

An event is some two hundred small operations, which a GPU does faster than Python asks for them. A CUDA
graph asks for all of them at once. What it reads and writes must stay where it is, so that the state of the
samples is kept in tensors that every step overwrites, the place in the chunk among them; and caches are
attended to as wholes, with a mask of what they hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.models.choosing import PATIENCE, ChunkDecoder, stops, without_padding
from transframer.models.decoder import STOP


class GraphedChunk(ChunkDecoder):
    """A chunk whose events are drawn one by one by replaying one step.

    For draws event by event, not for estimates by coefficient, whose steps depend on what they find. On a CPU
    the same step runs unrecorded. Samples that have stopped stay in the batch, and draw stops.
    """

    def draw(self, uniform: Float[Tensor, "b n 3"]) -> tuple[Int[Tensor, "3 b m"], Float[Tensor, " b"]]:
        """As of `ChunkDecoder`."""
        b, n, _ = uniform.shape
        self._uniform, self._drawn = uniform, stops(b, n, uniform.device)
        self._nats, self._event_number = uniform.new_zeros(b), torch.zeros(1, device=uniform.device).long()
        layers = [cache for stack in self.caches for cache in stack]
        for cache in layers:
            cache.begin_fixed_steps()
        self._held = [self.next_input.clone(), self.last_channel.clone(), self.last_position.clone()]
        self._held += [self.grid.clone(), self._drawn, self._nats, self._event_number]
        self._held += [cache.end for cache in layers if cache.end is not None]
        step = self._recorded() if uniform.device.type == "cuda" else self._step
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
        for stack in self.caches:
            for cache in stack:
                cache.advance()

    def _recorded(self) -> Callable[[], None]:
        """The step as a graph; the step itself, with a warning, where it cannot be recorded."""
        before = [held.clone() for held in self._held]
        graph = torch.cuda.CUDAGraph()
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries make room for themselves before anything is recorded
                for _ in range(2):
                    self._step()
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                self._step()
        except RuntimeError as error:
            warnings.warn(f"drawing without a CUDA graph, which is slower: {error}", stacklevel=2)
            return self._step
        finally:
            for held, value in zip(self._held, before, strict=True):
                held.copy_(value)
        return graph.replay
