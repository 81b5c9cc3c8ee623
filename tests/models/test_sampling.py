"""Drawing: reproducible, well-formed, equal with and without caches, and as likely as scored."""

import math
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError

from tests.models.conftest import CONFIG, episode, wake
from transframer.codec import Tokens, check_tokens, code_episodes, decode_frames, grid_from_tokens, legal_mask
from transframer.errors import ConfigError
from transframer.frames import Frame
from transframer.models.attention import KeyValueCache
from transframer.models.choosing import Choice, ChunkDecoder, pick
from transframer.models.compiled import CompiledDecoder
from transframer.models.graphed import GraphedChunk
from transframer.sampling import Sampler


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def lengthen(model):
    """Makes the stop rare, so that draws run over several chunks."""
    with torch.no_grad():
        model.decoder.channel_head.bias[-1] -= 9
        model.decoder.channel_head.bias -= 0.4 * torch.arange(193)
        model.decoder.pointer_query.weight *= 0
    return model


WAYS = ["mode", "median", "mean", "sampled"]
DRAWS = [
    {"temperature": 0.0},
    {"temperature": 0.0, "estimate": "median"},
    {"temperature": 0.0, "estimate": "mean"},
    {"temperature": 1.0},
]


@pytest.mark.parametrize("how", DRAWS, ids=WAYS)
def test_cached_and_uncached_draws_are_equal(model, episodes, how):
    lengthen(model)
    draws = [
        Sampler(model, generator=generator(), compiled=False, cached=cached, **how).tokens(episodes)
        for cached in (True, False)
    ]
    if "estimate" not in how:  # the median and mean of a model that knows nothing code little
        assert int(draws[0][0].length.max()) > CONFIG.chunk_events, "several chunks"
    for cached, uncached in zip(draws[0][0], draws[1][0], strict=True):
        assert torch.equal(cached, uncached)
    torch.testing.assert_close(draws[0][1], draws[1][1])


@pytest.mark.parametrize("how", [*DRAWS, {"top_p": 0.8, "temperature": 0.9}], ids=[*WAYS, "nucleus"])
@pytest.mark.parametrize("preset", ["draft", "paper"])
def test_kernels_draw_what_pytorch_draws(model, episodes, how, preset):
    if preset == "paper":
        torch.manual_seed(0)
        model = wake(type(model)(replace(model.config, draft=False)))
    lengthen(model)
    (tokens, nats), (expected, expected_nats) = (
        Sampler(model, generator=generator(), compiled=compiled, **how).tokens(episodes, 2)
        for compiled in (True, False)
    )
    assert Sampler(model).compiled
    for ours, theirs in zip(tokens, expected, strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(nats, expected_nats, rtol=1e-4, atol=1e-3)


def test_a_broken_cache_is_noticed(any_model, episodes, monkeypatch):
    """The equality above can fail: with a cache that forgets one event the draws differ."""
    lengthen(any_model)
    right = Sampler(any_model, temperature=0.0, compiled=False).tokens(episodes)[1]
    append = KeyValueCache.append

    def forgetful(self, keys, values):
        keys, values, mask = append(self, keys, values)
        return keys, torch.cat([torch.zeros_like(values[:, :1]), values[:, 1:]], 1), mask

    monkeypatch.setattr(KeyValueCache, "append", forgetful)
    broken = Sampler(any_model, temperature=0.0, compiled=False).tokens(episodes)[1]
    assert not torch.allclose(right, broken)


@pytest.mark.parametrize(
    "how",
    [{"temperature": 0.0}, {"temperature": 1.0}, {"top_p": 0.8, "temperature": 0.9}],
    ids=["mode", "sampled", "nucleus"],
)
@pytest.mark.parametrize("preset", ["draft", "paper"])
def test_a_fixed_step_draws_what_the_others_draw(model, episodes, how, preset, monkeypatch):
    """The step that a GPU records, unrecorded; over several chunks, so that it follows given events."""
    if preset == "paper":
        torch.manual_seed(0)
        model = wake(type(model)(replace(model.config, draft=False)))
    lengthen(model)
    plain = Sampler(model, generator=generator(), compiled=False, **how).tokens(episodes, 2)
    assert int(plain[0].length.max()) > CONFIG.chunk_events, "several chunks"
    assert len(plain[0].length.unique()) > 1, "some stop before others"
    sampler = Sampler(model, generator=generator(), compiled=False, **how)
    sampler.graphed = True
    chunks, step = [], GraphedChunk._step

    def after_a_rehearsal(self):
        """As on a GPU, where some steps are taken and taken back before one is recorded."""
        if self not in chunks:
            chunks.append(self)
            self._rehearse()
        step(self)

    monkeypatch.setattr(GraphedChunk, "_step", after_a_rehearsal)
    fixed = sampler.tokens(episodes, 2)
    assert len(chunks) > 1
    for ours, theirs in zip(fixed[0], plain[0], strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(fixed[1], plain[1])


def test_a_fixed_step_runs_under_autocast(model, episodes):
    sampler = Sampler(lengthen(model), temperature=0.0, compiled=False)
    sampler.graphed = True
    with torch.autocast("cpu", torch.bfloat16):
        tokens, nats = sampler.tokens(episodes)
    assert tokens.length.min() > 0
    assert nats.isfinite().all()


def test_a_fixed_step_keeps_its_tensors(model, episodes):
    """What a graph needs: no step leaves the state of the samples anywhere else than the one before did."""
    lengthen(model)
    with torch.no_grad():
        batch = model.collate([e.without_target() for e in episodes])
        context = model.encode_start(batch)
    b = len(episodes)
    last, grid = torch.tensor([[0] * b, [-1] * b]), torch.zeros(b, 192, 4, 4, dtype=torch.int16)
    chunk = GraphedChunk(model.decoder, context, Choice(), 12, last, grid)
    places = []
    step = chunk._step

    def noted():
        step()
        held = [*chunk._held, *(t for s in chunk.caches for c in s for t in (c.keys, c.values, c.end))]
        places.append([tensor.data_ptr() for tensor in held])

    chunk._step = noted
    chunk.draw(torch.rand(b, 8, 3, generator=generator()))
    assert len(places) > 2
    assert all(one == places[0] for one in places)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_graph_draws_what_its_step_draws(model, episodes, temperature, recwarn):
    lengthen(model).cuda()
    draws = [
        Sampler(model, temperature=temperature, generator=generator(), compiled=compiled).tokens(episodes, 3)
        for compiled in (False, True)
    ]
    assert not [w for w in recwarn if "CUDA graph" in str(w.message)]
    for plain, graphed in zip(draws[0][0], draws[1][0], strict=True):
        assert torch.equal(plain, graphed)


def test_draws_are_well_formed_and_score_as_drawn(model, episodes):
    lengthen(model)
    tokens, drawn = Sampler(model, generator=generator()).tokens(episodes)
    settings = [e.query.codec for e in episodes]
    check_tokens(tokens, settings, (4, 4))
    # Score the very triples drawn: a decoded image, coded again, may clip.
    from unittest.mock import patch

    with patch.object(type(model), "tokens", lambda self, batch: tokens):
        scored = model.log_prob(episodes)
    torch.testing.assert_close(scored, drawn, rtol=1e-4, atol=2e-3)


def test_same_generator_same_frames(any_model, episodes):
    a, b, c = (any_model.sample(episodes, generator=generator(s)) for s in (1, 1, 2))
    assert all(torch.equal(x.image, y.image) for x, y in zip(a.frames, b.frames, strict=True))
    assert not all(torch.equal(x.image, y.image) for x, y in zip(a.frames, c.frames, strict=True))


def test_a_sample_does_not_depend_on_its_neighbours(any_model, episodes):
    together = Sampler(any_model, temperature=0.0).tokens(episodes)
    for i, e in enumerate(episodes):
        alone = Sampler(any_model, temperature=0.0).tokens([e])
        n = int(alone[0].length[0])
        assert n == together[0].length[i]
        for a, b in zip(alone[0][:3], together[0][:3], strict=True):
            assert torch.equal(a[0, :n], b[i, :n])


def test_frames_are_the_decoded_triples(any_model, episodes):
    drawn = any_model.sample(episodes, generator=generator())
    tokens, _ = Sampler(any_model, generator=generator()).tokens(episodes)
    frames = decode_frames(grid_from_tokens(tokens, (4, 4)), episodes)
    assert all(torch.equal(a.image, b.image) for a, b in zip(drawn.frames, frames, strict=True))
    assert drawn.tokens.tolist() == tokens.length.tolist()
    assert all(
        isinstance(f, Frame) and f.annotation == e.query for f, e in zip(drawn.frames, episodes, strict=True)
    )


def test_the_target_is_never_looked_at(any_model):
    e = episode(1)
    a = any_model.sample([e], generator=generator())
    b = any_model.sample([e.without_target()], generator=generator())
    assert torch.equal(a.frames[0].image, b.frames[0].image)


def test_pick_follows_its_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]]).expand(20000, 4)
    uniform = torch.rand(20000, generator=generator())
    drawn = pick(logits, 1.0, 1.0, uniform)
    expected = logits[0].softmax(0)
    frequency = drawn.bincount(minlength=4) / len(drawn)
    assert (frequency - expected).abs().max() < 0.015
    assert set(pick(logits, 1.0, 0.6, uniform).tolist()) == {2}  # p(2) = 0.665 alone reaches 0.6
    assert set(pick(logits, 1.0, 0.7, uniform).tolist()) == {1, 2}
    sharp = pick(logits, 0.5, 1.0, uniform).bincount(minlength=4) / 20000
    assert (sharp - (logits[0] * 2).softmax(0)).abs().max() < 0.015


@pytest.mark.parametrize("estimate", ["median", "mean"])
def test_the_estimate_of_a_coefficient_is_coded_if_it_is_not_zero(any_model, monkeypatch, estimate):
    """Hand-made probabilities: the first event against estimates worked out over all pairs one by one."""
    e = episode(1)
    legal = legal_mask((4, 4), "4:2:0")
    values = torch.arange(-CONFIG.max_value, CONFIG.max_value + 1)
    coded = []
    for seed in range(40):
        torch.manual_seed(seed)
        channel_logits = torch.full((193,), -12.0)
        channel_logits[torch.cat([torch.randperm(192)[:3], torch.tensor([192])])] = torch.randn(4) * 2 + 2
        position_logits = torch.randn(16) * 4
        value_logits = torch.full((193, len(values)), -20.0)
        value_logits[:, values.abs() <= 3] = torch.randn(193, 7) * 0.5
        value_logits[:, values == 0] = -torch.inf
        expected, none_before = (192, 0, 1), 1.0
        p_channel = channel_logits.softmax(0).double()
        for c in range(192):
            p_position = position_logits.masked_fill(~legal[c], -torch.inf).softmax(0).double()
            p_value = value_logits[c].softmax(0).double()
            for p in range(16):
                joint = float(p_channel[c] * p_position[p])
                hazard = joint / none_before
                distribution = hazard * p_value + (1 - hazard) * (values == 0)
                if estimate == "median":
                    best = int(values[(distribution.cumsum(0) >= 0.5).nonzero()[0]])
                else:
                    best = round(float((distribution * values).sum())) if hazard >= 0.3 else 0
                if best != 0 and expected[0] == 192:
                    expected = (c, p, best)
                none_before = max(none_before - joint, 1e-9)
        decoder = type(any_model.decoder)
        with monkeypatch.context() as patch:
            patch.setattr(decoder, "channel_logits", lambda *a, x=channel_logits: x.expand(1, 1, 193))
            patch.setattr(
                decoder,
                "position_logits",
                lambda self, state, context, channel, *a, x=position_logits: torch.where(
                    context.legal[0, channel[0, 0]] | (channel[0, 0] == 192), x, -torch.inf
                ).expand(1, 1, 16),
            )
            patch.setattr(
                decoder, "value_logits", lambda self, state, channel, *a, x=value_logits: x[channel]
            )
            assert draw_first(Sampler(any_model, temperature=0.0, estimate=estimate), e) == expected
        coded.append(expected[0] < 192)
    assert 5 < sum(coded) < 35, "both answers must occur"


def draw_first(sampler, e):
    model = sampler.model
    batch = model.collate([e])
    blank = torch.zeros(1, 192, 4, 4, dtype=torch.int16)
    with torch.no_grad():
        context = model.encode(batch, model.dct_images(batch), blank, torch.tensor([0]))
        chunk = ChunkDecoder(model.decoder, context, sampler.choice, 24, torch.tensor([[0], [-1]]), blank)
        event, _ = chunk.draw(torch.zeros(1, 1, 3))
    return tuple(event[:, 0, 0].tolist())


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"estimate": "average"},
    ],
)
def test_settings_out_of_range(any_model, settings):
    with pytest.raises((ConfigError, TypeCheckError)):  # the checker of the tests refuses the estimate first
        any_model.sample([episode()], **settings)


@pytest.mark.parametrize("compiled", [True, False], ids=["kernels", "pytorch"])
@pytest.mark.parametrize("given", [1, 5, 11])
def test_a_chunk_continued_is_the_chunk_drawn_whole(model, episodes, compiled, given):
    """What is given at once, as the overlap of chunks is, leaves the same state as drawing it."""
    lengthen(model)
    batch = model.collate([e.without_target() for e in episodes])
    blank = torch.zeros(len(batch), 192, 4, 4, dtype=torch.int16)
    first = torch.tensor([[0], [-1]]).expand(2, len(batch))
    choice = Choice(temperature=0.0)

    def chunk(grid):
        arguments = context, CONFIG.chunk_events, first, grid
        if compiled:
            return CompiledDecoder(model.decoder, choice).chunk(*arguments)
        return ChunkDecoder(model.decoder, context, choice, *arguments[1:])

    with torch.no_grad():
        context = model.encode(batch, model.dct_images(batch), blank, first[0])
        whole, nats = chunk(blank).draw(torch.zeros(len(batch), CONFIG.chunk_events, 3))
        start = whole[:, :, :given]
        assert bool((start[0] < 192).all()), "none has stopped"
        grid = grid_from_tokens(Tokens(*start, torch.full((len(batch),), given)), (4, 4))
        continued = chunk(grid)
        continued.give(start)
        rest, more = continued.draw(torch.zeros(len(batch), CONFIG.chunk_events - given, 3))
    assert torch.equal(rest, whole[:, :, given:])
    assert bool((more > nats).all()), "fewer events, so more likely"


def test_threads_share_the_samples(any_model, episodes):
    threads = torch.get_num_threads()
    try:
        draws = []
        for number in (1, 3):
            torch.set_num_threads(number)
            draws.append(Sampler(any_model, generator=generator()).tokens(episodes, 2))
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(draws[0][0], draws[1][0], strict=True):
        assert torch.equal(one, three)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("how", DRAWS[:2], ids=WAYS[:2])
def test_a_gpu_draws_what_the_cpu_draws(model, episodes, how):
    lengthen(model)
    tokens, nats = Sampler(model, **how).tokens(episodes)
    on_gpu, gpu_nats = Sampler(model.cuda(), **how).tokens(episodes)
    for ours, theirs in zip(tokens, on_gpu, strict=True):
        assert torch.equal(ours, theirs.cpu())
    torch.testing.assert_close(nats, gpu_nats.cpu(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("training", [True, False])
def test_the_mean_of_a_model_with_a_sketch_is_the_sketch(any_model, episodes, training):
    any_model.train(training)
    drawn = any_model.sample(episodes, samples_per_query=2, temperature=0.0, estimate="mean")
    assert any_model.training == training
    any_model.eval()
    with torch.no_grad():
        sketch = any_model.encode_start(any_model.collate(episodes)).sketch
    for i, e in enumerate(episodes):
        weights = e.query.codec.reference
        level = 128.0 if weights is None else sum(
            w * frame.image.float() for w, frame in zip(weights, e.context, strict=True)
        )  # fmt: skip
        expected = (sketch[i] + level).clamp(0, 255)
        for frame in drawn.frames[2 * i : 2 * i + 2]:
            assert (frame.image.float() - expected).abs().max() <= 0.51
            assert frame.annotation == e.query
    assert drawn.log_prob.isnan().all()
    assert not drawn.tokens.any()
    named = zip(episodes, drawn.frames[::2], strict=True)
    again = code_episodes([replace(e, target=frame) for e, frame in named])
    assert torch.equal(drawn.grid[::2], again)
