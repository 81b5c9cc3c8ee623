"""Drawing a chunk's events with compiled kernels, where the model is on the CPU and Numba is installed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.models.choosing import Choice, stops, without_padding
from transframer.models.decoder import Context, TripleDecoder


@cache
def _packing() -> ModuleType | None:
    try:
        from transframer.models import packing
    except ImportError:  # Numba, an optional package
        return None
    return packing


class CompiledDecoder:
    """The decoders of a model as kernels; see `choosing.ChunkDecoder` for what they do.

    The weights are copied: make a new one when they have changed.
    """

    @staticmethod
    def available(decoder: TripleDecoder) -> bool:
        """Whether the decoders are fp32 on the CPU and Numba is installed."""
        weight = decoder.start
        return weight.device.type == "cpu" and weight.dtype == torch.float32 and _packing() is not None

    def __init__(self, decoder: TripleDecoder, choice: Choice) -> None:
        packing = _packing()
        assert packing is not None
        self._packing, self._decoder, self._choice = packing, decoder, choice
        self._weights = packing.pack(decoder)

    def chunk(self, context: Context, capacity: int, last: Int[Tensor, "2 b"], grid: Tensor) -> CompiledChunk:
        """A chunk that begins; arguments as of `ChunkDecoder`."""
        packing = self._packing
        scene = packing.pack_scene(self._decoder, context)
        memory = packing.pack_memory(context, capacity)
        state = packing.pack_state(self._decoder, last, grid)
        return CompiledChunk(self._choice, (*self._weights, scene, memory, state))


class CompiledChunk:
    """One chunk of b samples; has the methods of `choosing.ChunkDecoder`."""

    def __init__(self, choice: Choice, arrays: tuple) -> None:
        self._choice, self._arrays = choice, arrays
        self.passes = 0

    def give(self, events: Int[Tensor, "3 b n"]) -> None:
        """Takes the overlap with the chunk before as drawn."""
        from transframer.models.draw_kernels import give

        if events.shape[2]:
            give(events.permute(1, 2, 0).contiguous().numpy(), *self._arrays)

    def draw(self, uniform: Float[Tensor, "b n k"]) -> tuple[Int[Tensor, "3 b m"], Float[Tensor, " b"]]:
        """As of `ChunkDecoder`; speculates where the choice says so, which needs more numbers per event."""
        from transframer.models.draw_kernels import draw
        from transframer.models.speculation_kernels import speculate

        choice, b = self._choice, len(uniform)
        events = stops(b, uniform.shape[1], uniform.device).permute(1, 2, 0).contiguous()
        nats = np.zeros(b, np.float32)
        heads, layers, *of_samples = self._arrays

        def run(rows: slice) -> int:
            """Draws for some of the samples; releases the GIL meanwhile."""
            own = [type(arrays)._make(_rows(array, rows) for array in arrays) for arrays in of_samples]
            how = float(choice.temperature), float(choice.top_p)
            arguments = uniform.numpy()[rows], heads, layers, *own, events.numpy()[rows], nats[rows]
            if choice.proposals:
                return speculate(*how, choice.proposals, *arguments)
            draw(*how, choice.least, choice.estimate == "mean", *arguments)
            return 0

        parts = min(b, torch.get_num_threads())
        if parts == 1:
            self.passes = run(slice(b))
        else:
            edges = [b * i // parts for i in range(parts + 1)]
            with ThreadPoolExecutor(parts) as pool:
                self.passes = sum(pool.map(run, map(slice, edges, edges[1:])))
        return without_padding(events.permute(2, 0, 1)), torch.from_numpy(nats)


def _rows(array: np.ndarray | int, rows: slice) -> np.ndarray | int:
    """The samples' part of an array that has them first; one without any is of none."""
    return array[rows] if isinstance(array, np.ndarray) and len(array) else array
