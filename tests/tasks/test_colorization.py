"""Colour of grey images: what the model sees, what it costs, and colour differences against scikit-image."""

import dataclasses
import math

import numpy as np
import pytest
import skimage.data
import torch
from skimage.color import deltaE_ciede2000, rgb2lab, rgb2ycbcr

from transframer.codec import round_trip, token_count
from transframer.data.formats.images import resize_image
from transframer.tasks.colorization import Colorization
from transframer.tasks.image_quality import psnr

TASK = Colorization()


@pytest.fixture(scope="module")
def photograph():
    return resize_image(torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1), (96, 128))


def sample(image):
    return {"images": image[None], "target": image}


def coded(image):
    episode = TASK.format(sample(image))
    return TASK.decode(round_trip(episode), episode.without_target())


def luma(image):
    """By scikit-image, whose luma is 16 to 235."""
    return (rgb2ycbcr(image.permute(1, 2, 0).numpy())[..., 0] - 16) / 219 * 255


def test_only_the_luma_is_seen(photograph):
    context = TASK.format(sample(photograph)).context[0]
    assert context.image.float().std(0).max() == 0
    assert np.abs(context.image[0].numpy() - luma(photograph)).max() <= 0.6
    grey = {"images": context.image[None]}
    assert torch.equal(TASK.format(grey).context[0].image, context.image), (
        "a grey photograph stays what it is"
    )
    assert TASK.format(grey).target is None


def test_a_grey_photograph_costs_nothing_and_chroma_alone_costs(photograph):
    grey = TASK.format(sample(photograph)).context[0].image
    assert token_count([TASK.format(sample(grey))]).item() == 0
    episode = TASK.format(sample(photograph))
    whole = dataclasses.replace(episode.query, codec=dataclasses.replace(episode.query.codec, reference=None))
    alone = dataclasses.replace(episode, query=whole)
    assert 0 < token_count([episode]).item() < token_count([alone]).item() / 3


def test_a_photograph_keeps_its_luma_and_most_of_its_colour(photograph):
    found = coded(photograph)
    assert np.abs(luma(found) - luma(photograph)).mean() < 1
    grey = TASK.format(sample(photograph)).context[0].image
    assert psnr(found, photograph) > psnr(grey, photograph) + 8


def test_luma_in_a_sampled_frame_means_nothing(photograph):
    episode = TASK.format(sample(photograph))
    darker = dataclasses.replace(episode.target, image=photograph // 8 * 8)
    brighter = dataclasses.replace(episode.target, image=(photograph.int() + 9).clamp(max=255).byte())
    for frame in (darker, brighter):
        assert np.abs(luma(TASK.decode(frame, episode)) - luma(photograph)).mean() < 1


def test_metrics_are_means_over_images(photograph):
    other = coded(photograph)
    lab = [rgb2lab(image.permute(1, 2, 0).numpy()) for image in (other, photograph)]
    score = TASK.score(other, sample(photograph))
    assert score.delta_e == pytest.approx(deltaE_ciede2000(*lab).mean())
    metrics = TASK.summarise([score, TASK.score(photograph, sample(photograph))])
    assert metrics["delta_e"] == pytest.approx(score.delta_e / 2)
    assert metrics["psnr"] == pytest.approx((score.psnr + 60) / 2)
    assert math.isnan(TASK.summarise([])["delta_e"])


def test_floor_is_the_mean_chroma_on_the_luma_of_the_image():
    red, green = (torch.zeros(3, 16, 16, dtype=torch.uint8) for _ in range(2))
    red[0], green[1] = 200, 100
    floor = TASK.floor([sample(red), sample(green)])
    found = floor(TASK.format(sample(torch.full((3, 32, 16), 120, dtype=torch.uint8))))
    chroma = [(200 - 59.8 - 58.7) / 2, (-59.8 + 100 - 58.7) / 2, (-59.8 - 58.7) / 2]
    assert found.shape == (3, 32, 16)
    assert found[:, 0, 0].tolist() == pytest.approx([120 + part for part in chroma], abs=1)
