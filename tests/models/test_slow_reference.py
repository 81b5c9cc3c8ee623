"""The loss against an independent reference: one event at a time, plain loops, sets of legal pairs, fp64."""

import math

import torch

from tests.models.conftest import CONFIG
from transframer.codec import channel_plane, code_episodes, grid_from_tokens, tokens_from_grid
from transframer.models.decoder import STOP


def attend(attention, query_row, rows):
    """Softmax attention of one query row over memory rows, head by head."""
    heads = attention.heads
    query = attention.query(query_row).view(heads, -1)
    keys, values = attention.key_value(torch.stack(rows)).chunk(2, -1)
    out = []
    for head in range(heads):
        weight = torch.softmax(keys @ query[head] / math.sqrt(len(query[head])), 0)
        out.append(weight @ values)
    return attention.out(torch.cat(out))


def run_stack(stack, inputs, memory):
    """The last row's output of a stack, recomputing every layer for every row."""
    rows = list(inputs)
    for layer in stack:
        normed = [layer.norms[0](row) for row in rows]
        after = []
        for i, row in enumerate(rows):
            row = row + layer.gates[0] * attend(layer.attention, normed[i], normed[: i + 1])
            row = row + layer.gates[1] * attend(layer.cross_attention, layer.norms[1](row), list(memory))
            after.append(row + layer.gates[2] * layer.mlp(layer.norms[2](row)))
        rows = after
    return rows[-1]


def log_softmax_over(logits, legal, chosen):
    picked = {i: float(logits[i]) for i in legal}
    top = max(picked.values())
    return picked[chosen] - top - math.log(sum(math.exp(v - top) for v in picked.values()))


def around(past, channel, position, gy, gx):
    """asinh of the coefficients decoded before an event in its cell and the four beside it."""
    seen = {(c, p): v for c, p, v in past}
    y, x = divmod(position, gx)
    rows = []
    for dy, dx in ((0, 0), (0, -1), (-1, 0), (0, 1), (1, 0)):
        inside = 0 <= y + dy < gy and 0 <= x + dx < gx
        at = (y + dy) * gx + x + dx
        for c in range(192):
            value = seen.get((c, at), 0) if inside else 0
            rows.append(math.asinh(value))
    return torch.tensor(rows, dtype=torch.float64)


def drafted_events(coded, last, cells_of):
    """Log-probability of each later pair to be the next, and of none, where coefficients are independent."""
    nats, so_far = {}, 0.0
    for channel in range(192):
        for position in cells_of(channel):
            if (channel, position) > last:
                log_odds = float(coded[channel, position])
                nats[channel, position] = so_far - math.log1p(math.exp(-log_odds))
                so_far -= math.log1p(math.exp(log_odds))
    return nats, so_far


def slow_log_prob(model, episode):
    """Nats of a frame by the definition of the factorisation."""
    decoder, config = model.decoder, model.config
    tokens = tokens_from_grid(code_episodes([episode]), config.max_value)
    triples = list(zip(*(t[0, : tokens.length[0]].tolist() for t in tokens[:3]), strict=True))
    events = [*triples, (STOP, 0, 1)]
    batch = model.collate([episode])
    dct = model.dct_images(batch)
    gy, gx = episode.size[0] // 8, episode.size[1] // 8
    halved = episode.query.codec.subsampling == "4:2:0"

    def cells_of(channel):
        chroma = channel_plane[channel] > 0
        return [
            y * gx + x for y in range(gy) for x in range(gx) if not (chroma and halved and (y % 2 or x % 2))
        ]

    table = decoder.values.table()
    total, start = 0.0, 0
    while True:
        before = type(tokens)(*(t[:, :start] for t in tokens[:3]), torch.tensor([start]))
        last = triples[start - 1] if start else (0, -1, 1)
        context = model.encode(batch, dct, grid_from_tokens(before, (gy, gx)), torch.tensor([last[0]]))
        cells, memory = context.cells[0], context.cells[0]
        inputs = [[], [], []]
        row = decoder.start
        for i in range(start, min(start + config.chunk_events, len(events))):
            channel, position, value = events[i]
            previous = events[i - 1] if i else (0, -1, 1)
            inputs[0].append(row)
            h = run_stack(decoder.stacks[0], inputs[0], memory)
            draft = [
                part[0].detach() for part in (context.draft.coded, context.draft.centre, context.draft.spread)
            ]
            pairs, none = drafted_events(draft[0], previous[:2], cells_of)
            legal = {c for c, _ in pairs} | {STOP}
            prior = {
                c: math.log(sum(math.exp(n) for (k, _), n in pairs.items() if k == c)) for c in legal - {STOP}
            }
            logits = decoder.channel_head(decoder.norms[0](h))
            logits = {c: float(logits[c]) + (none if c == STOP else prior[c]) for c in legal}
            nats = log_softmax_over(logits, legal, channel)
            if channel != STOP:
                inputs[1].append(h + decoder.channel_vector(torch.tensor(channel)))
                h = run_stack(decoder.stacks[1], inputs[1], memory)
                query = decoder.pointer_query(decoder.norms[1](h))
                keys = [
                    decoder.pointer_key(cell) + at for cell, at in zip(cells, context.positions, strict=True)
                ]
                legal = {p for p in cells_of(channel) if (channel, p) > previous[:2]}
                logits = {p: query @ keys[p] / math.sqrt(config.width) + pairs[channel, p] for p in legal}
                nats += log_softmax_over(logits, legal, position)
                where = context.positions[position] + decoder.cell(cells[position])
                coded, centre, spread = (part[channel, position] for part in draft)
                told = decoder.drafted(torch.stack([coded, centre, spread.log()]))
                near = decoder.neighbours(around(events[:i], channel, position, gy, gx))
                inputs[2].append(h + where + told + near)
                h = run_stack(decoder.stacks[2], inputs[2], memory)
                h = decoder.norms[2](h)
                logits = decoder.values.query(h) @ table.T / math.sqrt(config.width)
                logits = logits + decoder.values.bias.weight[channel]
                shift, log_scale = decoder.values.correction(h)
                for k, v in enumerate(range(-config.max_value, config.max_value + 1)):
                    distance = abs(math.asinh(v) - centre - shift)
                    logits[k] -= distance / (spread * math.exp(log_scale))
                legal = set(range(2 * config.max_value + 1)) - {config.max_value}
                nats += log_softmax_over(logits, legal, value + config.max_value)
                row = decoder.channel_vector(torch.tensor(channel)) + where + table[value + config.max_value]
            if i == start or i >= start + (config.chunk_overlap if start else 0):
                total += 0.0 if start and i < start + config.chunk_overlap else nats
        if i == len(events) - 1:
            return total
        start += config.chunk_events - config.chunk_overlap


@torch.no_grad()
def test_log_prob_equals_the_slow_reference_in_fp64(any_model, episodes):
    any_model.double()
    for e, events in zip([episodes[0], episodes[3]], [1, 2], strict=True):
        fast = any_model.log_prob([e]).item()
        slow = slow_log_prob(any_model, e)
        count = int(tokens_from_grid(code_episodes([e])).length)
        assert count > CONFIG.chunk_events * events, "the frame must need several chunks to prove anything"
        assert abs(fast - slow) < 1e-6 * abs(slow)
