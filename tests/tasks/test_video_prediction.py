import math

import pytest
import torch

from transframer.codec import round_trips, token_count
from transframer.errors import DataError
from transframer.tasks.video_prediction import VideoPrediction

TASK = VideoPrediction()


def sample(times=(0.0, 0.1, 0.2), query_time=0.3, target=None):
    images = torch.stack([torch.full((3, 16, 16), 40 * (1 + i), dtype=torch.uint8) for i in range(3)])
    target = images[int(torch.tensor(times).argmax())] if target is None else target
    return {"images": images, "times": torch.tensor(times), "query_time": query_time, "target": target}


@pytest.mark.parametrize(
    ("times", "latest"), [((0.0, 0.1, 0.2), 2), ((0.2, 0.0, 0.1), 0), ((5.0, 9.0, 7.0), 1)]
)
def test_latest_frame_is_found_by_time(times, latest):
    item = sample(times, query_time=20.0)
    episode = TASK.format(item)
    assert episode.query.codec.reference == tuple(float(i == latest) for i in range(3))
    assert torch.equal(TASK.floor([])(episode), item["images"][latest])
    assert token_count([episode]) == 0  # the target is the latest frame
    assert torch.equal(round_trips([episode])[0].image, item["images"][latest])


def test_same_problem_at_any_frame_rate():
    slow = TASK.format(sample((10.0, 12.0, 14.0), 18.0))
    fast = TASK.format(sample((0.0, 0.01, 0.02), 0.04))
    for a, b in zip((*slow.context, slow), (*fast.context, fast), strict=True):
        one, two = (x.annotation.time if hasattr(x, "annotation") else x.query.time for x in (a, b))
        assert one == pytest.approx(two, abs=1e-5)
    assert slow.query.time == pytest.approx(2)


def test_times_default_to_frame_numbers():
    episode = TASK.format({"images": sample()["images"]})
    assert [frame.annotation.time for frame in episode.context] == [-2, -1, 0]
    assert episode.query.time == 1
    assert episode.target is None


def test_psnr_by_horizon():
    scores = []
    for step, error in ((1, 2), (2, 10), (2, 20)):
        item = sample(query_time=0.2 + 0.1 * step)
        scores.append(TASK.score(item["target"] + error, item))
    summary = TASK.summarise(scores)
    expected = [20 * math.log10(255 / error) for error in (2, 10, 20)]
    assert summary["psnr"] == pytest.approx(sum(expected) / 3)
    assert summary["psnr_h1"] == pytest.approx(expected[0])
    assert summary["psnr_h2"] == pytest.approx(sum(expected[1:]) / 2)
    assert math.isnan(summary["psnr_h3"])


@pytest.mark.parametrize(
    ("times", "query_time"), [((0.0, 0.0, 0.0), 1.0), ((0.0, 0.1, 0.2), 0.2), ((0.0, 0.1, math.nan), 1.0)]
)
def test_impossible_times(times, query_time):
    with pytest.raises(DataError, match="time"):
        TASK.format(sample(times, query_time))


def test_a_single_image_counts_its_time_in_the_clips_steps():
    image = sample()["images"][:1]
    assert TASK.format({"images": image}).query.time == 1
    timed = TASK.format({"images": image, "times": torch.tensor([5.0]), "query_time": 5.3})
    assert timed.query.time == pytest.approx(0.3 / TASK.clip.step_s)
    assert [frame.annotation.time for frame in timed.context] == [0]
