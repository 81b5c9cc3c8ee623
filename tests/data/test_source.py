import pickle
from typing import NotRequired, TypedDict

import pytest
import torch
from PIL import Image

from tests.data.toy_dataset import Numbers, ToySample
from transframer.data.source import DatasetSource, checked_keys, read_record, resized
from transframer.errors import ConfigError, DataError
from transframer.frames import Camera
from transframer.task import Clip
from transframer.training.mixture import ReplacingSource


def labels(source, indices):
    return [sample["label"] for sample in source.samples(indices, ToySample, Clip())]


class TestOrder:
    def test_each_epoch_has_each_record_once_in_an_order_of_its_own(self):
        source = DatasetSource(Numbers(n=50), 16)
        epochs = [labels(source, range(50 * e, 50 * e + 50)) for e in range(4)]
        for epoch in epochs:
            assert sorted(epoch) == list(range(50))
        assert len({tuple(epoch) for epoch in [*epochs, range(50)]}) == 5

    def test_it_is_decided_by_seed_and_index_alone(self):
        straight = labels(DatasetSource(Numbers(n=20), 16, seed=3), range(60))
        source = DatasetSource(Numbers(n=20), 16, seed=3)
        backwards = labels(source, list(range(60))[::-1])[::-1]
        assert backwards == straight
        # Three processes, each with a copy, and as a worker gets it.
        copies = [pickle.loads(pickle.dumps(source)) for _ in range(3)]
        parts = [labels(copies[rank], range(rank, 60, 3)) for rank in range(3)]
        assert [parts[i % 3][i // 3] for i in range(60)] == straight
        assert labels(DatasetSource(Numbers(n=20), 16, seed=4), range(60)) != straight

    def test_unshuffled_it_is_that_of_the_data(self):
        source = DatasetSource(Numbers(n=7), 16, shuffled=False)
        assert labels(source, range(10)) == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]

    def test_a_stream_is_shuffled_within_its_windows(self):
        dataset = Numbers(n=50)
        dataset.shuffle_window = 20
        source = DatasetSource(dataset, 16)
        for epoch in (0, 1):
            order = labels(source, range(50 * epoch, 50 * epoch + 50))
            for start, end in ((0, 20), (20, 40), (40, 50)):
                assert sorted(order[start:end]) == list(range(start, end))
            assert order != list(range(50))
        assert max(source.subset(10)) >= 20, "a few are of all of it"
        assert source.subset(50) == list(range(50))


class TestBadRecords:
    def source(self, bad, n=10, **options):
        return DatasetSource(Numbers(n=n, bad=bad), 16, replace_bad=True, **options)

    def test_one_is_replaced_by_the_same_other_each_time_and_noted(self):
        source = self.source({4}, shuffled=False)
        got = labels(source, range(10))
        (bad,) = source.bad
        assert got == [*range(4), bad.replaced_by, *range(5, 10)]
        assert bad.replaced_by != 4
        assert (bad.index, bad.files) == (4, ("4.png",))
        assert bad.to_json() == {
            "index": 4, "files": ["4.png"], "reason": "a.png: truncated", "replaced_by": bad.replaced_by,
        }  # fmt: skip
        assert labels(self.source({4}, shuffled=False), [4]) == [bad.replaced_by]

    @pytest.mark.parametrize("n", [2, 3, 5, 8, 16, 7920, 7921])
    def test_one_good_record_is_found_among_few_and_neighbours_are_jumped_over(self, n):
        source = self.source(set(range(min(n - 1, 7))), n=n, shuffled=False)
        (label,) = labels(source, [0])
        assert label not in source.dataset.broken
        asked = source.dataset.asked
        assert len(asked) == len(set(asked)), "none is tried twice"
        if n > 100:
            assert len(asked) == 2, "bad records in a row cost one jump"

    def test_in_a_stream_the_next_one_stands_in(self):
        source = self.source({8, 9}, shuffled=False)
        source.dataset.shuffle_window = 5
        assert labels(source, [8]) == [0]
        assert [bad.index for bad in source.bad] == [8, 9]
        assert {bad.replaced_by for bad in source.bad} == {0}

    def test_too_many_in_a_row_are_an_error(self):
        source = self.source(set(range(100)), n=100)
        with pytest.raises(
            DataError, match=r"8 records in a row cannot be read; the first: a\.png: truncated"
        ):
            labels(source, [0])
        with pytest.raises(DataError, match="1 records in a row"):
            labels(self.source({0}, n=1), [0])

    @pytest.mark.parametrize("error", [OSError("input/output"), ValueError("bad header")])
    def test_other_errors_of_reading_count_too_and_those_of_programs_do_not(self, error):
        source = self.source({0}, shuffled=False)
        source.dataset.error = error
        labels(source, [0])
        assert str(error) in source.bad[0].reason
        assert "0.png" in source.bad[0].reason
        source.dataset.error = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            labels(source, [0])

    def test_a_missing_library_is_no_bad_sample(self):
        dataset = Numbers(bad=range(10))
        dataset.error = ConfigError("PyAV is not installed")
        source = DatasetSource(dataset, 16, replace_bad=True)
        with pytest.raises(ConfigError, match="PyAV"):
            source.samples([0], ToySample, Clip())
        assert len(dataset.asked) == 1

    def test_a_sample_that_is_of_no_use_counts_as_bad(self):
        def check(sample):
            if sample["label"] == 3:
                raise DataError("class 3")

        source = self.source((), shuffled=False, check=check)
        assert 3 not in labels(source, range(10))
        assert [(bad.index, bad.reason) for bad in source.bad] == [(3, "class 3")]

    def test_where_none_is_replaced_it_is_an_error_that_names_the_file(self):
        source = DatasetSource(Numbers(bad={4}), 16, shuffled=False)
        with pytest.raises(DataError, match=r"a\.png: truncated"):
            labels(source, [4])
        source.dataset.error = ValueError("bad header")
        with pytest.raises(DataError, match=r"4\.png: record 4 cannot be read: bad header"):
            read_record(source.dataset, 4, {"images"})
        assert source.bad == []

    def test_a_run_can_count_them(self):
        assert isinstance(self.source(()), ReplacingSource)


class TestKeys:
    def test_what_the_task_wants_and_the_data_have(self):
        assert checked_keys(Numbers(), ToySample) == {"images", "label"}

    def test_a_required_key_or_all_labels_missing(self):
        class Posed(ToySample):
            query_time: float

        class Masks(TypedDict):
            images: torch.Tensor
            times: NotRequired[torch.Tensor]
            mask: NotRequired[torch.Tensor]

        with pytest.raises(DataError, match="has no query_time") as caught:
            checked_keys(Numbers(), Posed)
        assert "this one has images, label" in str(caught.value)
        with pytest.raises(DataError, match="has no mask"):
            checked_keys(Numbers(), Masks)


class TestResized:
    """A record of 8 rows and 4 columns, to 2 x 2: rows by 1/4, columns by 1/2."""

    def record(self, **labels):
        image = torch.arange(8 * 4 * 3, dtype=torch.uint8).view(1, 3, 8, 4)
        return {"images": image, **labels}

    def test_images_as_pillow_does(self):
        noise = torch.randint(
            0, 256, (3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        record = {"images": noise[None], "target": noise.flip(0)}
        sample = resized(record, 16)
        pillow = Image.fromarray(noise.permute(1, 2, 0).numpy()).resize((16, 16), Image.Resampling.BICUBIC)
        ours = Image.fromarray(sample["images"][0].permute(1, 2, 0).numpy())
        worst = max(abs(a - b) for a, b in zip(pillow.tobytes(), ours.tobytes(), strict=True))
        assert worst <= 1
        assert torch.equal(sample["target"], sample["images"][0].flip(0))

    def test_a_record_of_the_right_size_stays(self):
        record = {
            "images": torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
            "boxes": torch.tensor([[0.0, 1, 2, 3]]),
        }
        sample = resized(record, 16)
        assert sample == record
        assert sample is not record

    def test_maps_take_the_nearest_pixel(self):
        # The middles of the new pixels: rows 2 and 6, columns 1 and 3.
        plane = torch.arange(32).view(8, 4)
        expected = [[2 * 4 + 1, 2 * 4 + 3], [6 * 4 + 1, 6 * 4 + 3]]
        depth = plane.float()
        normals = torch.stack([depth, -depth, depth / 32])
        labels = {"mask": plane, "instances": plane, "depth_m": depth, "flow_valid": plane % 2 == 1}
        sample = resized(self.record(**labels, normals=normals), 2)
        assert sample["mask"].tolist() == sample["instances"].tolist() == expected
        assert sample["depth_m"].tolist() == expected
        assert sample["flow_valid"].tolist() == [[True, True], [True, True]]
        assert torch.equal(sample["normals"], torch.stack([sample["depth_m"] * k for k in (1, -1, 1 / 32)]))
        for key, value in labels.items():
            assert sample[key].dtype == value.dtype

    def test_flow_is_counted_in_the_new_pixels(self):
        flow = torch.stack([torch.full((8, 4), 6.0), torch.full((8, 4), -8.0)])
        assert resized(self.record(flow=flow), 2)["flow"].tolist() == [[[3.0] * 2] * 2, [[-2.0] * 2] * 2]

    def test_boxes_too_and_none_is_dropped(self):
        boxes = torch.tensor([[0.0, 0, 4, 8], [1.0, 2, 2, 6], [3.0, 4, 3.5, 4.5]])
        expected = [[0, 0, 2, 2], [0.5, 0.5, 1, 1.5], [1.5, 1, 1.75, 1.125]]
        assert resized(self.record(boxes=boxes), 2)["boxes"].tolist() == expected
        assert resized(self.record(boxes=torch.zeros(0, 4)), 2)["boxes"].shape == (0, 4)

    def test_a_camera_sees_the_same_point_at_the_same_place(self):
        intrinsics = torch.tensor([[10.0, 0, 2], [0, 20, 4], [0, 0, 1]])
        pose = torch.eye(4)
        sample = resized(
            self.record(cameras=[Camera(intrinsics, pose)], query_camera=Camera(intrinsics, pose)), 2
        )
        point = torch.tensor([0.1, 0.05, 1.0])
        x, y, _ = (intrinsics @ point).tolist()
        for camera in (sample["cameras"][0], sample["query_camera"]):
            u, v, w = (camera.intrinsics @ point).tolist()
            assert (u, v, w) == pytest.approx((x / 2, y / 4, 1))
            assert torch.equal(camera.world_from_camera, pose)

    def test_what_is_no_picture_stays(self):
        record = self.record(label=3, times=torch.tensor([0.5]), query_time=1.0)
        sample = resized(record, 2)
        assert (sample["label"], sample["times"].tolist(), sample["query_time"]) == (3, [0.5], 1.0)
        assert record["images"].shape == (1, 3, 8, 4), "the record itself is not changed"
