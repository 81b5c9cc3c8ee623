import json
import math

import pytest

from transframer.benchmarks import codec
from transframer.codec import round_trip, token_count
from transframer.data.world import World
from transframer.registry import get_task


def test_ceiling_of_mixed_sizes_is_that_of_the_parts():
    task = get_task("semantic_segmentation")
    small, large = (
        World("test", 0, size).samples(range(2), task.sample_type, task.clip) for size in (64, 96)
    )
    (_, small_tokens), (_, large_tokens) = (codec.ceiling(task, samples) for samples in (small, large))
    metrics, tokens = codec.ceiling(task, [small[0], large[0], small[1], large[1]])
    assert tokens == (small_tokens + large_tokens) / 2
    assert 0.9 < metrics["miou"] < 1


def test_ceiling_by_another_code_is_scored_on_its_frames():
    task = get_task("frame_interpolation")
    samples = World("test", 0, 32).samples(range(3), task.sample_type, task.clip)
    perfect, tokens = codec.ceiling(task, samples, lambda all_: ([e.target for e in all_], 5 * len(all_)))
    assert (perfect["psnr"], tokens) == (60, 5)
    metrics, tokens = codec.ceiling(task, samples)
    scores = []
    for sample in samples:
        episode = task.format(sample)
        scores.append(task.score(round_trip(episode).image, sample))
    assert metrics == task.summarise(scores)
    assert tokens == sum(int(token_count([task.format(sample)])) for sample in samples) / 3


def test_frontier_rises_with_quality_and_marks_the_default():
    task = get_task("semantic_segmentation")
    samples = World("test", 0).samples(range(16), task.sample_type, task.clip)
    found = codec.frontier(task, samples, (5, 60))
    assert [result.quality for result in found] == [5, 17, 60]
    assert [result.default for result in found] == [False, True, False]
    assert found[0].metrics["miou"] < found[1].metrics["miou"] < found[2].metrics["miou"]
    assert found[0].tokens < found[1].tokens < found[2].tokens


def test_a_quality_without_room_is_shown_as_nan():
    task = get_task("object_detection")
    samples = World("test", 0).samples(range(2), task.sample_type, task.clip)
    low, own = codec.frontier(task, samples, (10,))
    assert math.isnan(low.tokens)
    assert math.isnan(low.metrics["ap"])
    assert own.metrics["ap"] > 0.9


def test_table_and_json(tmp_path, capsys):
    path = tmp_path / "ceilings.json"
    tasks = ["--tasks", "image_classification", "object_detection"]
    codec.main([*tasks, "--samples", "4", "--qualities", "10", "--json", str(path)])
    printed = capsys.readouterr().out
    assert "image_classification" in printed
    assert "* 10" in printed
    record = json.loads(path.read_text())
    ceilings = {(entry["task"], entry["quality"]): entry for entry in record["ceilings"]}
    assert ceilings["image_classification", 10]["metrics"]["top1"] == 1.0
    assert ceilings["image_classification", 10]["tokens"] == 1.0
    assert ceilings["object_detection", 10]["tokens"] is None
    assert record["protocol"]["samples"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "image_clasification"], "did you mean 'image_classification'"),
        (["--samples", "0"], "samples: 0 samples"),
        (["--tasks", "image_classification", "--qualities", "0"], "quality: JPEG quality 0"),
        (["--tasks", "image_classification", "--size-px", "65"], "size_px"),
    ],
)
def test_bad_options_exit_with_a_message(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        codec.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
