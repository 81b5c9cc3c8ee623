from dataclasses import replace

import pytest
import torch

from transframer.codec import code_episodes, decode_frames, round_trip, round_trips, token_count
from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Frame


@pytest.fixture
def episodes(photograph) -> list[Episode]:
    """Plain and residual coding, of the last frame and of a blend."""
    frames = [Frame(photograph(name, (50, 70))) for name in ("astronaut", "coffee", "chelsea")]
    chosen = (
        CodecSettings(50),
        CodecSettings(90, "4:4:4"),
        CodecSettings(80, "4:2:0", (0.0, 1.0)),
        CodecSettings(90, "4:4:4", (0.5, 0.5)),
    )
    return [
        Episode("a task", (frames[0], frames[1]), Annotation("rgb", codec=setting), frames[2])
        for setting in chosen
    ]


def test_frames_come_back_with_the_annotation_of_the_query(episodes):
    decoded = round_trips(episodes)
    for episode, frame in zip(episodes, decoded, strict=True):
        assert frame.annotation == episode.query
        error = (frame.image.float() - episode.target.image.float()).square().mean()
        assert 10 * torch.log10(255**2 / error) > 27  # dB
        assert torch.equal(frame.image, round_trip(episode).image)


def test_frames_are_decoded_without_targets(episodes):
    grid = code_episodes(episodes)
    unknown = [episode.without_target() for episode in episodes]
    for ours, theirs in zip(decode_frames(grid, unknown), round_trips(episodes), strict=True):
        assert torch.equal(ours.image, theirs.image)


def test_a_still_video_needs_no_triples(episodes):
    still = replace(episodes[2], target=episodes[2].context[1])
    assert token_count([episodes[0], still]).tolist()[1] == 0
    assert torch.equal(round_trip(still).image, still.target.image)


def test_episodes_without_targets_or_of_different_sizes_are_refused(episodes):
    with pytest.raises(DataError, match="without a target"):
        code_episodes([episodes[0].without_target()])
    small = Frame(torch.zeros(3, 16, 16, dtype=torch.uint8))
    with pytest.raises(DataError, match="one size in a batch"):
        code_episodes([episodes[0], Episode("a task", (small,), Annotation(), small)])
