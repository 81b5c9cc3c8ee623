"""Progressive decoding: every step against the sequence of triples cut off at the same place."""

import pytest
import torch

from transframer.codec import Tokens, code_episodes, decode_frames, grid_from_tokens, tokens_from_grid
from transframer.codec.layout import ZIGZAG
from transframer.frames import Annotation, CodecSettings, Episode, Frame
from transframer.progressive import contact_sheet, progressive_steps


def picture(seed, size=(48, 32)):
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def coded(codec, target=None):
    context = Frame(picture(0))
    query = Annotation(codec=codec)
    episode = Episode("a task", (context,), query, Frame(picture(1) if target is None else target, query))
    return code_episodes([episode])[0], episode.without_target()


@pytest.fixture(
    params=[CodecSettings(20), CodecSettings(50, "4:4:4"), CodecSettings(30, "4:4:4", (1.0,))],
    ids=["4:2:0", "4:4:4", "residual"],
)
def drawn(request):
    return coded(request.param)


def test_each_step_is_the_frame_of_the_first_triples(drawn):
    grid, episode = drawn
    tokens = tokens_from_grid(grid[None])
    for step in progressive_steps(grid, episode):
        first = Tokens(*tokens[:3], torch.tensor([step.total]))
        (expected,) = decode_frames(grid_from_tokens(first, grid.shape[1:]), [episode])
        assert (step.frame.image == expected.image).all(), step.label


def test_last_step_is_the_frame_and_triples_add_up(drawn):
    grid, episode = drawn
    steps = progressive_steps(grid, episode)
    (whole,) = decode_frames(grid[None], [episode])
    assert (steps[-1].frame.image == whole.image).all()
    assert steps[-1].total == int(grid.count_nonzero()) == sum(step.triples for step in steps)
    assert [step.total for step in steps] == sorted({step.total for step in steps}), "every step adds triples"


def test_start_is_grey_or_what_the_frame_is_coded_against():
    for codec, expected in (
        (CodecSettings(20), torch.full((3, 48, 32), 128, dtype=torch.uint8)),
        (CodecSettings(20, "4:4:4", (1.0,)), picture(0)),
    ):
        start = progressive_steps(*coded(codec))[0]
        assert (start.frame.image.int() - expected.int()).abs().max() <= 1
        assert (start.label, start.triples, start.total) == ("start", 0, 0)


def test_a_frame_without_triples_has_its_start_only():
    grid, episode = coded(CodecSettings(20, "4:4:4"))
    (start,) = progressive_steps(torch.zeros_like(grid), episode)
    assert start.to_json() == {"plane": None, "zigzag": None, "triples": 0, "total": 0}


def test_steps_name_one_diagonal_of_one_plane(drawn):
    steps = progressive_steps(*drawn)
    names = [(step.plane, step.zigzag) for step in steps[1:]]
    assert names[:3] == [("Y", (0, 0)), ("Cb", (0, 0)), ("Cr", (0, 0))]
    assert len(set(names)) == len(names)
    for _, (low, high) in names:
        assert len({sum(ZIGZAG[index]) for index in range(low, high + 1)}) == 1
    assert steps[1].label == "Y 0"
    assert steps[4].label == "Y 1-2"
    assert steps[4].to_json()["zigzag"] == [1, 2]


def test_a_grey_frame_takes_steps_of_luma_only():
    grey = picture(2)[:1].expand(3, -1, -1).contiguous()
    steps = progressive_steps(*coded(CodecSettings(40), grey))
    assert {step.plane for step in steps[1:]} == {"Y"}


@pytest.mark.parametrize("size", [(64, 64), (500, 31), (31, 500), (1, 1)])
def test_sheet_has_a_tile_for_each_step_at_the_aspect_of_the_image(drawn, size):
    steps = progressive_steps(*drawn)
    sheet = contact_sheet(steps, size)
    tile = max(96, round(160 * size[1] / max(size)))
    assert sheet.shape[2] == min(8, len(steps)) * (tile + 8) + 8
    high = round(160 * size[0] / max(size)) + 38 + 8
    assert sheet.shape[1] == -(-len(steps) // 8) * high + 8


def test_labels_stay_on_the_sheet():
    steps = progressive_steps(*coded(CodecSettings(95, "4:4:4")))
    for size in ((64, 64), (500, 31)):
        sheet = contact_sheet(steps, size)
        assert (sheet[:, -4:] == 255).all()
        assert (sheet[:, :, -4:] == 255).all()
