"""The networks made for one task: their size, what they start from, what they see, and that they learn."""

import os
import signal

import pytest
import torch
import torch.nn.functional as F

from transframer.benchmarks.baselines import training
from transframer.benchmarks.baselines.catalog import has_specialist, make_specialist
from transframer.benchmarks.baselines.dense_specialists import cost_volume
from transframer.benchmarks.baselines.recognition_specialists import ClassificationSpecialist
from transframer.benchmarks.baselines.training import trained_specialist
from transframer.data.world import World
from transframer.errors import ConfigError
from transframer.registry import get_task
from transframer.training.checkpoint import stored_config
from transframer.weights import located

EIGHT = sorted(stored_config("generalist").tasks)
IMAGES = ("frame_interpolation", "video_prediction", "view_synthesis")


@pytest.fixture
def specialist():
    def make(name, seed=0):
        torch.manual_seed(seed)
        return make_specialist(get_task(name))

    return make


def scenes(network, count, split="test", size_px=32):
    return World(split, 0, size_px).samples(range(count), network.task.sample_type, network.training_clip)


@pytest.mark.parametrize("name", EIGHT)
def test_has_about_as_many_parameters_as_the_generalist(specialist, name):
    from transframer.models.transframer import Transframer

    generalist = sum(w.numel() for w in Transframer.from_pretrained(located("generalist")).parameters())
    assert sum(w.numel() for w in specialist(name).parameters()) == pytest.approx(generalist, rel=0.2)


@pytest.mark.parametrize("name", EIGHT)
def test_learns_its_training_scenes(specialist, name):
    network = specialist(name).train()
    samples = scenes(network, 8, "train")
    optimizer = torch.optim.AdamW(network.parameters(), lr=network.learning_rate)
    losses = []
    for _ in range(30):
        loss = network.loss(samples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.7 * losses[0], losses


@pytest.mark.parametrize("name", EIGHT)
@torch.no_grad()
def test_predicts_in_the_tasks_form_without_labels(specialist, name):
    network = specialist(name).eval()
    task, samples = network.task, scenes(network, 3)
    needed = task.sample_type.__required_keys__ | {"times", "query_time"}
    bare = [{key: value for key, value in sample.items() if key in needed} for sample in samples]
    for prediction, other, sample in zip(
        network.predict(samples), network.predict(bare), samples, strict=True
    ):
        ours, theirs = (task.summarise([task.score(p, sample)]) for p in (prediction, other))
        assert ours == pytest.approx(theirs, nan_ok=True)
        assert task.draw(sample, prediction).dtype == torch.uint8


@pytest.mark.parametrize("name", IMAGES)
@torch.no_grad()
def test_starts_at_the_trivial_answer(specialist, name):
    network = specialist(name).eval()
    samples = scenes(network, 4)
    trivial = network.task.floor(())
    for prediction, sample in zip(network.predict(samples), samples, strict=True):
        episode = network.task.format(sample).without_target()
        torch.testing.assert_close(prediction, trivial(episode), rtol=0, atol=1)


@torch.no_grad()
def test_depth_starts_in_the_middle_of_its_range(specialist):
    network = specialist("depth_estimation").eval()
    depth = network.predict(scenes(network, 1))[0]
    torch.testing.assert_close(depth, torch.full((32, 32), (1.0 * 80.0) ** 0.5))


@torch.no_grad()
def test_views_come_in_any_order(specialist):
    network = specialist("view_synthesis").eval()
    torch.nn.init.normal_(network.network.out.weight, std=0.05)
    sample = next(s for s in scenes(network, 16) if len(s["images"]) == 3)
    turned = {**sample, "images": sample["images"].flip(0), "cameras": sample["cameras"][::-1]}
    one, other = network.predict([sample]) + network.predict([turned])
    assert (one.int() - other.int()).abs().max() <= 1
    moved = {**sample, "query_camera": sample["cameras"][0]}
    assert not torch.equal(network.predict([moved])[0], one)


@torch.no_grad()
def test_the_time_asked_for_counts(specialist):
    network = specialist("frame_interpolation").eval()
    torch.nn.init.normal_(network.network.out.weight, std=0.05)
    sample = scenes(network, 1)[0]
    still = {**sample, "images": sample["images"][:1].expand(2, -1, -1, -1)}  # whose blend is always the same
    start, end = (float(time) for time in sample["times"])
    early, late = (
        network.predict([{**still, "query_time": start + part * (end - start)}])[0] for part in (0.25, 0.75)
    )
    assert not torch.equal(early, late)


def test_cost_volume_is_the_cosine_of_cells_apart():
    torch.manual_seed(0)
    first, second = torch.randn(2, 1, 5, 6, 7).unbind(0)
    volume = cost_volume(first, second, 2)
    assert volume.shape == (1, 25, 6, 7)
    for y, x, dy, dx in ((3, 3, 0, 0), (2, 4, 1, -2), (3, 2, -2, 2)):
        expected = F.cosine_similarity(first[0, :, y, x], second[0, :, y + dy, x + dx], dim=0)
        torch.testing.assert_close(volume[0, (dy + 2) * 5 + dx + 2, y, x], expected)
    assert volume[0, 0, 0, 0] == 0  # up and left of the corner there is nothing


def test_a_task_without_a_specialist_is_an_error():
    task = get_task("colorization")
    assert not has_specialist(task)
    with pytest.raises(ConfigError, match="colorization"):
        make_specialist(task)


@pytest.fixture
def train(tmp_path):
    def run(seconds=2.0):
        return trained_specialist(
            get_task("image_classification"),
            seconds=seconds,
            seed=0,
            size_px=32,
            folder=tmp_path,
            device=torch.device("cpu"),
        )

    return run


def test_a_finished_training_is_read_back(train, tmp_path, monkeypatch):
    first = train()
    assert first.facts["device_seconds"] >= 2.0
    assert first.facts["samples_seen"] == 32 * first.facts["steps"] > 0
    assert [file.name for file in sorted(next(tmp_path.iterdir()).iterdir())] == [
        "facts.json",
        "model.safetensors",
    ]
    monkeypatch.setattr(training, "_train", None)  # would fail
    again = train()
    assert again.facts == first.facts
    for name, weight in first.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], weight, rtol=0, atol=0)


def test_damaged_weights_are_trained_again(train, tmp_path):
    first = train(0.5)
    file = next(tmp_path.glob("*/model.safetensors"))
    written = bytearray(file.read_bytes())
    written[-5] ^= 1
    file.write_bytes(written)
    assert train(0.5).facts["steps"] > 0
    assert file.read_bytes() != bytes(written)
    assert first.network.training is False


def test_a_stopped_training_goes_on(train, tmp_path, monkeypatch, capsys):
    steps, loss = [], ClassificationSpecialist.loss

    def counting(network, samples):
        steps.append(samples[0]["images"])
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(network, samples)

    monkeypatch.setattr(ClassificationSpecialist, "loss", counting)
    with pytest.raises(SystemExit) as stop:
        train(60.0)
    assert stop.value.code == 130
    assert len(steps) == 3
    assert "continues" in capsys.readouterr().err
    state = torch.load(next(tmp_path.glob("*/state.pt")), weights_only=True)
    assert state["step"] == 3
    # What was spent so far is kept: with it the time is over after the next step.
    state["spent"] = 59.9
    torch.save(state, next(tmp_path.glob("*/state.pt")))
    trained = train(60.0)
    assert trained.facts["steps"] == len(steps) > 3
    assert not torch.equal(steps[3], steps[0])  # the next scenes, not the first again
    assert not list(tmp_path.glob("*/state.pt"))
