import pytest
import torch

from transframer.codec import round_trips, token_count
from transframer.errors import DataError
from transframer.tasks.frame_interpolation import FrameInterpolation

TASK = FrameInterpolation()
DARK, BRIGHT = (torch.full((3, 16, 16), value, dtype=torch.uint8) for value in (40, 200))


def sample(times, query_time, **label):
    return {
        "images": torch.stack([DARK, BRIGHT]),
        "times": torch.tensor(times),
        "query_time": query_time,
        **label,
    }


@pytest.mark.parametrize(
    ("times", "query_time", "grey"), [((1.0, 5.0), 2.0, 80), ((5.0, 1.0), 2.0, 160), ((0.0, 1.0), 0.0, 40)]
)
def test_blend_is_weighted_by_time(times, query_time, grey):
    blend = torch.full((3, 16, 16), grey, dtype=torch.uint8)
    episode = TASK.format(sample(times, query_time, target=blend))
    assert torch.equal(TASK.floor([])(episode), blend)
    assert token_count([episode]) == 0
    assert torch.equal(round_trips([episode])[0].image, blend)
    assert sorted(frame.annotation.time for frame in episode.context) == [0, 1]


def test_midway_between_frames_without_times():
    episode = TASK.format({"images": torch.stack([DARK, BRIGHT])})
    assert [frame.annotation.time for frame in episode.context] == [0, 1]
    assert episode.query.time == 0.5
    assert episode.query.codec.reference == (0.5, 0.5)


@pytest.mark.parametrize(("times", "query_time"), [((0.0, 1.0), 1.5), ((0.0, 1.0), -0.1), ((3.0, 3.0), 3.0)])
def test_impossible_times(times, query_time):
    with pytest.raises(DataError, match="time"):
        TASK.format(sample(times, query_time))
