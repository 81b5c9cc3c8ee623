import math
from dataclasses import replace

import pytest
import torch

from transframer.errors import DataError
from transframer.frames import Camera
from transframer.tasks.view_synthesis import ViewSynthesis

TASK = ViewSynthesis()
K = torch.tensor([[50.0, 0, 16], [0, 50, 16], [0, 0, 1]])


def camera(yaw=0.0, position=(0.0, 0.0, 0.0)):
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = math.cos(yaw)
    pose[0, 2], pose[2, 0] = math.sin(yaw), -math.sin(yaw)
    pose[:3, 3] = torch.tensor(position)
    return Camera(K, pose)


def sample(*cameras, query):
    images = torch.stack([torch.full((3, 32, 32), 10 * i, dtype=torch.uint8) for i in range(len(cameras))])
    return {"images": images, "cameras": list(cameras), "query_camera": query}


def floor_of(item):
    return int(TASK.floor([])(TASK.format(item))[0, 0, 0]) // 10


def test_floor_is_nearest_by_position_and_direction():
    assert floor_of(sample(camera(position=(3, 0, 0)), camera(position=(0, 1, 0)), query=camera())) == 1
    assert floor_of(sample(camera(0.9), camera(-0.2), camera(0.4), query=camera())) == 1
    # a small move that looks away against a longer one that looks the same way
    assert floor_of(sample(camera(2.0, (0.1, 0, 0)), camera(0.0, (1, 0, 0)), query=camera())) == 1
    assert floor_of(sample(camera(0.1, (0.1, 0, 0)), camera(0.0, (4, 0, 0)), query=camera())) == 0
    assert floor_of(sample(camera(math.pi), camera(3.0), query=camera())) == 1


def test_world_axes_and_order_do_not_matter():
    cameras, query = [camera(0.2, (1.0, 0, 0)), camera(-0.4, (0, 2.0, 0))], camera(0.1, (0, 0, 1.0))
    move = camera(1.3, (7, -3, 2)).world_from_camera
    moved = [replace(c, world_from_camera=move @ c.world_from_camera) for c in (*cameras, query)]
    here = TASK.format(sample(*cameras, query=query))
    there = TASK.format(sample(*moved[:2], query=moved[2]))
    for a, b in zip((*here.context, here), (*there.context, there), strict=True):
        one, two = (x.annotation if hasattr(x, "annotation") else x.query for x in (a, b))
        assert torch.allclose(one.camera.world_from_camera, two.camera.world_from_camera, atol=1e-5)
    assert torch.allclose(here.query.camera.world_from_camera, torch.eye(4), atol=1e-6)


@pytest.mark.parametrize("missing", ["cameras", "query_camera"])
def test_cameras_are_asked_for(missing):
    item = sample(camera(), query=camera())
    del item[missing]
    with pytest.raises(DataError, match="camera file"):
        TASK.format(item)


def test_one_camera_per_image():
    item = sample(camera(), camera(), query=camera())
    item["cameras"].pop()
    with pytest.raises(DataError, match="1 cameras for 2 images"):
        TASK.format(item)
