"""How fast frames are drawn: ours beside public encoder-decoders of the same size, and beside the limit.

An event of ours passes through all three stacks, so that it reads the weights of the decoders once, as a
token of a peer does: it counts as one token. The frames are of 64 px, the encoder gives 64 vectors for each
(128 where a preset attends to the context as well), and a frame takes 256 events: the draft of a model with
random weights is set so that the first four channels of luma are coded in every cell, and nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from transframer.benchmarks.machine import bandwidth
from transframer.benchmarks.peers import PEERS, Likeness, Subject
from transframer.benchmarks.plain import parameter_count
from transframer.benchmarks.speed_config import EQUAL
from transframer.benchmarks.timing import Clock, Lap, Row, Spread, in_turns, rates, row
from transframer.codec import N_CHANNELS, channel_plane
from transframer.frames import Annotation, CodecSettings, Episode, Frame
from transframer.models.chunks import chunk_count
from transframer.models.presets import PRESETS, TransframerConfig
from transframer.models.transframer import Transframer
from transframer.sampling import Sampler

SIZE_PX, CELLS = 64, 64
_BYTES = 4  # of a number in fp32
_LOG_ODDS = 12.0

EIGHT_MILLION = TransframerConfig(
    width=256, channel_layers=2, position_layers=2, value_layers=2, mlp_ratio=4.0
)


def settings_of(preset: str) -> TransframerConfig:
    """The settings of a preset, or of "8m"."""
    return EIGHT_MILLION if preset == EQUAL else PRESETS[preset]


def config_of(preset: str, events: int, *, one_chunk: bool) -> TransframerConfig:
    """The settings of a model that is timed.

    Args:
        preset: a preset, or "8m".
        events: drawn for a frame.
        one_chunk: whether the chunks are as long as a frame, so that it is encoded once.
    """
    config = replace(settings_of(preset), tasks=("speed",), kinds=("rgb",), draft=True)
    return replace(config, chunk_events=events + 32) if one_chunk else config


def episodes(count: int) -> list[Episode]:
    """Problems with one context frame of noise."""
    generator = torch.Generator().manual_seed(0)
    query = Annotation("rgb", codec=CodecSettings(50, "4:2:0"))
    shape = (count, 3, SIZE_PX, SIZE_PX)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return [Episode("speed", (Frame(image),), query) for image in images]


def model_of(config: TransframerConfig, events: int, device: torch.device) -> Transframer:
    """A model with random weights that draws `events` events for a frame, a multiple of the cells."""
    torch.manual_seed(0)
    model = Transframer(config).to(device).eval()
    draft = model.draft
    assert draft is not None
    whole = (channel_plane == 0).nonzero()[: events // CELLS, 0]  # luma has all cells
    log_odds = torch.full((N_CHANNELS,), -30.0)
    log_odds[whole.cpu()] = _LOG_ODDS
    with torch.no_grad():
        draft.out.weight.zero_()
        draft.bias.weight[:, :N_CHANNELS] = log_odds.to(device)
        for head in (model.decoder.channel_head, model.decoder.pointer_query):
            head.weight.mul_(0.1)
    return model


def ours(name: str, config: TransframerConfig, events: int, batch: int, device: torch.device) -> Subject:
    """Our model, ready to be timed, with a new sampler for every draw, as the tasks have it."""
    model = model_of(config, events, device)
    asked = episodes(batch)
    generator = torch.Generator(device).manual_seed(0)
    encodings = int(chunk_count(torch.tensor([events]), config.chunk_events, config.chunk_overlap))

    @torch.no_grad()
    def draw() -> int:
        tokens, _ = Sampler(model, temperature=1.0, generator=generator).tokens(asked)
        return int(tokens.length.sum())

    @torch.no_grad()
    def encode() -> None:
        collated = model.collate(asked).to(device)
        dct = model.dct_images(collated)
        blank = torch.zeros(batch, N_CHANNELS, *collated.grid_size, dtype=torch.int16, device=device)
        start = torch.zeros(batch, dtype=torch.long, device=device)
        for _ in range(encodings):
            model.encode(collated, dct, blank, start)

    kept, depth = config.width // config.heads, _depth(config)
    held = (min(events, config.chunk_events) + 1) / 2
    cached = 2 * kept * depth * (memory_of(config) + held) + CELLS * config.width
    sizes = parameter_count(model), parameter_count(model.decoder), read_parameters(model)
    return Subject(name, draw, encode, *sizes, cached)


def memory_of(config: TransframerConfig) -> int:
    """Vectors of the encoder that the decoders attend to, with one context frame."""
    return CELLS if config.memory == "target" else 2 * CELLS


def read_parameters(model: Transframer) -> int:
    """Of the decoders' parameters, those that every event reads.

    Without the embeddings, of which it reads rows, and what only encoding uses; the table of values is
    computed once for a chunk, and read by every event.
    """
    decoder, values = model.decoder, model.decoder.values
    unread = [decoder.channel, decoder.plane, decoder.frequency, decoder.pointer_key]
    unread += [values.shared, values.own, values.bias]
    unread += [layer.cross_attention.key_value for i in range(3) for layer in decoder.layers(i)]
    table = (2 * decoder.max_value + 1) * model.config.width
    return parameter_count(decoder) - sum(parameter_count(module) for module in unread) + table


def likeness(config: TransframerConfig, events: int) -> Likeness:
    """What a peer of the model with this config must have in common with it."""
    with torch.device("meta"):
        model = Transframer(config)
    memory, sizes = memory_of(config), (parameter_count(model.decoder), parameter_count(model))
    return Likeness(config.width, config.heads, _depth(config), memory, events, *sizes)


def subjects(
    preset: str, batch: int, events: int, device: torch.device, *, peers: bool, compiled: bool
) -> list[Subject]:
    """Ours with a frame in one chunk, then in chunks as the preset has them, then the installed peers."""
    whole, shipped = (config_of(preset, events, one_chunk=one) for one in (True, False))
    found = [ours("ours", whole, events, batch, device)]
    if preset != EQUAL and shipped.chunk_events <= events:
        found.append(ours(f"ours, chunks of {shipped.chunk_events}", shipped, events, batch, device))
    if peers:
        like = likeness(whole, events)
        able = [peer for peer in PEERS if peer.installed and (compiled or not peer.compiled)]
        found += [peer.subject(like, batch, device) for peer in able]
    return found


def speeds(
    presets: Sequence[str],
    batches: Sequence[int],
    clock: Clock,
    *,
    events: int,
    rounds: int,
    memory_bandwidth: float,
    matrix_rate: float,
    peer_presets: Sequence[str] = (),
    compiled: bool = True,
    report: Callable[[str], object] = lambda what: None,
) -> Iterator[Row]:
    """The rows of each size and batch, as soon as they are measured.

    Args:
        presets: the sizes.
        batches: samples drawn at once.
        events: drawn for a frame.
        rounds: how often ours and the peers take turns.
        memory_bandwidth: bytes per second, for the limit.
        matrix_rate: floating-point operations per second, for the limit.
        peer_presets: the sizes at which peers are timed.
        compiled: whether the peers that compile are among them.
        report: told what is going to be measured.
    """
    for preset in presets:
        for batch in batches:
            report(f"sampling: {preset}, batch {batch}")
            torch.compiler.reset()  # or models beyond the eighth of a kind would not be compiled any more
            timed = subjects(
                preset, batch, events, clock.device, peers=preset in peer_presets, compiled=compiled
            )
            near = bandwidth(_BYTES * timed[0].read_parameters, clock, rounds).median
            yield from _rows(preset, batch, timed, clock, rounds, (memory_bandwidth, near, matrix_rate))


def _rows(
    preset: str,
    batch: int,
    timed: Sequence[Subject],
    clock: Clock,
    rounds: int,
    machine: tuple[float, float, float],
) -> list[Row]:
    counts: dict[str, list[int]] = {subject.name: [] for subject in timed}
    works: dict[str, Callable[[], object]] = {}
    for subject in timed:

        def draw(subject: Subject = subject) -> None:
            counts[subject.name].append(subject.draw())

        works[f"draw {subject.name}"] = draw
        works[f"encode {subject.name}"] = subject.encode
    laps = in_turns(works, clock, rounds)
    rows: list[Row] = []
    our_rates: tuple[list[float], list[float]] | None = None
    for subject in timed:
        tokens = float(statistics.median(counts[subject.name]))
        whole = laps[f"draw {subject.name}"]
        encoding = laps[f"encode {subject.name}"]
        decoding = [_positive(a - b) for a, b in zip(whole, encoding, strict=True)]
        own = rates(tokens, decoding, clock), rates(tokens, whole, clock)
        if our_rates is None:
            our_rates = own
        facts = _facts(preset, batch, tokens, subject, machine)
        facts["whole_tokens_per_s"] = Spread.of(own[1])
        facts["seconds_per_frame"] = Spread.of([clock.seconds(lap) / batch for lap in whole])
        facts["seconds_per_frame_wall"] = Spread.of([lap.wall_s / batch for lap in whole])
        facts["encoding_seconds_per_frame"] = Spread.of([clock.seconds(lap) / batch for lap in encoding])
        peer = not subject.name.startswith("ours")
        if peer:
            facts["whole_ratio"] = Spread.of([a / b for a, b in zip(our_rates[1], own[1], strict=True)])
        rows.append(
            row(
                "sampling",
                f"{preset}, batch {batch}",
                subject.name,
                "tokens/s",
                tokens,
                decoding,
                clock,
                ours=our_rates[0] if peer else None,
                facts=facts,
            )
        )
    return rows


def _facts(
    preset: str, batch: int, tokens: float, subject: Subject, machine: tuple[float, float, float]
) -> dict[str, Any]:
    memory_bandwidth, near_bandwidth, matrix_rate = machine
    size = _BYTES * (subject.read_parameters + batch * subject.cached_numbers)  # read for a step of the batch
    products = 2 * subject.read_parameters * batch / matrix_rate
    return {
        "preset": preset,
        "batch": batch,
        "tokens_per_frame": tokens / batch,
        "parameters": subject.parameters,
        "decoder_parameters": subject.decoder_parameters,
        "read_parameters": subject.read_parameters,
        "read_bytes_per_step": size,
        "bandwidth_at_size_of_weights": near_bandwidth,
        "limit_from_memory": batch / max(size / memory_bandwidth, products),
        "limit_from_cache": batch / max(size / near_bandwidth, products),
    }


def _positive(lap: Lap) -> Lap:
    return Lap(max(lap.wall_s, 1e-6), max(lap.processor_s, 1e-6))


def _depth(config: TransframerConfig) -> int:
    return config.channel_layers + config.position_layers + config.value_layers
