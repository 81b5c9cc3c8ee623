"""Windows of sequences, on sequences whose frames say their numbers."""

import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch

from transframer.data.datasets.sequences import FrameSequence, SequenceDataset
from transframer.errors import ConfigError, DataError
from transframer.frames import Camera
from transframer.task import Clip


class Counted(FrameSequence):
    """Frame i of sequence s has red s and green i; label too."""

    def __init__(self, number, length, frames_per_s=None):
        self.number, self.length, self.frames_per_s = number, length, frames_per_s
        self.name = f"sequence {number}"

    def __len__(self):
        return self.length

    def images(self, frames):
        images = torch.zeros(len(frames), 3, 4, 6, dtype=torch.uint8)
        for image, frame in zip(images, frames, strict=True):
            assert 0 <= frame < self.length, "a frame outside the sequence"
            image[0], image[1] = self.number, frame
        return images

    def files(self, frames):
        return [Path(f"{self.number}/{frame}.png") for frame in frames]

    def camera(self, frame):
        pose = torch.eye(4)
        pose[0, 3] = frame
        return Camera(torch.eye(3), pose)

    def label_fields(self, frame, keys):
        return {key: (self.number, frame, key) for key in keys}


class Videos(SequenceDataset):
    name, summary = "counted", "counted"

    def __init__(self, lengths, clip, rate=None, labels=(), split="train", **strides):
        super().__init__("root", split, clip, **strides)
        self.sequences_of = [Counted(s, length, rate) for s, length in enumerate(lengths)]
        self.given = frozenset(labels)

    @property
    def sequences(self):
        return self.sequences_of

    @property
    def labels(self):
        return self.given


def numbers(dataset):
    """Of each record: the sequence, the context frames, the target frame."""
    out = []
    for index in range(len(dataset)):
        record = dataset.record(index, dataset.fields)
        (sequence,) = {int(image[0, 0, 0]) for image in record["images"]}
        context = [int(image[1, 0, 0]) for image in record["images"]]
        target = int(record["target"][1, 0, 0]) if "target" in record else None
        out.append((sequence, context, target))
    return out


PAIR = Clip(frames=3, context=((0, 1),), target=(2,))


def test_windows_follow_one_another_and_stay_in_their_sequence():
    assert numbers(Videos([7, 2, 3], PAIR)) == [(0, [0, 1], 2), (0, [3, 4], 5), (2, [0, 1], 2)]


@pytest.mark.parametrize(("length", "windows"), [(2, 0), (3, 1), (5, 1), (6, 2), (8, 2), (9, 3)])
def test_a_window_begins_where_a_whole_one_fits(length, windows):
    dataset = Videos([3, length], PAIR)
    assert len(dataset) == 1 + windows
    assert len(numbers(dataset)) == 1 + windows


def test_a_window_stride_lets_them_overlap_or_leaves_frames_out():
    assert [c for _, c, _ in numbers(Videos([6], PAIR, window_stride=1))] == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert [c for _, c, _ in numbers(Videos([10], PAIR, window_stride=5))] == [[0, 1], [5, 6]]


def test_a_frame_stride_spreads_a_window():
    assert numbers(Videos([11], PAIR, frame_stride=2)) == [(0, [0, 2], 4), (0, [5, 7], 9)]
    assert len(Videos([4, 5], PAIR, frame_stride=2)) == 1


def test_the_frame_stride_comes_from_the_clips_step_and_the_rate():
    clip = Clip(frames=3, context=((0, 1),), target=(2,), step_s=0.1)
    assert numbers(Videos([20], clip, rate=30.0))[0] == (0, [0, 3], 6)
    assert numbers(Videos([20], clip, rate=4.0))[0] == (0, [0, 1], 2), "at least 1"
    assert numbers(Videos([20], clip))[0] == (0, [0, 1], 2)
    assert numbers(Videos([20], clip, rate=30.0, frame_stride=1))[0] == (0, [0, 1], 2)


def test_every_choice_of_context_and_target_once_for_each_window():
    clip = Clip(frames=4, context=((0,), (1, 3), (3, 0)), target=(1, 2))
    got = numbers(Videos([8], clip))
    expected = [(0, [start + f for f in context], start + target)
                for start in (0, 4) for context in clip.context for target in clip.target]  # fmt: skip
    assert Counter(map(str, got)) == Counter(map(str, expected))
    assert got == expected


def test_without_a_target_there_is_none():
    dataset = Videos([4], Clip(frames=2, context=((0,), (1,))))
    assert dataset.fields == {"images", "times"}
    assert numbers(dataset) == [(0, [0], None), (0, [1], None), (0, [2], None), (0, [3], None)]


def test_times_are_seconds_at_the_frame_rate_or_else_at_the_clips_step():
    record = Videos([9], PAIR, rate=4.0, frame_stride=2).record(0, {"times", "query_time"})
    assert record["times"].tolist() == [0.0, 0.5]
    assert record["query_time"] == 1.0
    record = Videos([9], PAIR, frame_stride=2).record(0, {"times", "query_time"})
    assert record["times"].tolist() == pytest.approx([0.0, PAIR.step_s])
    assert record["query_time"] == pytest.approx(2 * PAIR.step_s)


def test_training_alone_has_the_further_contexts():
    clip = Clip(frames=3, context=((0, 1),), target=(2,), training_context=((1,),))
    assert [context for _, context, _ in numbers(Videos([3], clip))] == [[0, 1], [1]]
    assert [context for _, context, _ in numbers(Videos([3], clip, split="test"))] == [[0, 1]]


def test_cameras_are_those_of_the_frames_and_labels_those_of_the_first():
    dataset = Videos([6], PAIR, labels=("cameras", "mask"))
    assert dataset.fields == {"images", "times", "cameras", "mask", "target", "query_time", "query_camera"}
    record = dataset.record(1, dataset.fields)
    assert [camera.world_from_camera[0, 3].item() for camera in record["cameras"]] == [3, 4]
    assert record["query_camera"].world_from_camera[0, 3].item() == 5
    assert record["mask"] == (0, 3, "mask")


def test_only_what_is_asked_for_is_read():
    dataset = Videos([6], PAIR, labels=("cameras", "mask"))
    asked = []
    dataset.sequences[0].images = lambda frames: (
        asked.append(frames) or torch.zeros(len(frames), 3, 4, 6).byte()
    )
    assert set(dataset.record(0, {"images"})) == {"images"}
    assert asked == [[0, 1]], "the target was not decoded"
    assert set(dataset.record(0, {"mask"})) == {"images", "mask"}


def test_files_are_those_of_context_and_target():
    assert Videos([6], PAIR).files(1) == [Path(f"0/{i}.png") for i in (3, 4, 5)]


def test_an_index_outside_is_refused():
    dataset = Videos([6], PAIR)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            dataset.record(index, {"images"})


def test_sequences_that_are_all_too_short():
    with pytest.raises(DataError, match="no window of 3 frames; the longest sequence has 2") as caught:
        len(Videos([2, 1], PAIR))
    assert "frame_stride" in str(caught.value)
    with pytest.raises(DataError, match="no sequence in the train split"):
        len(Videos([], PAIR))


@pytest.mark.parametrize("name", ["frame_stride", "window_stride"])
def test_a_stride_is_at_least_one_frame(name):
    with pytest.raises(ConfigError, match=f"^{name}: 0"):
        Videos([6], PAIR, **{name: 0})


def test_it_survives_pickling():
    dataset = Videos([7, 2, 3], PAIR)
    assert numbers(pickle.loads(pickle.dumps(dataset))) == numbers(dataset)
