"""Normals there and back, their angles against numpy, and the files."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from transframer.codec import round_trip, token_count
from transframer.errors import DataError
from transframer.tasks.chroma_planes import chroma_from_image, image_from_chroma, luma
from transframer.tasks.directions import angle_deg, angle_metrics, resized, score_angles
from transframer.tasks.surface_normals import SurfaceNormals

TASK = SurfaceNormals()


def sample(normals):
    size = normals.shape[1:]
    return {"images": torch.full((1, 3, *size), 100, dtype=torch.uint8), "normals": normals}


def facing(x, y, z, size=(32, 48)):
    vector = F.normalize(torch.tensor([float(x), float(y), float(z)]), dim=0)
    return vector[:, None, None].expand(3, *size).contiguous()


def decoded(normals, task=TASK):
    episode = task.format(sample(normals))
    return task.decode(round_trip(episode), episode.without_target())


@pytest.mark.parametrize(
    "axis", [(0, 0, -1), (0, -1, -0.3), (1, 0, -1), (-1, 1, -0.5), (1, 0, 0), (0, 1, 0), (0.5, 0.5, 0.05)]
)
def test_a_flat_surface_comes_back(axis):
    assert angle_deg(decoded(facing(*axis)), facing(*axis)).max() < 3


def test_a_surface_that_faces_the_camera_costs_no_token():
    assert token_count([TASK.format(sample(facing(0, 0, -1)))]).item() == 0
    assert token_count([TASK.format(sample(torch.zeros(3, 32, 48)))]).item() == 0, "nor does an unknown one"


def test_a_surface_that_faces_away_is_clamped_and_finite():
    found = decoded(facing(0.1, 0, 1))
    assert torch.allclose(found.norm(dim=0), torch.ones(1))
    assert found[0].min() > 0


def test_unknown_pixels_cost_no_edge_and_are_not_judged():
    normals = facing(0, -1, -0.3)
    half = normals * (torch.arange(48) < 24)
    assert token_count([TASK.format(sample(half))]) == token_count([TASK.format(sample(normals))])
    assert TASK.score(normals, sample(half)).counts.sum() == 32 * 24
    assert TASK.pixel_error(normals, sample(half))[:, 24:].isnan().all()
    assert all(math.isnan(value) for value in TASK.summarise([]).values())
    nothing = TASK.score(normals, sample(torch.zeros(3, 32, 48)))
    assert math.isnan(TASK.summarise([nothing])["mean_angle"])


def test_chroma_planes_come_back_and_luma_means_nothing():
    planes = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = image_from_chroma(planes)
    assert (chroma_from_image(image) - planes).abs().max() < 0.02
    assert (luma(image) - 128).abs().max() < 1.5
    grey = torch.arange(0, 256, 4, dtype=torch.uint8).view(1, 8, 8).expand(3, 8, 8)
    assert chroma_from_image(grey).abs().max() < 1e-5
    assert torch.allclose(luma(grey), grey[:1].float())


def test_angles_are_those_of_numpy():
    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(3, 50, 60, generator=generator), dim=0) for _ in range(2))
    expected = np.degrees(np.arccos((a.double() * b.double()).sum(0).numpy()))
    assert np.allclose(angle_deg(a, b), expected, atol=1e-2)
    metrics = angle_metrics(
        [score_angles(angle_deg(a, b)[:10].flatten()), score_angles(angle_deg(a, b)[10:].flatten())]
    )
    assert metrics["mean_angle"] == pytest.approx(expected.mean(), rel=1e-5)
    assert metrics["median_angle"] == pytest.approx(np.median(expected), abs=0.25)
    for key, limit in (("within_11", 11.25), ("within_22", 22.5), ("within_30", 30)):
        assert metrics[key] == pytest.approx(100 * (expected < limit).mean(), abs=0.1)


def test_angles_at_the_limits():
    metrics = angle_metrics([score_angles(torch.tensor([11.2, 11.3, 22.4, 22.6, 29.9, 30.1, 180.0, 0.0]))])
    shares = [metrics[key] for key in ("within_11", "within_22", "within_30")]
    assert shares == [pytest.approx(100 * part / 8) for part in (2, 4, 6)]


def test_combine_is_the_mean_direction_and_uncertainty_the_angle_to_it():
    left, right = facing(-1, 0, -1), facing(1, 0, -1)
    assert torch.allclose(TASK.combine([left, right]), facing(0, 0, -1), atol=1e-6)
    assert TASK.uncertainty([left, right]).mean() == pytest.approx(45)
    assert TASK.pixel_error(left, sample(right)).mean() == pytest.approx(90)


def test_floor_is_the_mean_direction_where_it_is_known():
    left, right, unknown = facing(-1, 0, -1), facing(1, 0, -1), torch.zeros(3, 32, 48)
    unknown[:, 0] = facing(0, 1, 0)[:, 0]
    first = facing(-1, 0, -1)
    first[:, 1] = right[:, 1] = 0
    floor = TASK.floor([sample(first), sample(right)])
    found = floor(TASK.format(sample(left)))
    assert torch.allclose(found, facing(0, 0, -1), atol=1e-6), "a row that nobody knows has the mean of all"
    assert floor(TASK.format(sample(facing(0, 0, -1, (16, 16))))).shape == (3, 16, 16)


def test_resized_normals_are_unit_and_do_not_turn():
    normals = facing(1, 2, -3)
    large = resized(normals, (90, 50))
    assert torch.allclose(large, facing(1, 2, -3, (90, 50)), atol=1e-6)
    mixed = torch.cat([facing(-1, 0, -1), facing(1, 0, -1)], 2)
    assert torch.allclose(resized(mixed, (17, 31)).norm(dim=0), torch.ones(1))


def test_files_and_colours(tmp_path):
    npy, png = TASK.write(facing(0, -1, 0), tmp_path / "a.b", (20, 30))
    assert (npy.name, png.name) == ("a.b.npy", "a.b.png")
    assert np.allclose(np.load(npy), facing(0, -1, 0, (20, 30)))
    picture = np.asarray(Image.open(png))
    assert picture.shape == (20, 30, 3)
    assert picture[0, 0].tolist() == [128, 255, 128], "green is upwards"
    assert TASK.draw({}, facing(0, 0, -1))[:, 0, 0].tolist() == [128, 128, 255], "blue is towards the camera"
    assert TASK.draw({}, torch.zeros(3, 4, 4)).max() == 0


def test_missing_truth():
    with pytest.raises(DataError, match="normals"):
        TASK.truth({"images": torch.zeros(1, 3, 16, 16)})
