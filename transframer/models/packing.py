"""A decoder's weights, and what it sees of an encoder, as the arrays that the CPU kernels take.

What is linear and follows one another is folded into one matrix: the scale of a layer norm into the matrix
after it, a gate into the matrix before it, the query of the values into their table.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from transframer.codec import N_CHANNELS
from transframer.models.attention import DecoderLayer
from transframer.models.decoder import Context, TripleDecoder
from transframer.models.draw_kernels import State
from transframer.models.event_kernels import Heads, Scene
from transframer.models.layer_kernels import Layers, Memory


def pack(decoder: TripleDecoder) -> tuple[Heads, Layers]:
    """The weights of a decoder in fp32 on the CPU."""
    stacks = [decoder.layers(i) for i in range(3)]
    return _heads(decoder, [len(layers) for layers in stacks]), _layers(
        [layer for layers in stacks for layer in layers]
    )


def _layers(layers: list[DecoderLayer]) -> Layers:
    columns: dict[str, list[Tensor]] = {name: [] for name in Layers._fields}
    for layer in layers:
        own, cross = layer.attention, layer.cross_attention
        up, down = layer.mlp[0], layer.mlp[2]
        assert isinstance(up, nn.Linear)
        assert isinstance(down, nn.Linear)
        gates = layer.gates
        query_key_value = torch.cat([own.query.weight, own.key_value.weight])
        folded = {
            "qkv": _after_norm(layer.norms[0], query_key_value, None),
            "cross_query": _after_norm(layer.norms[1], cross.query.weight, None),
            "up": _after_norm(layer.norms[2], up.weight, up.bias),
        }
        for name, (weight, bias) in folded.items():
            columns[name].append(weight)
            columns[f"{name}_bias"].append(bias)
        columns["attention_out"].append(own.out.weight * gates[0])
        columns["cross_out"].append(cross.out.weight * gates[1])
        columns["down"].append(down.weight * gates[2])
        columns["down_bias"].append(down.bias * gates[2])
    return Layers(**{name: _array(torch.stack(column)) for name, column in columns.items()})


def _heads(decoder: TripleDecoder, depths: list[int]) -> Heads:
    values, norms = decoder.values, decoder.norms
    width, table = decoder.start.shape[0], values.table()
    scale = width**-0.5
    channel = _after_norm(norms[0], decoder.channel_head.weight, decoder.channel_head.bias)
    pointer = _after_norm(norms[1], decoder.pointer_query.weight, decoder.pointer_query.bias)
    value = _after_norm(norms[2], table @ values.query.weight, table @ values.query.bias)
    nothing = table[:0]
    correction, correction_bias = nothing, nothing[:, 0]
    drafted, drafted_bias = nothing, nothing[:, 0]
    if values.correction is not None and decoder.drafted is not None:
        correction, correction_bias = _after_norm(norms[2], values.correction.weight, values.correction.bias)
        drafted, drafted_bias = decoder.drafted.weight.T, decoder.drafted.bias
    channels = torch.arange(N_CHANNELS + 1, device=table.device)
    numbers = torch.arange(-decoder.max_value, decoder.max_value + 1)
    arrays = dict(
        channel=channel[0],
        channel_bias=channel[1],
        pointer=pointer[0] * scale,
        pointer_bias=pointer[1] * scale,
        value=value[0] * scale,
        value_bias=value[1] * scale,
        value_prior=values.bias.weight,
        correction=correction,
        correction_bias=correction_bias,
        neighbours=decoder.neighbours.weight.T,
        drafted=drafted,
        drafted_bias=drafted_bias,
        channel_vector=decoder.channel_vector(channels),
        value_vector=table,
        scale=numbers.float().asinh(),
    )
    return Heads(layers=np.array(depths), **{name: _array(t) for name, t in arrays.items()})


def pack_scene(decoder: TripleDecoder, context: Context) -> Scene:
    """What a context says, as arrays."""
    draft, prior = context.draft, context.prior
    if draft is None or prior is None:
        rest = position = context.cells.new_zeros(0, 0, 0)
        before = channel = context.cells.new_zeros(0, 0)
        drafted = context.cells.new_zeros(0, 0, 0, 0)
    else:
        rest, before, channel, position = prior.rest, prior.before, prior.channel, prior.position
        drafted = torch.stack([draft.coded, draft.centre, draft.spread.log()], -1)
    return Scene(
        _array(context.positions + decoder.cell(context.cells)),
        _array(context.pointer_keys),
        context.legal.numpy(),
        context.last_legal.numpy(),
        _array(rest),
        _array(before),
        _array(channel),
        _array(position),
        _array(drafted),
        context.columns,
    )


def pack_memory(context: Context, capacity: int) -> Memory:
    """Keys and values of the encoder, and room for those of `capacity` events."""
    pairs = [pair for stack in context.memory for pair in stack]
    keys = torch.stack([keys.transpose(1, 2) for keys, _ in pairs], 1)
    values = torch.stack([values for _, values in pairs], 1)
    b, layers, d, m = keys.shape
    bias = keys.new_zeros(b, m)
    if context.memory_mask is not None:
        bias = bias.masked_fill(~context.memory_mask, -torch.inf)
    return Memory(
        _array(keys),
        _array(values),
        _array(bias),
        np.zeros((b, layers, d, capacity), np.float32),
        np.zeros((b, layers, capacity, d), np.float32),
    )


def pack_state(decoder: TripleDecoder, last: Tensor, grid: Tensor) -> State:
    """The state before the first event of a chunk.

    Args:
        last: 2 x b, the pair before the chunk; (0, -1) before the first.
        grid: b x N_CHANNELS x gy x gx, the coefficients so far, those of events still to be given included.
    """
    b = last.shape[1]
    return State(
        _array(decoder.start.expand(b, -1)).copy(),
        last[0].numpy().copy(),
        last[1].numpy().copy(),
        np.zeros(b, np.int64),
        grid.flatten(2).transpose(1, 2).to(torch.int16).contiguous().numpy(),
    )


def _after_norm(norm: nn.Module, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Matrix and bias of a linear layer that takes a norm's output without its scale and shift."""
    assert isinstance(norm, nn.LayerNorm)
    shift = weight @ norm.bias
    return weight * norm.weight, shift if bias is None else shift + bias


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()
