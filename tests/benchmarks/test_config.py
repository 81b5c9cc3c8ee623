import subprocess
import sys
from pathlib import Path

import pytest

from transframer.benchmarks.config import BenchmarkConfig
from transframer.errors import ConfigError


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"batch_size": 0},
        {"samples_per_query": 0},
        {"floor_samples": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": 0.0, "samples_per_query": 4},
        {"rollout_frames": -1},
        {"rollout_videos": 0},
    ],
)
def test_settings_out_of_range_name_their_field(changes):
    with pytest.raises(ConfigError) as caught:
        BenchmarkConfig(Path("run"), **changes)
    assert caught.value.field in changes


def test_temperature_follows_the_number_of_samples_unless_given():
    assert BenchmarkConfig(Path("run")).sampling() == (1, 0.0)
    assert BenchmarkConfig(Path("run"), samples_per_query=4).sampling(16) == (4, 1.0)
    assert BenchmarkConfig(Path("run"), samples_per_query=4, temperature=0.7).sampling() == (4, 0.7)
    assert BenchmarkConfig(Path("run")).sampling(16) == (16, 1.0), "as many as the task wants"
    assert BenchmarkConfig(Path("run"), temperature=0.0).sampling(16) == (1, 0.0)


def test_rollouts_are_samples_unless_a_temperature_is_given():
    assert BenchmarkConfig(Path("run")).rollout_temperature == 1
    assert BenchmarkConfig(Path("run"), temperature=0.0).rollout_temperature == 0


def test_command_states_what_differs_from_the_defaults():
    config = BenchmarkConfig(Path("my run"), tasks=["a", "b"], samples=8, no_cache=True)
    assert config.command == "transframer benchmark 'my run' --tasks a b --samples 8 --no-cache"
    assert BenchmarkConfig(Path("run")).command == "transframer benchmark run"


@pytest.mark.parametrize(
    "changes", [{"split": "validation"}, {"data_format": "coco"}, {"data_options": {"year": "2014"}}]
)
def test_what_the_world_would_ignore_is_refused(changes):
    with pytest.raises(ConfigError) as caught:
        BenchmarkConfig(Path("run"), **changes)
    assert caught.value.field in changes
    BenchmarkConfig(Path("run"), data="photos", **changes)


def test_importing_the_settings_is_light():
    code = (
        "import sys, transframer.benchmarks.config; "
        "print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_of_other_data_do_not_replace_those_of_the_world():
    run = Path("run")
    assert BenchmarkConfig(run).folder == run / "benchmark"
    assert BenchmarkConfig(run, data="motorcycle").folder == run / "benchmark-motorcycle"
    assert BenchmarkConfig(run, data="motorcycle", out=Path("there")).folder == Path("there")
