"""What the model may and may not look at, and that its likelihood is one."""

from dataclasses import replace

import pytest
import torch

from tests.models.conftest import CONFIG, camera, episode, smooth_image, wake
from transframer.codec import Tokens, code_episodes, grid_from_tokens, round_trip, tokens_from_grid
from transframer.errors import ConfigError, DataError, UnknownNameError
from transframer.frames import Annotation, Frame
from transframer.models.catalog import get_model
from transframer.models.chunks import chunk_count, cut
from transframer.models.decoder import STOP
from transframer.models.presets import PRESETS
from transframer.models.transframer import Transframer
from transframer.predictor import FramePredictor
from transframer.training.config import TrainConfig
from transframer.training.optimisation import make_optimizer


def test_log_prob_does_not_depend_on_the_batch(model, episodes):
    together = model.log_prob(episodes)
    alone = torch.cat([model.log_prob([e]) for e in episodes])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-3)


def test_context_order_is_carried_by_annotations_only(any_model):
    e = episode(2, 3, with_camera=True)
    shuffled = replace(e, context=(e.context[2], e.context[0], e.context[1]))
    torch.testing.assert_close(any_model.log_prob([e]), any_model.log_prob([shuffled]), rtol=1e-6, atol=1e-3)
    swapped_images = replace(
        e,
        context=tuple(Frame(a.image, b.annotation) for a, b in zip(e.context, shuffled.context, strict=True)),
    )
    assert (any_model.log_prob([e]) - any_model.log_prob([swapped_images])).abs() > 1e-3


def changed(frame, **annotation):
    return replace(frame, annotation=replace(frame.annotation, **annotation))


def test_every_context_frame_and_annotation_moves_the_output(model):
    e = episode(2, 3, with_camera=True)
    base = model.log_prob([e])
    variants = {"task": replace(e, task="second")}
    for i in range(3):

        def with_frame(frame, i=i):
            return replace(e, context=(*e.context[:i], frame, *e.context[i + 1 :]))

        variants[f"image {i}"] = with_frame(replace(e.context[i], image=smooth_image(77)))
        variants[f"time {i}"] = with_frame(changed(e.context[i], time=5.5))
        variants[f"no time {i}"] = with_frame(changed(e.context[i], time=None))
        variants[f"kind {i}"] = with_frame(changed(e.context[i], kind="depth"))
        variants[f"camera {i}"] = with_frame(changed(e.context[i], camera=camera(55)))
        variants[f"no camera {i}"] = with_frame(changed(e.context[i], camera=None))
    for name, value in {"time": 9.0, "kind": "rgb", "camera": camera(5)}.items():
        query = replace(e.query, **{name: value})
        variants[f"query {name}"] = replace(e, query=query)
    for name, variant in variants.items():
        assert (model.log_prob([variant]) - base).abs() > 1e-4, name


def test_the_codec_settings_of_the_query_are_seen(any_model):
    e = episode(1, 2)
    grid = code_episodes([e])
    batch = any_model.collate([e])
    start = torch.zeros(1, dtype=torch.long)
    features = []
    for settings in (
        e.query.codec,
        replace(e.query.codec, quality=31),
        replace(e.query.codec, reference=(0.5, 0.5)),
    ):
        other = any_model.collate([replace(e, query=replace(e.query, codec=settings))])
        features.append(any_model.encode(other, any_model.dct_images(other), grid * 0, start).cells)
    assert (features[0] - features[1]).abs().max() > 1e-4
    assert (features[0] - features[2]).abs().max() > 1e-4
    assert len(batch) == 1


def chunk_logits(model, e, tokens, index=0):
    """Every head's logits for a chunk under teacher forcing."""
    batch = model.collate([e])
    chunk = cut(tokens, torch.tensor([index]), CONFIG.chunk_events, CONFIG.chunk_overlap, CONFIG.max_value)
    context = model.encode_chunk(batch, model.dct_images(batch), tokens, chunk)
    seen = []
    hooks = [
        getattr(model.decoder, name).register_forward_hook(lambda m, i, out: seen.append(out.detach()))
        for name in ("channel_head", "pointer_query", "values")
    ]
    model.score_chunk(context, chunk, grid_from_tokens(tokens, (4, 4)))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 3
    return seen


def test_a_later_event_does_not_move_earlier_logits(model):
    e = episode(1, 2, quality=60)
    tokens = tokens_from_grid(code_episodes([e]))
    at = 12
    other = Tokens(tokens.channel, tokens.position, tokens.value.clone(), tokens.length)
    other.value[0, at] += 3
    before, after = chunk_logits(model, e, tokens), chunk_logits(model, e, other)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[: at + 1], b[: at + 1])
        assert not torch.equal(a[at + 1 :], b[at + 1 :])


def test_a_later_chunk_does_not_move_an_earlier_one(model):
    e = episode(1, 2, quality=60)
    tokens = tokens_from_grid(code_episodes([e]))
    other = Tokens(tokens.channel, tokens.position, tokens.value.clone(), tokens.length)
    other.value[0, CONFIG.chunk_events + 2] += 3
    for a, b in zip(chunk_logits(model, e, tokens), chunk_logits(model, e, other), strict=True):
        assert torch.equal(a, b)
    last = int(chunk_count(tokens.length, CONFIG.chunk_events, CONFIG.chunk_overlap)) - 1
    a, b = chunk_logits(model, e, tokens, last)[0], chunk_logits(model, e, other, last)[0]
    assert not torch.equal(a, b), "an earlier chunk must move a later one"


@torch.no_grad()
def test_the_legal_next_pairs_and_the_stop_share_all_probability(any_model):
    """Sums p(channel) p(position | channel) over all pairs after a given one: all of it on legal pairs."""
    e = episode(1, 2)  # 4:2:0, a grid of 4 x 4 cells
    batch = any_model.collate([e])
    context = any_model.encode(
        batch, any_model.dct_images(batch), torch.zeros(1, 192, 4, 4, dtype=torch.int16), torch.tensor([0])
    )
    decoder = any_model.decoder
    state = torch.randn(1, 1, CONFIG.width, generator=torch.Generator().manual_seed(0))
    for last in [(0, -1), (0, 15), (1, 8), (1, 10), (5, 3), (191, 9), (191, 10)]:
        last_channel, last_position = (torch.tensor([[x]]) for x in last)
        p_channel = decoder.channel_logits(state, context, last_channel, last_position).softmax(-1)[0, 0]
        total = p_channel[STOP]
        for channel in range(192):
            if p_channel[channel] == 0:
                continue
            legal = set(range(16)) if channel in luma_channels() else {0, 2, 8, 10}
            c = torch.tensor([[channel]])
            logits = decoder.position_logits(state, context, c, last_channel, last_position)
            p_position = logits.softmax(-1)[0, 0]
            allowed = [p for p in legal if (channel, p) > last]
            assert allowed, "a channel without a later legal position must have no probability"
            assert p_position[allowed].sum() == pytest.approx(1, abs=1e-5)
            total = total + p_channel[channel] * p_position[allowed].sum()
        assert total == pytest.approx(1, abs=1e-5)
        assert (p_channel[: last[0]] == 0).all()
        later = [c for c in range(192) if c > last[0]]
        assert (p_channel[later] > 0).all()
    assert p_channel[STOP] == 1, "after the last pair of all only the stop is left"


def luma_channels():
    from transframer.codec import channel_plane

    return {i for i, plane in enumerate(channel_plane.tolist()) if plane == 0}


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (48, 32), (64, 80)])
def test_any_size_that_is_a_multiple_of_16(any_model, size):
    e = episode(1, 2, size=size, with_camera=True)
    assert torch.isfinite(any_model.log_prob([e])).all()
    drawn = any_model.sample([e], generator=torch.Generator().manual_seed(0))
    assert drawn.frames[0].image.shape == (3, *size)


def test_other_sizes_and_mixed_sizes_are_refused(any_model):
    with pytest.raises(ConfigError, match="multiples of 16"):
        any_model.collate([episode(size=(40, 32))])
    with pytest.raises(DataError, match="one size"):
        any_model.collate([episode(), episode(size=(16, 16))])


def test_unknown_task_and_kind_are_named(any_model):
    e = episode()
    with pytest.raises(UnknownNameError, match="'frist', did you mean 'first'"):
        any_model.collate([replace(e, task="frist")])
    with pytest.raises(UnknownNameError, match="annotation kind 'heat'"):
        any_model.collate([replace(e, context=(Frame(smooth_image(0), Annotation("heat")),) * 2)])


def test_loss_is_the_nats_of_the_chunk_drawn(any_model, episodes):
    """Short frames have one chunk, so that the loss must be the log-probability."""
    short = [replace(e, query=replace(e.query, codec=replace(e.query.codec, quality=1))) for e in episodes]
    short = [replace(e, target=Frame(torch.full_like(e.target.image, 90), e.query)) for e in short[:2]]
    batch = any_model.collate(short)
    loss = any_model.loss(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss.nats, -any_model.log_prob(short), rtol=1e-5, atol=1e-4)
    assert torch.allclose(sum(loss.parts.values()), loss.nats)
    batch_grid = code_episodes(short)
    blank = torch.zeros_like(batch_grid)
    context = any_model.encode_start(batch)
    drafted = context.draft.loss(batch_grid, torch.ones_like(blank.flatten(2), dtype=torch.bool))
    expected = (loss.nats / loss.events).mean() + CONFIG.draft_weight * (drafted / loss.events).mean()
    grey = context.sketch - (90 - 128)  # neither has a reference
    error = (grey.square().mean((1, 2, 3)) + 1).sqrt() / 32
    torch.testing.assert_close(loss.total, expected + CONFIG.sketch_weight * error.mean())


def test_the_parts_that_are_compiled_are_its_repeated_blocks(any_model):
    names = sorted(type(block).__name__ for block in any_model.blocks())
    layers = CONFIG.channel_layers + CONFIG.position_layers + CONFIG.value_layers
    assert names == ["DecoderLayer"] * layers + ["EncoderBlock"] * 3  # level 0 down and up, level 1


def test_frames_that_no_decoder_reads_are_not_made_and_change_nothing(any_model, episodes):
    batch = any_model.collate(episodes)
    made = []
    any_model.encoder.norm.register_forward_hook(lambda module, inputs, output: made.append(len(output)))
    alone = any_model.encode_start(batch).cells
    any_model.encoder.targets_only = False
    torch.testing.assert_close(any_model.encode_start(batch).cells, alone, rtol=1e-4, atol=1e-5)
    assert made == [len(batch), len(batch) + len(batch.images)]


def test_every_parameter_learns(any_model, episodes):
    loss = any_model.loss(any_model.collate(episodes), torch.Generator().manual_seed(0))
    loss.total.backward()
    idle = [name for name, p in any_model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


def test_large_values_are_clipped_alike_in_scoring_and_coding(episodes):
    torch.manual_seed(0)
    model = wake(Transframer(replace(CONFIG, max_value=3)))
    e = episodes[2]
    clipped = tokens_from_grid(code_episodes([e]), 3)
    assert clipped.value.abs().max() == 3
    assert torch.isfinite(model.log_prob([e])).all()


def test_save_and_load(any_model, episodes, tmp_path):
    any_model.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    loaded = Transframer.from_pretrained(tmp_path).eval()
    assert loaded.config == any_model.config
    torch.testing.assert_close(loaded.log_prob(episodes), any_model.log_prob(episodes))


def test_posteriors_share_the_encoder_and_change_nothing(any_model, episodes):
    """Against a log-probability per candidate; of the last episode's candidates some need several chunks."""
    flat = [torch.full((3, 32, 32), grey, dtype=torch.uint8) for grey in (60, 90, 128, 200)]
    candidates = [[Frame(image, e.query) for image in flat[: 2 + i]] for i, e in enumerate(episodes[:2])] + [
        [Frame(flat[0], episodes[2].query), Frame(smooth_image(4), episodes[2].query)]
    ]
    expected = FramePredictor.posteriors(any_model, episodes[:3], candidates)
    got = any_model.posteriors(episodes[:3], candidates)
    assert [len(p) for p in got] == [2, 3, 2]
    for p, q in zip(got, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
        assert p.sum() == pytest.approx(1, abs=1e-5)


def test_posterior_is_normalised_likelihood(any_model, episodes):
    e = episodes[0]
    candidates = [round_trip(e), Frame(smooth_image(4), e.query), Frame(smooth_image(5), e.query)]
    posterior = any_model.posterior(e, candidates)
    scores = torch.cat([any_model.log_prob([replace(e, target=c)]) for c in candidates])
    torch.testing.assert_close(posterior, scores.softmax(0), rtol=1e-3, atol=1e-5)


def test_the_encoder_learns_more_slowly_than_the_decoders():
    model = Transframer(CONFIG)
    scale = {
        id(weight): group["lr_scale"]
        for group in make_optimizer(model, TrainConfig()).param_groups
        for weight in group["params"]
    }
    for name, weight in model.named_parameters():
        expected = 0.25 if name.startswith(("encoder.", "sketch.")) else 1.0
        if not any(weight is table.weight for table in model.task_tables()[1:]):
            assert scale[id(weight)] == expected, name
    assert all(scale[id(table.weight)] > 1 for table in model.task_tables()[1:])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("tiny", 1e6, 4e6), ("small", 20e6, 33e6), ("base", 80e6, 125e6), ("paper", 380e6, 520e6)],
)
def test_preset_sizes(name, low, high):
    with torch.device("meta"):
        model = Transframer(replace(PRESETS[name], tasks=("a",) * 8, kinds=("rgb",) * 6))
    assert low <= sum(p.numel() for p in model.parameters()) <= high


def test_unknown_preset():
    with pytest.raises(UnknownNameError, match="did you mean 'small'"):
        get_model("transframer").settings("smal", {})
    assert set(PRESETS) == {"tiny", "small", "base", "paper"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree(any_model, episodes):
    on_cpu = any_model.log_prob(episodes)
    torch.testing.assert_close(any_model.cuda().log_prob(episodes).cpu(), on_cpu, rtol=1e-3, atol=0.05)


def test_partial_target_is_what_was_decoded(any_model):
    """The second chunk's partial target holds exactly the triples before it."""
    e = episode(1, 2, quality=60)
    tokens = tokens_from_grid(code_episodes([e]))
    chunk = cut(tokens, torch.tensor([1]), CONFIG.chunk_events, CONFIG.chunk_overlap, CONFIG.max_value)
    seen = {}
    encode = any_model.encode

    def spy(batch, dct, partial, start):
        seen["partial"] = partial
        return encode(batch, dct, partial, start)

    any_model.encode = spy
    any_model.encode_chunk(
        any_model.collate([e]), any_model.dct_images(any_model.collate([e])), tokens, chunk
    )
    stride = CONFIG.chunk_events - CONFIG.chunk_overlap
    first = Tokens(*(t[:, :stride] for t in tokens[:3]), torch.tensor([stride]))
    assert torch.equal(seen["partial"], grid_from_tokens(first, (4, 4)))
