"""The Frechet distance itself, and what is said of it."""

import json

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from tests.benchmarks.toy_videos import TASK, Repeats, Videos, random_videos
from transframer.benchmarks.notes import rollout_notes
from transframer.benchmarks.parts import RolloutResult
from transframer.benchmarks.video_distance import VideoFeatures, frechet_distance, gaussian, video_distance
from transframer.errors import ConfigError

CPU = torch.device("cpu")


def gaussians(d, n, seed):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(2, d, d, generator=generator, dtype=torch.float64)
    rows = torch.randn(2, n, d, generator=generator, dtype=torch.float64) @ mix
    return rows[0], rows[1] + 0.3


class TestDistance:
    @pytest.mark.parametrize("d", [1, 3, 20])
    def test_is_that_by_the_root_of_the_general_matrix(self, d):
        one, two = gaussians(d, 10 * d, seed=d)
        (mean_1, covariance_1), (mean_2, covariance_2) = gaussian(one), gaussian(two)
        assert torch.allclose(covariance_1, torch.from_numpy(np.atleast_2d(np.cov(one.T.numpy()))))
        root = np.atleast_2d(sqrtm((covariance_1 @ covariance_2).numpy())).real
        expected = (
            (mean_1 - mean_2).square().sum() + (covariance_1 + covariance_2).trace() - 2 * np.trace(root)
        )
        assert frechet_distance(mean_1, covariance_1, mean_2, covariance_2) == pytest.approx(float(expected))

    def test_of_diagonal_gaussians_has_a_closed_form(self):
        """|m1 - m2|^2 + sum (s1 - s2)^2, s the standard deviations; here 9 + 16 + (1 - 3)^2 + (5 - 2)^2."""
        found = frechet_distance(
            torch.tensor([0.0, 1.0]),
            torch.tensor([[1.0, 0.0], [0.0, 25.0]]),
            torch.tensor([3.0, 5.0]),
            torch.tensor([[9.0, 0.0], [0.0, 4.0]]),
        )
        assert found == pytest.approx(38)

    def test_of_fewer_rows_than_features_is_stable(self):
        """Tr((S1 S2)^(1/2)) is the sum of the singular values of X1 X2^T, the rows centred and scaled."""
        one, two = gaussians(60, 7, seed=1)
        centred = [(rows - rows.mean(0)) / 6**0.5 for rows in (one, two)]
        shared = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
        spread = sum(rows.square().sum() for rows in centred) - 2 * shared
        expected = (one.mean(0) - two.mean(0)).square().sum() + spread
        assert frechet_distance(*gaussian(one), *gaussian(two)) == pytest.approx(float(expected), rel=1e-6)

    def test_is_zero_of_itself_and_the_same_both_ways(self):
        one, two = (gaussian(rows) for rows in gaussians(5, 50, seed=2))
        assert frechet_distance(*one, *one) == pytest.approx(0, abs=1e-9)
        assert frechet_distance(*one, *two) == pytest.approx(frechet_distance(*two, *one))


class TestReport:
    def distance(self, feature_file, function, k):
        features = VideoFeatures(f"{feature_file}:{function}", CPU)
        return video_distance(
            features, random_videos(k, 0), random_videos(k, 1, 128), random_videos(k, 2, 32), batch_size=3
        )

    def test_distance_of_one_feature_has_a_closed_form(self, feature_file):
        true, drawn, floor = (
            random_videos(5, seed, top)[:, :, 0].double().mean((1, 2, 3)) / 127.5 - 1
            for seed, top in ((0, 256), (1, 128), (2, 32))
        )
        found = self.distance(feature_file, "red", 5)
        for value, other in ((found.distance, drawn), (found.floor, floor)):
            expected = (true.mean() - other.mean()) ** 2 + (true.std() - other.std()) ** 2
            assert value == pytest.approx(float(expected), rel=1e-4)
        assert found.warning == ""
        assert (found.videos, found.frames, found.size_px, found.features) == (5, 4, [8, 6], 1)

    def test_states_its_network_and_warns_of_few_videos(self, feature_file):
        enough, few = self.distance(feature_file, "colours", 4), self.distance(feature_file, "colours", 3)
        assert enough.warning == ""
        assert "3 videos are too few for 3 features" in few.warning
        rollout = RolloutResult([], 3, 2, 2, 2, 1.0, 1.0, 0.1, frechet_distance=few)
        (note,) = [line for line in rollout_notes(rollout) if "Frechet" in line]
        for said in (
            "Frechet video distance with features.py:colours",
            few.sha256[:12],
            "[-1, 1]",
            "singular",
        ):
            assert said in note
        assert "FVD" not in note

    def test_one_video_is_refused(self, feature_file):
        with pytest.raises(ConfigError, match="one video"):
            self.distance(feature_file, "red", 1)


def test_a_benchmark_measures_and_stamps_it(feature_file, toy_benchmark):
    (result,) = toy_benchmark(
        task=TASK,
        source=Videos(),
        predictor=Repeats(),
        samples=2,
        rollout_frames=2,
        rollout_videos=3,
        temperature=0.0,
        video_features=f"{feature_file}:red",
    )
    found = result.rollout.frechet_distance
    # Ramps that brighten by a level a frame: 3 true frames, then 2 that stay 1 and 2 levels behind.
    assert found.distance == found.floor == pytest.approx(((0 + 0 + 0 + 1 + 2) / 5 / 127.5) ** 2, rel=1e-4)
    assert found.frames == 5
    assert result.protocol["rollout"]["features"]["sha256"] == found.sha256
    record = json.loads(json.dumps(result.to_json(pictures=False)))
    assert record["rollout"]["frechet_distance"]["name"] == "Frechet video distance with features.py:red"
