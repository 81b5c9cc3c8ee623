import math
from typing import TypedDict

import pytest
import torch

from tests.data.toy_dataset import Numbers, ToySample
from transframer.data.augmentation import Augmentation, cropped, mirrored, recolored
from transframer.data.source import DatasetSource, resized
from transframer.data.world import World
from transframer.errors import ConfigError, DataError
from transframer.frames import Camera
from transframer.registry import get_task, task_names
from transframer.task import Clip

CLASSES = torch.tensor([7, 3, 5])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def extents(instances):
    """The box around each number above 0 of a map, by its least and greatest pixel."""
    boxes = []
    for number in instances.unique():
        if number > 0:
            rows, columns = (instances == number).nonzero().unbind(1)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return torch.tensor(boxes, dtype=torch.float32)


def scene():
    """24 x 32 pixels with three rectangles, their boxes, numbers, classes and pixels' classes."""
    instances = torch.zeros(24, 32, dtype=torch.int64)
    instances[2:8, 1:5], instances[10:20, 8:16], instances[3:9, 26:31] = 1, 2, 3
    mask = torch.zeros_like(instances)
    for number, label in enumerate(CLASSES.tolist(), start=1):
        mask[instances == number] = label
    return {
        "images": mask.mul(20).to(torch.uint8).expand(1, 3, -1, -1),
        "mask": mask,
        "instances": instances,
        "instance_labels": CLASSES,
        "boxes": extents(instances),
        "box_labels": CLASSES,
    }


@pytest.mark.parametrize("seed", range(30))
def test_labels_stay_with_what_they_label(seed):
    sample = Augmentation(crop=0.4, flip=True)(scene(), seed)
    assert torch.equal(sample["images"][0, 0].long(), sample["mask"] * 20)
    # Each number has one class, that of the pixels under it, and no number is without pixels.
    numbers = sample["instances"].unique()
    assert numbers[numbers > 0].tolist() == list(range(1, len(sample["instance_labels"]) + 1))
    for number, label in enumerate(sample["instance_labels"], start=1):
        assert (sample["mask"][sample["instances"] == number] == label).all()
    # A box is the extent of what is seen of its object; where little is, it is left out.
    seen = dict(zip(sample["instance_labels"].tolist(), extents(sample["instances"]).tolist(), strict=True))
    boxes = dict(zip(sample["box_labels"].tolist(), sample["boxes"].tolist(), strict=True))
    assert boxes.items() <= seen.items()
    areas = dict(zip(CLASSES.tolist(), (scene()["instances"].flatten().bincount()[1:]).tolist(), strict=True))
    left = {label: (sample["mask"] == label).sum().item() / area for label, area in areas.items()}
    assert set(boxes) == {label for label, share in left.items() if share >= 0.25}


def test_no_box_is_left_of_a_window_beside_all():
    sample = cropped(scene(), (20, 16), (4, 8))
    assert sample["boxes"].shape == (0, 4)
    assert sample["box_labels"].shape == sample["instance_labels"].shape == (0,)


def test_a_window_without_background_numbers_from_one():
    sample = cropped(scene(), (11, 9), (4, 4))
    assert (sample["instances"] == 1).all()
    assert sample["instance_labels"].tolist() == [3]


@pytest.mark.parametrize("seed", range(10))
def test_flow_leads_to_the_same_thing_in_the_second_image(seed):
    world = torch.randint(0, 256, (3, 40, 60), generator=generator(), dtype=torch.uint8)
    dx, dy = 4, -3
    images = torch.stack([world[:, 8:32, 12:44], world[:, 8 - dy : 32 - dy, 12 - dx : 44 - dx]])
    flow = torch.tensor([dx, dy], dtype=torch.float32)[:, None, None].expand(2, 24, 32)
    valid = torch.rand(24, 32, generator=generator()) < 0.9
    plain = {"images": images, "flow": flow, "flow_valid": valid}
    sample = Augmentation(crop=0.6, flip=True)(plain, seed)
    height, width = sample["images"].shape[-2:]
    for y, x in ((5, 6), (9, 12), (height // 2, width // 2)):
        vx, vy = (round(v) for v in sample["flow"][:, y, x].tolist())
        assert torch.equal(sample["images"][1, :, y + vy, x + vx], sample["images"][0, :, y, x])
    assert abs(sample["flow_valid"].float().mean() - 0.9) < 0.06


def rotation(x, y):
    about_x = torch.tensor([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]])
    about_y = torch.tensor([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    return about_x @ about_y


def pixel(camera, point):
    """Where a camera sees a point of the world."""
    seen = torch.linalg.inv(camera.world_from_camera) @ torch.tensor([*point, 1.0])
    x, y, z = (camera.intrinsics @ seen[:3]).tolist()
    return x / z, y / z


class TestCameras:
    def camera(self):
        pose = torch.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation(0.2, -0.3), torch.tensor([0.5, -0.2, 0.1])
        return Camera(torch.tensor([[30.0, 4, 17], [0, 28.0, 11], [0, 0, 1]]), pose)

    def sample(self):
        camera = self.camera()
        return {
            "images": torch.zeros(1, 3, 24, 32, dtype=torch.uint8),
            "cameras": [camera],
            "query_camera": camera,
        }

    def test_one_of_a_window_sees_a_point_where_the_window_has_it(self):
        sample = cropped(self.sample(), (3, 5), (12, 16))
        x, y = pixel(self.camera(), (0.3, 0.4, 5.0))
        for camera in (*sample["cameras"], sample["query_camera"]):
            assert pixel(camera, (0.3, 0.4, 5.0)) == pytest.approx((x - 5, y - 3), abs=1e-4)

    def test_a_mirrored_one_sees_the_mirrored_point_at_the_mirrored_pixel(self):
        sample = mirrored(self.sample())
        x, y = pixel(self.camera(), (0.3, 0.4, 5.0))
        for camera in (*sample["cameras"], sample["query_camera"]):
            assert pixel(camera, (-0.3, 0.4, 5.0)) == pytest.approx((32 - x, y), abs=1e-4)
            assert torch.det(camera.world_from_camera[:3, :3]) == pytest.approx(1, abs=1e-5)

    def test_those_given_stay(self):
        sample = self.sample()
        mirrored(sample), cropped(sample, (3, 5), (12, 16))
        assert torch.equal(sample["query_camera"].intrinsics, self.camera().intrinsics)
        assert torch.equal(sample["query_camera"].world_from_camera, self.camera().world_from_camera)


def test_a_nearer_look_halves_the_depth():
    """A wall 6 m away in the middle half of the picture, enlarged to the whole, looks as one at 3 m."""
    sample = {"images": torch.zeros(1, 3, 24, 32, dtype=torch.uint8), "depth_m": torch.full((24, 32), 6.0)}
    sample["depth_m"][0, 0] = 0  # unknown
    assert (cropped(sample, (6, 8), (12, 16))["depth_m"] == 3).all()
    assert cropped(sample, (0, 0), (12, 16))["depth_m"][0, 0] == 0


def test_the_mirror_turns_normals():
    normals = torch.zeros(3, 2, 2)
    normals[:, :, 0], normals[:, :, 1] = torch.tensor([[0.6], [0.0], [-0.8]]), torch.tensor([[0], [1.0], [0]])
    sample = mirrored({"images": torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "normals": normals})
    assert sample["normals"][:, 0].tolist() == [[0, pytest.approx(-0.6)], [1, 0], [0, pytest.approx(-0.8)]]


@pytest.mark.parametrize("seed", range(10))
def test_every_map_shows_what_the_image_shows(seed):
    places = torch.arange(24 * 32).reshape(24, 32)
    image = torch.stack([places // 256, places % 256, places * 0]).to(torch.uint8)
    sample = {
        "images": torch.stack([image, image]),
        "target": image,
        "mask": places,
        "depth_m": places.float(),
        "instances": places.clamp(max=1),
        "normals": places.float().expand(3, -1, -1),
        "flow": places.float().expand(2, -1, -1),
        "flow_valid": places % 3 == 0,
    }
    changed = Augmentation(crop=0.5, flip=True)(sample, seed)
    there = changed["images"][0, 0].long() * 256 + changed["images"][0, 1].long()
    height, width = there.shape
    assert height < 24
    assert torch.equal(changed["images"][1], changed["images"][0])
    assert torch.equal(changed["target"], changed["images"][0])
    assert torch.equal(changed["mask"], there)
    assert torch.equal(changed["flow_valid"], there % 3 == 0)
    torch.testing.assert_close(changed["depth_m"], there * (height * width / (24 * 32)) ** 0.5)
    sign = -1.0 if there[0, 1] < there[0, 0] else 1.0  # mirrored or not
    for key in ("normals", "flow"):
        assert torch.equal(changed[key][0], sign * there)
        assert torch.equal(changed[key][1], there.float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_instances_of_any_integers(dtype):
    sample = scene()
    sample["instances"] = sample["instances"].to(dtype)
    assert cropped(sample, (0, 0), (10, 32))["instance_labels"].tolist() == [7, 5]


def test_an_instance_without_a_label_is_an_error_of_the_data():
    with pytest.raises(DataError, match="no label of instance 3"):
        cropped({**scene(), "instance_labels": CLASSES[:2]}, (0, 0), (24, 32))


class TestColor:
    def test_by_hand(self):
        grey = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
        assert (recolored({"images": grey}, 1.2, 0.5, 0.3)["images"] == 120).all()  # nothing to contrast with
        two = torch.cat([grey[..., :2], torch.full((1, 3, 4, 2), 200, dtype=torch.uint8)], dim=-1)
        contrasted = recolored({"images": two}, 1.0, 0.5, 1.0)["images"]
        assert contrasted[0, 0, 0].tolist() == [125, 125, 175, 175]

    def test_what_two_frames_share_stays_alike(self):
        dark, light = (
            torch.full((3, 4, 4), 60, dtype=torch.uint8),
            torch.full((3, 4, 4), 200, dtype=torch.uint8),
        )
        light[:, :2, :2] = 60
        images = recolored({"images": torch.stack([dark, light])}, 1.0, 0.5, 1.0)["images"]
        assert torch.equal(images[0, :, 0, 0], images[1, :, 0, 0])
        assert images[0, 0, 0, 0] > 60

    def test_all_frames_change_alike(self):
        images = torch.randint(0, 256, (2, 3, 8, 8), generator=generator(), dtype=torch.uint8)
        images[1] = images[0]
        sample = Augmentation(color=0.4)({"images": images, "target": images[0]}, 0)
        assert torch.equal(sample["images"][0], sample["images"][1])
        assert torch.equal(sample["images"][0], sample["target"])
        assert not torch.equal(sample["images"], images)


@pytest.mark.parametrize("name", task_names())
def test_a_task_formats_what_it_gives(name):
    task = get_task(name)
    sample = World("train", 0, 64).samples([0], task.sample_type, task.clip)[0]
    changed = Augmentation(crop=0.5, flip=True, color=0.3)(sample, 1)
    assert changed["images"].shape[-1] < 64
    episode = task.format(resized(changed, 64))
    assert episode.size == (64, 64)
    assert episode.target is not None


class TestSource:
    def images(self, indices, **settings):
        dataset = Ramps(n=5)
        source = DatasetSource(dataset, 16, shuffled=False, **settings)
        return [sample["images"] for sample in source.samples(indices, ToySample, Clip())]

    def test_each_epoch_has_another_window_and_the_same_index_the_same(self):
        settings = {"augmentation": Augmentation(crop=0.5)}
        first, again = self.images([8, 13, 18], **settings), self.images([18, 13, 8], **settings)[::-1]
        for a, b in zip(first, again, strict=True):
            assert a.shape == (1, 3, 16, 16)
            assert torch.equal(a, b)
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first[1], first[2])
        assert not torch.equal(self.images([8], seed=1, **settings)[0], first[0])
        assert torch.equal(self.images([3], **settings)[0], self.images([3])[0]), "new as it is"

    def test_among_other_tasks_a_record_is_new_for_longer(self):
        settings = {"augmentation": Augmentation(crop=0.5), "share": 0.5}
        new, other, again = self.images([3, 8, 13], **settings)
        assert torch.equal(new, other), "ten indices, of which half are asked for, are five records"
        assert not torch.equal(other, again)

    def test_without_it_a_record_stays(self):
        assert torch.equal(self.images([3])[0], self.images([8])[0])


class Ramps(Numbers):
    """Records that are not alike at two places."""

    def record(self, index, keys):
        ramp = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
        return super().record(index, keys) | {"images": ramp.expand(1, 3, 16, 16)}


@pytest.mark.parametrize("settings", [{"crop": 0.0}, {"crop": 1.1}, {"color": -0.1}, {"color": 2.0}])
def test_out_of_range(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Augmentation(**settings)


class Keypoints(TypedDict):
    images: torch.Tensor
    keypoints: torch.Tensor


def test_a_field_that_it_does_not_know_is_refused_unless_nothing_changes():
    with pytest.raises(ConfigError, match="samples with keypoints"):
        Augmentation(flip=True).check(Keypoints)
    Augmentation().check(Keypoints)
