"""Feature networks of videos that a user names: how they are found, what they are given, what goes wrong."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from tests.benchmarks.toy_videos import FEATURES, random_videos
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.video_distance import VideoFeatures
from transframer.errors import ConfigError

CPU = torch.device("cpu")


class Colours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, videos):
        return self.dropout(videos.mean(dim=[2, 3, 4]))


class TestNetwork:
    def test_of_a_torchscript_file_is_in_evaluation_mode(self, tmp_path):
        path = tmp_path / "colours.pt"
        torch.jit.script(Colours()).save(str(path))
        features = VideoFeatures(str(path), CPU)
        videos = random_videos(3, seed=0)
        expected = videos.double().mean((1, 3, 4)) / 127.5 - 1
        assert torch.allclose(features.of(videos, batch_size=2), expected, atol=1e-6)
        assert features.name == "colours.pt"
        assert features.facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_is_given_channels_before_time_in_minus_one_to_one(self, feature_file):
        features = VideoFeatures(f"{feature_file}:everything", CPU)
        videos = random_videos(2, seed=1)
        videos[0, 0, 0, 0, 0], videos[1, 0, 0, 0, 0] = 0, 255
        found = features.of(videos, batch_size=2).view(2, 3, 4, 8, 6)
        assert torch.allclose(found, videos.double().movedim(2, 1) / 127.5 - 1, atol=1e-6)
        assert (found[0, 0, 0, 0, 0], found[1, 0, 0, 0, 0]) == (-1, 1)
        assert features.name == "features.py:everything"

    def test_of_an_installed_module_is_found_by_its_name(self, feature_file, monkeypatch):
        monkeypatch.syspath_prepend(feature_file.parent)
        by_module, by_file = (VideoFeatures(f"{name}:red", CPU) for name in ("features", feature_file))
        videos = random_videos(2, seed=2)
        assert torch.equal(by_module.of(videos, 1), by_file.of(videos, 2))
        assert by_module.sha256 == by_file.sha256 == hashlib.sha256(FEATURES.encode()).hexdigest()

    def test_of_a_file_with_dataclasses(self, tmp_path):
        path = tmp_path / "options.py"
        path.write_text(
            "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass Options:\n    dims: tuple[int, ...] = (2, 3, 4)\n"
            "def colours():\n    return lambda videos: videos.mean(Options().dims)\n"
        )
        assert VideoFeatures(f"{path}:colours", CPU).of(random_videos(2, seed=0), 1).shape == (2, 3)

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            ("missing", "cannot be read: AttributeError"),
            ("number", "returned a int"),
            ("flat", "gives () for 2 x 3 x 4 x 8 x 6"),
            ("infinite", "not finite"),
            ("picky", "fails on 2 x 3 x 4 x 8 x 6: RuntimeError: kernel larger"),
        ],
    )
    def test_that_does_not_fit_is_an_error_of_the_option(self, feature_file, function, message):
        with pytest.raises(ConfigError) as caught:
            VideoFeatures(f"{feature_file}:{function}", CPU).of(random_videos(2, seed=0), 4)
        assert message in caught.value.found
        assert caught.value.field == "video_features"

    @pytest.mark.parametrize(
        "spec", ["missing.pt", "missing.py:function", "no.such.module:function", "__file__"]
    )
    def test_that_is_not_there_is_an_error_of_the_option(self, spec):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            VideoFeatures(spec if spec != "__file__" else __file__, CPU)
        assert "TorchScript" in caught.value.expected


class NamedArguments(torch.nn.Module):
    def forward(
        self, videos: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ):
        if rescale or resize or not return_features or videos.shape[1:] != (3, 12, 224, 224):
            raise ValueError("not what the wrapper should give")
        return videos.mean(dim=[2, 3, 4])


def test_wrapper_in_the_documents_gives_the_network_frames_of_its_size(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs/benchmark.md").read_text()
    (block,) = re.findall(r"^```py\n(.*?)^```", text, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    Path("fvd.py").write_text(block)
    torch.jit.script(NamedArguments()).save("i3d_torchscript.pt")
    flat = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1).expand(2, 12, 3, 16, 16)
    found = VideoFeatures("fvd.py:i3d", CPU).of(flat, batch_size=2)
    assert torch.allclose(found, torch.tensor([[-1.0, -0.6, 1.0]] * 2).double(), atol=1e-5)


class TestSettings:
    def test_features_without_videos_are_refused(self, tmp_path):
        with pytest.raises(ConfigError) as caught:
            BenchmarkConfig(tmp_path, video_features="i3d.pt")
        assert caught.value.field == "video_features"
        with pytest.raises(ConfigError) as caught:
            BenchmarkConfig(tmp_path, video_features="i3d.pt", rollout_frames=4, rollout_videos=1)
        assert caught.value.field == "rollout_videos"
