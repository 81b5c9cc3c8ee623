"""Surface normals against finite differences of the depth, and what must hold of them everywhere."""

import pytest
import torch
import torch.nn.functional as F

from transframer.data.world import World
from transframer.task import Clip

CLIP = Clip(frames=2)


@pytest.fixture(scope="module", params=[64, (48, 96)])
def clips(request):
    return World("train", 5, request.param).clips(range(40), CLIP, ["depth_m", "normals", "instance"])


def _points(clips):
    """Points in the camera's axes, [b t 3 h w] float64."""
    h, w = clips.depth_m.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).flatten(1).double()
    rays = (torch.linalg.inv(clips.intrinsics.double()) @ pixels).unflatten(-1, (h, w))
    return rays * clips.depth_m[:, :, None].double()


def _away_from_edges(instance):
    """Inner pixels whose 3 x 3 neighbours are all of one surface, not of the sky."""
    same = instance[..., 1:-1, 1:-1] > 0
    h, w = instance.shape[-2:]
    for down in range(3):
        for right in range(3):
            other = instance[..., down : h - 2 + down, right : w - 2 + right]
            same = same & (other == instance[..., 1:-1, 1:-1])
    return same


def test_they_are_those_of_the_depth_away_from_edges(clips):
    points = _points(clips)
    across = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    along = points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    expected = F.normalize(torch.linalg.cross(along, across, dim=2), dim=2)
    cosine = (expected * clips.normals[..., 1:-1, 1:-1]).sum(2).clamp(-1, 1)
    angle = torch.rad2deg(torch.acos(cosine))
    smooth, instance = _away_from_edges(clips.instance), clips.instance[..., 1:-1, 1:-1]
    assert angle[smooth & (instance == 1)].max() < 0.1
    objects = angle[smooth & (instance > 1)]
    assert len(objects) > 20_000
    assert objects.median() < 0.3
    # the rest lies on an edge between two faces of one object, or where a curved face turns away
    assert objects.quantile(0.9) < 2


def test_they_are_unit_vectors_that_face_the_camera_and_none_in_the_sky(clips):
    length = clips.normals.norm(dim=2)
    seen = clips.instance > 0
    assert torch.allclose(length[seen], torch.ones(1), atol=1e-5)
    assert length[~seen].abs().max() == 0
    towards = (clips.normals * _points(clips)).sum(2)
    assert towards[seen].max() < 0


def test_a_box_has_flat_faces_and_a_sphere_all_directions():
    clips = World("train", 6).clips(range(60), Clip(), ["normals", "mask", "instance"])
    counts = {}
    for b in range(60):
        for number in clips.instance[b, 0].unique().tolist():
            here = clips.instance[b, 0] == number
            if number > 1 and here.sum() > 150:
                found = clips.normals[b, 0][:, here].mul(1000).round().unique(dim=1).shape[1]
                counts.setdefault(clips.mask[b, 0][here][0].item(), []).append(found / int(here.sum()))
    assert max(counts[3]) < 0.05  # a box shows at most three faces
    assert min(counts[2]) > 0.8


def test_a_scene_has_the_same_normals_in_any_batch(monkeypatch):
    world = World("train", 4)
    together = world.clips(range(12), CLIP, ["normals"]).normals
    assert torch.equal(world.clips([7, 2], CLIP, ["normals"]).normals, together[[7, 2]])
    monkeypatch.setattr("transframer.data.world.world._RAYS_AT_ONCE", {"cpu": 2 * 2 * 64 * 64})
    assert torch.equal(world.clips(range(12), CLIP, ["normals"]).normals, together)
