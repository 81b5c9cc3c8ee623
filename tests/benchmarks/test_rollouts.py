import base64
import dataclasses
import io
import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from tests.benchmarks.toy_videos import TASK, Repeats, Videos, ramp
from transframer.benchmarks.data_source import DataSource
from transframer.benchmarks.rollouts import measure_rollout, sharpness, true_videos
from transframer.benchmarks.sources import WorldSource
from transframer.errors import ConfigError, DataError
from transframer.frames import Frame

CPU = torch.device("cpu")


def measured(config, predictor, videos=3, device=CPU):
    true = true_videos(TASK, Videos(), config, videos)
    return measure_rollout(TASK, true, predictor, config, device)


def psnr_db(error):
    return 10 * math.log10(255**2 / error**2)


class TestNumbers:
    def test_are_the_ones_worked_out_by_hand(self, toy_config):
        config = toy_config(rollout_frames=4, temperature=0.0)
        psnr, ssim, sharp = measured(config, Repeats()).curves
        assert [curve.name for curve in (psnr, ssim, sharp)] == ["psnr", "ssim", "sharpness"]
        # What repeats the last frame is the floor itself, one level further off at every step.
        expected = [psnr_db(step) for step in (1, 2, 3, 4)]
        assert [each.value for each in psnr.model] == pytest.approx(expected)
        assert psnr.reference == pytest.approx(expected)
        assert [each.value for each in ssim.model] == pytest.approx(ssim.reference)
        assert sharp.reference == [1, 1, 1, 1]
        assert [each.value for each in sharp.model] == pytest.approx([1, 1, 1, 1])
        assert all(each.low == pytest.approx(each.high) for each in psnr.model), "all videos are alike"

    def test_a_predictor_that_follows_leaves_the_floor(self, toy_config):
        config = toy_config(rollout_frames=3, temperature=0.0)
        psnr, ssim, _ = measured(config, Repeats(error=1)).curves
        assert [each.value for each in psnr.model] == [60, 60, 60]
        assert [each.value for each in ssim.model] == pytest.approx([1, 1, 1])
        assert psnr.reference == pytest.approx([psnr_db(step) for step in (1, 2, 3)])

    def test_sharpness_is_that_of_the_drawn_over_that_of_the_true(self, toy_config):
        class Steeper(Repeats):
            def sample(self, episodes, **settings):
                drawn = super().sample(episodes, **settings)
                return dataclasses.replace(drawn, frames=[Frame(ramp(10, 6), e.query) for e in episodes])

        config = toy_config(rollout_frames=2, temperature=0.0)
        _, _, sharp = measured(config, Steeper()).curves
        assert [each.value for each in sharp.model] == pytest.approx([1.5, 1.5])

    def test_flat_truth_has_no_sharpness_to_compare_with(self, toy_config):
        config = toy_config(rollout_frames=1, temperature=0.0)
        flat = torch.full((2, 4, 3, 16, 16), 9, dtype=torch.uint8)
        found = measure_rollout(TASK, flat, Repeats(), config, CPU)
        assert math.isnan(found.curves[2].model[0].value)

    def test_interval_is_that_of_the_mean_over_videos(self, toy_config):
        """Two videos with errors of 1 and of 8 levels: resamples give the one, the other or the mean."""
        config = toy_config(rollout_frames=1, temperature=0.0)
        true = true_videos(TASK, Videos(), config, 2)
        true[1, -1] += 7
        psnr = measure_rollout(TASK, true, Repeats(), config, CPU).curves[0].model[0]
        assert (psnr.low, psnr.high) == pytest.approx((psnr_db(8), psnr_db(1)))
        assert psnr.value == pytest.approx((psnr_db(1) + psnr_db(8)) / 2)


def test_sharpness_is_the_mean_gradient_of_the_luma():
    image = torch.randint(0, 256, (3, 9, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    luma = np.tensordot([0.299, 0.587, 0.114], image.numpy().astype(float), 1)
    expected = np.hypot(np.diff(luma, axis=1)[:-1], np.diff(luma, axis=0)[:, :-1]).mean()
    assert sharpness(image) == pytest.approx(expected)
    step = torch.zeros(3, 4, 4, dtype=torch.uint8)
    step[1, 2:] = 100  # green, 58.7 levels of luma, over one of three rows of differences
    assert sharpness(step) == pytest.approx(58.7 / 3)


class TestProtocol:
    def test_prompts_are_true_and_the_window_holds_what_was_drawn(self, toy_config):
        predictor = Repeats()
        found = measured(toy_config(rollout_frames=5, batch_size=2), predictor, videos=3)
        assert predictor.calls == [(2, 3, 1.0)] * 5 + [(1, 3, 1.0)] * 5
        assert (found.videos, found.frames, found.prompt_frames, found.window) == (3, 5, 3, 3)
        assert found.temperature == 1, "a rollout is a sample"
        assert found.seconds_per_frame > 0

    def test_a_video_can_start_from_an_image(self, toy_config):
        predictor = Repeats()
        found = measured(toy_config(rollout_frames=4, rollout_prompt_frames=1), predictor)
        assert (found.frames, found.prompt_frames) == (4, 1)
        assert predictor.calls == [(3, 1, 1.0), (3, 2, 1.0), (3, 3, 1.0), (3, 3, 1.0)]

    def test_same_seed_draws_the_same_videos(self, toy_config):
        first, again, other = (
            measured(toy_config(rollout_frames=3, seed=seed), Repeats()).strip for seed in (0, 0, 1)
        )
        assert first == again
        assert first.drawn != other.drawn
        assert first.truth == other.truth

    def test_batches_draw_from_streams_of_their_own(self, toy_config):
        seen = []

        class Looks(Repeats):
            def sample(self, episodes, **settings):
                drawn = super().sample(episodes, **settings)
                seen.extend(frame.image[:, 5].tolist() for frame in drawn.frames)
                return drawn

        measured(toy_config(rollout_frames=1, batch_size=1), Looks(), videos=3)
        assert Counter(map(str, seen)).most_common(1)[0][1] == 1

    def test_strip_shows_eight_evenly_spaced_frames_of_one_video(self, toy_config):
        strip = measured(toy_config(rollout_frames=15, temperature=0.0), Repeats()).strip
        assert strip.steps == [1, 3, 5, 7, 9, 11, 13, 15]
        for step, true, drawn in zip(strip.steps, strip.truth, strip.drawn, strict=True):
            assert (pixels(true) == ramp(20 + 2 + step).numpy()).all()
            assert (pixels(drawn) == ramp(20 + 2).numpy()).all(), "the last frame of the prompt"

    def test_short_strip_shows_every_frame_once(self, toy_config):
        assert measured(toy_config(rollout_frames=2), Repeats()).strip.steps == [1, 2]


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).transpose(2, 0, 1)


class TestTrueVideos:
    def test_of_the_world_go_on_where_shorter_ones_end(self, toy_config):
        source = WorldSource(0, 32)
        short, long = (true_videos(TASK, source, toy_config(rollout_frames=n), 2) for n in (2, 40))
        assert short.shape == (2, 5, 3, 32, 32)
        assert long.shape[1] == 43, "longer than an episode may be"
        assert torch.equal(long[:, :5], short)
        assert not torch.equal(long[:, 5], long[:, 4])

    def test_of_a_data_set_are_its_sequences_and_too_short_ones_are_said(self, toy_config, tmp_path):
        values = np.random.default_rng(0).integers(0, 256, (20, 4, 64, 64), dtype=np.uint8)
        np.save(tmp_path / "mnist_test_seq.npy", values)
        source = DataSource(str(tmp_path), 64)
        source.held_out(TASK, 2)  # the same task's data in shorter clips, as a benchmark opens first
        videos = true_videos(TASK, source, toy_config(rollout_frames=17), 4)
        assert (videos[:, :, 0].numpy() == values.transpose(1, 0, 2, 3)).all()
        with pytest.raises(DataError, match=r"no videos of 21 frames for rollouts.*longest sequence has 20"):
            true_videos(TASK, source, toy_config(rollout_frames=18), 4)

    def test_samples_of_another_length_are_refused(self, toy_config):
        class Stills(Videos):
            def held_out(self, task, n):
                return [{"images": ramp(1)[None], "target": ramp(1)}] * n

        with pytest.raises(ConfigError, match=r"give samples of 2 frames") as caught:
            true_videos(TASK, Stills(), toy_config(rollout_frames=4), 2)
        assert "videos of 7 frames" in caught.value.expected
