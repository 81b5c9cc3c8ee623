"""The motion search on images whose motion is known, and the hints made of it."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from tests.models.conftest import CONFIG, episode, smooth_image
from transframer.frames import Annotation, Frame
from transframer.models.hints import hint_images
from transframer.models.motion import correlated, displaced, follow_motion, search_motion, warp
from transframer.models.transframer import Transframer


def moving_texture(shift, at, size=64, margin=32):
    """A window of a smooth random texture, whose content moves by `shift` pixels (x, y) per unit of time."""
    generator = torch.Generator().manual_seed(0)
    side = size + 2 * margin
    noise = interpolate(
        torch.rand(1, 3, side // 8, side // 8, generator=generator), (side, side), mode="bicubic"
    )
    x, y = (margin - round(shift[0] * at), margin - round(shift[1] * at))
    return noise[0, :, y : y + size, x : x + size].clamp(0, 1)[None] * 255


@pytest.mark.parametrize("shift", [(0, 0), (6, 0), (-4, 8), (8, -8)])
@pytest.mark.parametrize(("early_at", "late_at"), [(0.0, 1.0), (-0.5, 0.5), (-2.0, -1.0), (-0.25, 0.75)])
def test_a_moving_texture_is_followed(shift, early_at, late_at):
    early, late = moving_texture(shift, early_at), moving_texture(shift, late_at)
    times = torch.tensor([early_at]), torch.tensor([late_at])
    motion = search_motion(early, late, *times)
    inner = motion[0, :, 20:-20, 20:-20].mean((1, 2))
    # the search shrinks large motions a little, since a still picture is likelier than any other
    torch.testing.assert_close(inner, torch.tensor(shift, dtype=torch.float32), rtol=0.25, atol=1.0)
    there = moving_texture(shift, 0.0)
    guess = follow_motion(early, late, *times, motion)
    inside = (slice(None), slice(None), slice(24, 40), slice(24, 40))
    still = (late - there)[inside].abs().mean()
    assert (guess - there)[inside].abs().mean() <= 0.5 * still + 2.0


def test_sides_are_searched_in_proportion():
    """Twice the size, twice the motion."""
    small = search_motion(moving_texture((4, 0), 0), moving_texture((4, 0), 1), torch.zeros(1), torch.ones(1))
    large = [interpolate(moving_texture((4, 0), at), scale_factor=2, mode="nearest") for at in (0, 1)]
    big = search_motion(*large, torch.zeros(1), torch.ones(1))
    assert big.shape[2:] == (128, 128)
    torch.testing.assert_close(big[:, :, 64, 64], 2 * small[:, :, 32, 32], rtol=0.1, atol=0.3)


def test_displacements_show_what_sampling_points_shows():
    early, late = moving_texture((4, 0), 0, size=24), moving_texture((4, 0), 1, size=24)[..., :16]
    early, early_at, late_at = early[..., :16], torch.tensor([-0.25]), torch.tensor([0.75])
    line = torch.arange(-3, 4) / 2
    for down, seen in zip(line, displaced(early, late, early_at, late_at, line), strict=True):
        for right, *both in zip(line, *(image.unbind(1) for image in seen), strict=True):
            for image, at, moved in zip((early, late), (-0.25, 0.75), both, strict=True):
                shift = (torch.stack([right, down]) * at)[None, :, None, None].expand(1, 2, 24, 16)
                torch.testing.assert_close(moved, warp(image, shift, 24), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_correlations_are_products_of_what_is_displaced(size):
    generator = torch.Generator().manual_seed(0)
    early, late = (torch.randn(3, 7, *size, generator=generator, requires_grad=True) for _ in range(2))
    times, line = (torch.tensor([0.0, -0.3, -2.0]), torch.tensor([1.0, 0.7, -1.0])), torch.arange(-2, 3.0)
    rows = displaced(early, late, *times, line)
    expected = torch.cat([(one * other).sum(2) for one, other in rows], 1)
    got = correlated(early, late, *times, line)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn(expected.shape, generator=generator)
    for mine, theirs in zip(
        *(torch.autograd.grad((maps * weight).sum(), (early, late)) for maps in (got, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def hints_of(*episodes):
    return hint_images(Transframer(CONFIG).collate(list(episodes)))


def test_mixed_precision_does_not_touch_them():
    episodes = episode(1, 3), episode(2, 2)
    plain = hints_of(*episodes)
    with torch.autocast("cpu", torch.bfloat16):
        assert hints_of(*episodes).equal(plain)


def test_neither_the_order_of_the_frames_nor_the_batch_matters():
    e = episode(1, 3)
    turned = replace(e, context=(e.context[2], e.context[0], e.context[1]))
    alone = hints_of(e)
    torch.testing.assert_close(hints_of(turned), alone)
    torch.testing.assert_close(hints_of(episode(2, 1), e)[1:], alone)


def test_the_two_frames_nearest_in_time_are_used():
    e = episode(1, 3)  # times 0, 1, 2, and 3 asked for
    torch.testing.assert_close(hints_of(replace(e, context=e.context[1:])), hints_of(e))


def test_a_single_frame_is_the_look_and_nothing_moves():
    e = episode(0, 1)
    look, motion = hints_of(e)[0]
    torch.testing.assert_close(look, e.context[0].image.float())
    assert (motion == 128).all()


def test_the_view_nearest_to_the_query_weighs_most():
    e = episode(3, 2, with_camera=True)
    near = replace(e.context[0].annotation, camera=e.query.camera, time=None)
    far = replace(e.context[1].annotation, time=None)
    query = replace(e.query, time=None)
    views = (Frame(smooth_image(1), near), Frame(smooth_image(2), far))
    look = hints_of(replace(e, context=views, query=query, target=None))[0, 0]
    distance = [(look - view.image).abs().mean() for view in views]
    assert distance[0] < distance[1]


def test_without_a_query_time_motion_is_that_of_the_first_frame():
    """As optical flow asks for it: from the frame at 0 to the frame at 1."""
    images = [moving_texture((6, 0), at)[0].to(torch.uint8) for at in (0, 1)]
    frames = tuple(Frame(image, Annotation(time=float(at))) for at, image in enumerate(images))
    e = episode(0, 1, size=(64, 64))
    e = replace(e, context=frames, query=replace(e.query, time=None), target=None)
    look, motion = hints_of(e)[0]
    assert (motion[0, 20:-20, 20:-20] > 128 + 1.402 * 4 * 4).float().mean() > 0.9  # red: to the right
    assert (look - images[0].float())[:, 20:-20, 20:-20].abs().mean() < 8
