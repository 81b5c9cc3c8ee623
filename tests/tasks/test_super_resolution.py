"""Enlarging: the small image is made as benchmarks make it, and as it is where there is no sharp one."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from transframer.codec import round_trip, token_count
from transframer.data.formats.images import load_image, resize_image
from transframer.errors import DataError
from transframer.tasks.image_quality import psnr
from transframer.tasks.super_resolution import SuperResolution

TASK = SuperResolution()


@pytest.fixture(scope="module")
def photograph():
    return resize_image(torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1), (96, 128))


def sample(image):
    return {"images": image[None], "target": image}


def test_the_context_is_the_image_shrunk_and_enlarged_as_pillow_does(photograph):

    def resized(channel, size):  # in floats: with bytes Pillow also rounds between the two directions
        pixels = np.asarray(
            Image.fromarray(channel.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
        )
        return pixels.round().clip(0, 255)

    expected = [resized(resized(channel, (32, 24)), (128, 96)) for channel in photograph.numpy()]
    difference = TASK.format(sample(photograph)).context[0].image.numpy() - np.stack(expected)
    assert np.abs(difference).max() <= 1
    assert np.abs(difference).mean() < 0.01


def test_without_a_sharp_image_the_given_one_is_the_context(photograph):
    episode = TASK.format({"images": photograph[None]})
    assert torch.equal(episode.context[0].image, photograph)
    assert episode.target is None
    assert episode.query == TASK.format(sample(photograph)).query


def test_the_scale_is_a_setting(photograph):
    by_two = SuperResolution(scale=2)
    contexts = [task.format(sample(photograph)).context[0].image for task in (TASK, by_two)]
    assert psnr(contexts[1], photograph) > psnr(contexts[0], photograph) + 2


def test_a_smooth_image_costs_nothing_and_a_photograph_becomes_sharper(photograph):
    flat = torch.full((3, 32, 32), 90, dtype=torch.uint8)
    assert token_count([TASK.format(sample(flat))]).item() == 0
    episode = TASK.format(sample(photograph))
    coded = TASK.decode(round_trip(episode), episode.without_target())
    floor = TASK.floor([])(episode.without_target())
    assert torch.equal(floor, episode.context[0].image)
    assert psnr(coded, photograph) > psnr(floor, photograph) + 3


def test_the_file_is_larger_by_the_scale(tmp_path, photograph):
    (path,) = TASK.write(photograph, tmp_path / "small", (24, 32))
    assert torch.equal(load_image(path), photograph)


def test_an_image_too_small_to_shrink_is_refused():
    with pytest.raises(DataError, match="3 x 16"):
        TASK.format(sample(torch.zeros(3, 3, 16, dtype=torch.uint8)))
