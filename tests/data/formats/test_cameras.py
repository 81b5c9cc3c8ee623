import json
import math

import pytest
import torch

from transframer.data.formats.cameras import read_cameras, write_cameras
from transframer.errors import DataError
from transframer.frames import Camera


def camera(angle=0.3, x=1.0):
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = math.cos(angle)
    pose[0, 2], pose[2, 0] = math.sin(angle), -math.sin(angle)
    pose[0, 3] = x
    return Camera(torch.tensor([[50.0, 0, 32], [0, 50, 32], [0, 0, 1]]), pose)


@pytest.fixture
def path(tmp_path):
    write_cameras(tmp_path / "cameras.json", {"a.png": camera(0.1), "b.png": camera(0.2, 2.0)}, camera(0.4))
    return tmp_path / "cameras.json"


def test_round_trip_in_the_order_asked_for(path):
    (b, a), query = read_cameras(path, ["folder/b.png", "a.png"])
    assert torch.equal(a.world_from_camera, camera(0.1).world_from_camera)
    assert torch.equal(b.world_from_camera, camera(0.2, 2.0).world_from_camera)
    assert torch.equal(query.intrinsics, camera().intrinsics)


def test_missing_camera_is_named(path):
    with pytest.raises(DataError, match=r"no camera for c\.png"):
        read_cameras(path, ["c.png"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("intrinsics", None),
        ("intrinsics", [[1, 2], [3, 4]]),
        ("intrinsics", [[-5, 0, 1], [0, 5, 1], [0, 0, 1]]),
        ("intrinsics", [["a", 0, 1], [0, 5, 1], [0, 0, 1]]),
        ("world_from_camera", [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),  # a scaling
        ("world_from_camera", [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),  # a mirror
        ("world_from_camera", [[1, 0, 0, float("nan")], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_wrong_matrix_is_named(path, key, value):
    content = json.loads(path.read_text())
    content["images"]["a.png"][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"cameras\.json: images\.a\.png\.{key}"):
        read_cameras(path, ["a.png"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": {}}', '{"images": [], "query": {}}'])
def test_other_content_is_refused(path, content):
    path.write_text(content)
    with pytest.raises(DataError, match=r"cameras\.json"):
        read_cameras(path, [])


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.json"):
        read_cameras(tmp_path / "none.json", [])
