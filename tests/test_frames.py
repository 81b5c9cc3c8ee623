"""Frames and episodes refuse what would fail later; errors say where and what to do."""

import pickle

import pytest
import torch
from jaxtyping import TypeCheckError

from transframer.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    PluginError,
    TransframerError,
    UnknownNameError,
    unknown_name,
)
from transframer.frames import Annotation, Camera, CodecSettings, Episode, Frame


def frame(value=0, height=16, width=32, **annotation):
    image = torch.full((3, height, width), value, dtype=torch.uint8)
    return Frame(image, Annotation(**annotation))


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(3, 16, 16),
        torch.zeros(1, 16, 16, dtype=torch.uint8),
        torch.zeros(16, 16, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
    ],
)
def test_a_frame_is_an_rgb_image(image):
    with pytest.raises((DataError, TypeCheckError)):
        Frame(image)


def test_a_wrong_shape_at_a_public_boundary_raises():
    with pytest.raises(TypeCheckError):
        Camera(torch.eye(4), torch.eye(4))


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"quality": 0}, "quality"), ({"quality": 101}, "quality"), ({"subsampling": "4:1:1"}, "subsampling")],
)
def test_codec_settings_out_of_range(settings, field):
    with pytest.raises((ConfigError, TypeCheckError)) as caught:
        CodecSettings(**settings)
    assert field in str(caught.value)


def test_an_episode_needs_context_of_one_size():
    with pytest.raises(DataError, match="without context"):
        Episode("t", (), Annotation())
    with pytest.raises(DataError, match="different sizes"):
        Episode("t", (frame(), frame(width=16)), Annotation())
    with pytest.raises(DataError, match="different sizes"):
        Episode("t", (frame(),), Annotation(), frame(height=32))
    assert Episode("t", (frame(),), Annotation()).size == (16, 32)


def test_reference_weights_are_one_per_context_frame():
    with pytest.raises(ConfigError, match="1 reference weights for 2 context frames"):
        Episode("t", (frame(), frame()), Annotation(codec=CodecSettings(reference=(1.0,))))


@pytest.mark.parametrize(
    ("weights", "expected"), [((0.0, 1.0), 200), ((0.5, 0.5), 150), ((-1.0, 2.0), 300), ((1.0, 0.0), 100)]
)
def test_the_reference_is_the_weighted_sum_of_the_context(weights, expected):
    episode = Episode("t", (frame(100), frame(200)), Annotation(codec=CodecSettings(reference=weights)))
    assert (episode.reference_image() == expected).all()


def test_a_reference_of_no_frame_is_black():
    codec = CodecSettings(reference=(0.0, 0.0))
    reference = Episode("t", (frame(100), frame(200)), Annotation(codec=codec)).reference_image()
    assert torch.equal(reference, torch.zeros_like(frame().image, dtype=torch.float32))


def test_without_reference_there_is_none():
    assert Episode("t", (frame(),), Annotation()).reference_image() is None


def test_an_episode_without_its_target_is_the_same_problem():
    episode = Episode("t", (frame(1),), Annotation("depth"), frame(2))
    asked = episode.without_target()
    assert asked.target is None
    assert (asked.task, asked.context, asked.query) == (episode.task, episode.context, episode.query)


def test_a_resized_camera_sees_the_same_points_at_scaled_pixels():
    camera = Camera(torch.tensor([[50.0, 0, 32], [0, 60, 24], [0, 0, 1]]), torch.eye(4))
    point = torch.tensor([0.3, -0.2, 2.0])
    before, after = (c.intrinsics @ point for c in (camera, camera.resized(0.5, 0.25)))
    assert torch.allclose(before * torch.tensor([0.5, 0.25, 1]), after)


def test_an_error_says_where_what_and_what_now():
    error = DataError(
        "too short", file="a.flo", field="width", expected="8 bytes", next_step="write it again"
    )
    assert str(error) == "a.flo: width: too short\nexpected 8 bytes\nwrite it again"
    assert str(ConfigError("odd")) == "odd"


@pytest.mark.parametrize("kind", [UnknownNameError, PluginError, DataError, CheckpointError, ConfigError])
def test_errors_survive_a_process_boundary(kind):
    error = kind("found", file="f", field="g", expected="e", next_step="n")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert isinstance(copy, TransframerError)
    assert (str(copy), copy.file, copy.expected) == (str(error), "f", "e")


def test_an_unknown_name_without_neighbours_guesses_nothing():
    assert str(unknown_name("task", "zzz", ["depth"])) == "unknown task 'zzz'\nexpected one of depth"
    assert str(unknown_name("task", "zzz", [])) == "unknown task 'zzz'"
