import math
from dataclasses import replace

import pytest
import torch

from transframer.errors import ConfigError, DataError
from transframer.frames import Annotation, Camera, Episode, Frame
from transframer.models.spatial_temporal import SpatialTemporal
from transframer.models.video_batch import collate_videos
from transframer.registry import get_task
from transframer.rollout import Rollout

from .videos import CONFIG, SIZE, noise_frame, video_episode, wake


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return wake(SpatialTemporal(CONFIG))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clips(count=3, frames=3):
    return [
        video_episode([noise_frame(10 * i + t) for t in range(frames)], noise_frame(10 * i + 9))
        for i in range(count)
    ]


def pixels(samples):
    return torch.stack([frame.image for frame in samples.frames])


# -- batches ----------------------------------------------------------------------------------------------


def test_frames_are_ordered_by_time_and_the_target_comes_last():
    frames = [noise_frame(i) for i in range(4)]
    shuffled = video_episode([frames[1], frames[0]], frames[3], times=[0.0, -1.0], query_time=0.5)
    longer = video_episode(frames[:3], frames[3])
    batch = collate_videos([shuffled, longer], 4)
    assert batch.given.tolist() == [2, 3]
    assert torch.equal(batch.images[0, :3], torch.stack([frames[0], frames[1], frames[3]]))
    assert batch.images[0, 3].sum() == 0
    assert batch.times[0, :3].tolist() == [-1.0, 0.0, 0.5]
    assert batch.present.tolist() == [[True, True, True, False], [True] * 4]
    asked = collate_videos([longer.without_target()], 4)
    assert not asked.has_target
    assert asked.present.tolist() == [[True] * 3 + [False]]
    assert asked.times[0].tolist() == [-2.0, -1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Annotation("depth", time=0.0), "kind depth"),
        (Annotation(), "without a time"),
        (Annotation(time=0.0, camera=Camera(torch.eye(3), torch.eye(4))), "cameras"),
    ],
)
def test_what_is_no_video_is_refused(model, annotation, reason):
    episode = Episode("task", (Frame(noise_frame(0), annotation),), Annotation(time=1.0))
    assert reason in model.refusal(episode)
    with pytest.raises(ConfigError, match=f"task: .*{reason}"):
        model.collate([episode])
    assert model.refusal(clips(1)[0]) is None


def test_sizes(model):
    odd = torch.zeros(3, 18, 16, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="multiples of 4"):
        model.collate([video_episode([odd])])
    with pytest.raises(DataError, match="sizes"):
        model.collate([video_episode([odd]), *clips(1)])


# -- likelihood -------------------------------------------------------------------------------------------


def test_the_autoencoder_learns_first_and_then_the_transformer(model):
    grown = SpatialTemporal(CONFIG)
    grown.load_state_dict(model.state_dict())
    batch, share = grown.collate(clips()), CONFIG.autoencoder_share
    for progress, learns in (
        (0.0, "autoencoder"), (share - 1e-6, "autoencoder"), (share, "rest"), (1.0, "rest"),
    ):  # fmt: skip
        grown.load_state_dict(model.state_dict())
        grown.zero_grad()
        grown.progress = progress
        loss = grown.loss(batch, generator())
        loss.total.backward()
        moved = {name.split(".")[0] for name, p in grown.named_parameters() if p.grad is not None}
        books = torch.equal(grown.autoencoder.codebooks.vectors, model.autoencoder.codebooks.vectors)
        if learns == "autoencoder":
            assert moved == {"autoencoder"}
            assert not books
            assert loss.nats.tolist() == pytest.approx([16 * 2 * math.log(8)] * 3)
        else:
            assert moved == {"transformer", "head"}
            assert books, "codes keep their meaning"
    spans = {name.split(".")[0]: m.lr_span for name, m in grown.named_modules() if name}
    assert spans == {"autoencoder": (0.0, share), "transformer": (share, 1.0), "head": (share, 1.0)}


def test_the_weight_of_the_divergence_rises(model):
    grown = SpatialTemporal(CONFIG)
    grown.load_state_dict(model.state_dict())
    batch, share = grown.collate(clips()), CONFIG.autoencoder_share

    def total(progress):
        grown.progress = progress
        return grown.loss(batch, generator()).total.item()

    half = share + (1 - share) * CONFIG.kl_warmup / 2
    assert total(share) < total(half) < total(1.0)
    assert total(half) == pytest.approx((total(share) + total(1.0)) / 2, rel=1e-4)


def test_one_batch_or_several_the_same_log_prob_without_latents():
    torch.manual_seed(0)
    exact = wake(SpatialTemporal(replace(CONFIG, latent_width=0)))
    assert exact.likelihood == "exact"
    mixed = [*clips(2), *clips(2, frames=1)]
    together = exact.log_prob(mixed)
    alone = torch.cat([exact.log_prob([episode]) for episode in mixed])
    assert torch.allclose(together, alone, rtol=1e-4)
    with pytest.raises(DataError, match="target"):
        exact.log_prob([mixed[0].without_target()])


def test_more_samples_give_a_higher_bound(model):
    assert model.likelihood == "bound"
    episodes = clips(8)
    bounds = []
    for count in (1, 8, 64):
        model.config = replace(CONFIG, bound_samples=count)
        bounds.append(model.log_prob(episodes).mean().item())
    model.config = CONFIG
    assert bounds[0] < bounds[1] < bounds[2]
    assert torch.equal(model.log_prob(episodes), model.log_prob(episodes)), "with a fixed seed"


def test_the_loss_logs_the_bound_of_the_target(model):
    grown = SpatialTemporal(replace(CONFIG, bound_samples=1))
    grown.load_state_dict(model.state_dict())
    grown.train()
    grown.progress = 1.0
    loss = grown.loss(grown.collate(clips()), generator())
    assert loss.events.tolist() == [2 * (SIZE // 4) ** 2] * 3
    assert torch.allclose(loss.nats, loss.parts["codes"] + loss.parts["latents"])
    assert (loss.nats > 0).all()
    with pytest.raises(DataError, match="target"):
        grown.loss(grown.collate([clips(1)[0].without_target()]), generator())


def test_the_round_trip_is_the_autoencoders(model):
    frames, codes = model.round_trips(clips())
    assert codes == 3 * 2 * (SIZE // 4) ** 2
    images = torch.stack([episode.target.image for episode in clips()])
    expected = model.autoencoder.decode_indices(model.autoencoder.encode_indices(images))
    assert torch.equal(torch.stack([frame.image for frame in frames]), expected)


# -- sampling ---------------------------------------------------------------------------------------------


def test_samples_have_seeds_and_shapes(model):
    episodes = [episode.without_target() for episode in clips()]
    one = model.sample(episodes, samples_per_query=2, generator=generator(1))
    assert pixels(one).shape == (6, 3, SIZE, SIZE)
    assert one.log_prob.shape == one.tokens.shape == (6,)
    assert one.tokens.tolist() == [2 * (SIZE // 4) ** 2] * 6
    assert [frame.annotation for frame in one.frames] == [e.query for e in episodes for _ in range(2)]
    again = model.sample(episodes, samples_per_query=2, generator=generator(1))
    other = model.sample(episodes, samples_per_query=2, generator=generator(2))
    assert torch.equal(pixels(one), pixels(again))
    assert not torch.equal(pixels(one), pixels(other))
    assert not torch.equal(pixels(one)[0], pixels(one)[1])
    for estimate in ("mode", "median", "mean"):
        still = model.sample(episodes, samples_per_query=2, temperature=0.0, estimate=estimate)
        assert torch.equal(pixels(still)[0], pixels(still)[1])


@pytest.mark.parametrize("settings", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_sampling(model, settings):
    with pytest.raises(ConfigError):
        model.sample([clips(1)[0].without_target()], **settings)


def test_every_given_frame_matters_and_both_sides_of_a_gap(model):
    def asked(first, second, query_time):
        return video_episode(
            [noise_frame(first), noise_frame(second)], times=[0.0, 1.0], query_time=query_time
        )

    def estimate(*arguments):
        return pixels(model.sample([asked(*arguments)], temperature=0.0, estimate="median"))

    for query_time in (0.5, 2.0):
        base = estimate(1, 2, query_time)
        assert not torch.equal(base, estimate(3, 2, query_time)), "the earlier frame"
        assert not torch.equal(base, estimate(1, 3, query_time)), "the later frame"
    assert not torch.equal(estimate(1, 2, 0.25), estimate(1, 2, 0.75)), "the time asked for"


def test_a_rollout_keeps_window_frames_and_goes_on_from_its_state(model):
    task = get_task("video_prediction")
    prompts = torch.stack([torch.stack([noise_frame(1)]), torch.stack([noise_frame(2)])])
    whole = Rollout(model, task, prompts, window=3, seed=4)
    frames = [whole.next_frames() for _ in range(7)]
    assert all(keys.shape[2] == 3 for keys in whole.memory.cache.keys.values())
    assert whole.memory.time.tolist() == [7.0, 7.0]
    half = Rollout(model, task, prompts, window=3, seed=4)
    for _ in range(4):
        half.next_frames()
    state = {name: tensor.clone() for name, tensor in half.state().items()}
    rest = Rollout(model, task, prompts, window=3, seed=4)
    rest.load(state)
    assert all(torch.equal(a, rest.next_frames()) for a in frames[4:])
    assert not torch.equal(Rollout(model, task, prompts, window=3, seed=5).next_frames(), frames[0])
    episode = task.format({"images": prompts[0]})
    with pytest.raises(ConfigError, match="memory of 2 videos for 1"):
        model.sample([episode], memory=whole.memory)


def test_the_memory_draws_as_if_all_frames_were_read_again(model):
    """With the latents at their means, and the drawn frames read as the codes that they were drawn as."""
    episode = clips(1)[0].without_target()
    memory = model.memory(window=8)
    first = model.sample([episode], temperature=0.0, memory=memory)
    seen = [*(frame.image for frame in episode.context[1:]), first.frames[0].image]
    second = model.sample([video_episode(seen)], temperature=0.0, memory=memory)
    books = model.autoencoder.codebooks
    given = books.vectors_of(model._codes(model.collate([episode]))[:, :3])
    codes = model.head.drawn(
        _last_features(model, given, known=2),
        given[0, -1].flatten(0, 1),
        books,
        0.0,
        1.0,
        torch.zeros((SIZE // 4) ** 2, 2),
    )[0]
    assert torch.equal(model.autoencoder.decode_indices(codes.view(1, 4, 4, 2))[0], first.frames[0].image)
    longer = torch.cat([given, books.vectors_of(codes).view(1, 1, 4, 4, -1)], 1)
    codes = model.head.drawn(
        _last_features(model, longer, known=2),
        longer[0, -1].flatten(0, 1),
        books,
        0.0,
        1.0,
        torch.zeros((SIZE // 4) ** 2, 2),
    )[0]
    assert torch.equal(model.autoencoder.decode_indices(codes.view(1, 4, 4, 2))[0], second.frames[0].image)


def _last_features(model, vectors, known):
    """Of the frame after the last, the first `known` latents of the posterior, the others of the prior."""
    n = vectors.shape[1]
    times = torch.arange(n + 1.0)[None]
    noise = torch.zeros(model.transformer.noise_shape(1, n, 16))
    targets = torch.cat([vectors[:, 1:], vectors[:, :1]], 1)
    mask = torch.arange(n)[None] < known
    with torch.no_grad():
        out, _ = model.transformer(vectors, times[:, :-1], times[:, 1:], noise, targets=targets, known=mask)
    return out[0, -1]


# -- what it learns ---------------------------------------------------------------------------------------


def outcome(left):
    image = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    image[:, :, :6] = 255 * left
    image[:, :, -6:] = 255 * (not left)
    return image


def trained_on_two_outcomes(share, steps=400, **settings):
    torch.manual_seed(0)
    model, draws = SpatialTemporal(replace(CONFIG, **settings)), generator(1)
    start = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    start[:, 6:10, 6:10] = 255
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98))
    for step in range(steps):
        left = torch.rand(16, generator=draws) < share
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        model.progress = step / steps
        batch = model.collate([video_episode([start], outcome(bool(side))) for side in left])
        loss = model.loss(batch, draws)
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    drawn = pixels(model.sample([video_episode([start])], samples_per_query=400, generator=generator(3)))
    distance = torch.stack(
        [(drawn.float() - outcome(left).float()).abs().mean((1, 2, 3)) for left in (True, False)], 1
    )
    whole = distance.min(1).values < 20  # grey levels: the other outcome is 191 away
    return whole.float().mean().item(), (distance[whole].argmin(1) == 0).float().mean().item()


def test_a_video_with_two_outcomes_shows_both_as_often_as_they_happen():
    coherent, left = trained_on_two_outcomes(0.7)
    assert coherent > 0.85, "each draw is one of the outcomes, no mixture"
    # 400 draws, and 6,400 coins that were learned from: three standard deviations are 0.07.
    assert left == pytest.approx(0.7, abs=0.12)


def test_without_gaussian_layers_the_cells_decide_for_themselves():
    coherent, _ = trained_on_two_outcomes(0.7, steps=200, latent_width=0)
    assert coherent < 0.5
    assert math.isfinite(coherent)
