import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import structural_similarity_index_measure

from transframer.data.formats.images import load_image
from transframer.errors import DataError
from transframer.tasks.frame_interpolation import FrameInterpolation
from transframer.tasks.image_quality import IDENTICAL_PSNR_DB, psnr, ssim
from transframer.tasks.video_prediction import VideoPrediction


def pair(seed, noise):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(1, 3, 5, 6, generator=generator)
    image = torch.nn.functional.interpolate(smooth, (40, 48), mode="bicubic").mul(255).clamp(0, 255)[0]
    other = image + noise * torch.randn(image.shape, generator=generator)
    return image.byte(), other.clamp(0, 255).byte()


@pytest.mark.parametrize("noise", [1, 10, 60])
def test_psnr_agrees_with_scikit_image(noise):
    a, b = pair(noise, noise)
    assert psnr(a, b) == pytest.approx(
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=255), abs=1e-6
    )


@pytest.mark.parametrize("noise", [1, 10, 60])
def test_ssim_agrees_with_torchmetrics(noise):
    a, b = pair(noise, noise)
    _, full = structural_similarity_index_measure(
        a[None].double(), b[None].double(), data_range=255.0, sigma=1.5, return_full_image=True
    )
    assert ssim(a, b) == pytest.approx(
        float(full[..., 5:-5, 5:-5].mean()), abs=1e-6
    )  # without mirrored borders


def test_identical_images():
    a, _ = pair(0, 1)
    assert psnr(a, a) == IDENTICAL_PSNR_DB
    assert ssim(a, a) == 1


def test_mean_of_psnrs_and_not_psnr_of_the_mean():
    task = FrameInterpolation()
    a, b = pair(0, 5)
    sample = {"images": torch.stack([a, a]), "target": a}
    scores = [task.score(a, sample), task.score(b, sample)]
    assert task.summarise(scores)["psnr"] == pytest.approx((IDENTICAL_PSNR_DB + psnr(a, b)) / 2)
    assert math.isnan(task.summarise([])["psnr"])


def test_combine_draw_write(tmp_path):
    task = VideoPrediction()
    dark, bright = (torch.full((3, 16, 16), value, dtype=torch.uint8) for value in (10, 21))
    assert task.combine([dark, bright, bright]).unique().tolist() == [17]  # 17.33
    assert torch.equal(task.draw({}, bright), bright)
    (path,) = task.write(bright, tmp_path / "next.frame", (20, 30))
    assert path.name == "next.frame.png"
    assert np.array_equal(load_image(path).numpy(), np.full((3, 20, 30), 21))


def test_missing_truth():
    with pytest.raises(DataError, match="target"):
        VideoPrediction().truth({"images": torch.zeros(3, 3, 16, 16)})
