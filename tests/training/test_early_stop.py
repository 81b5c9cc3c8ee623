"""When a run that no longer gains is over, and which model it keeps."""

from dataclasses import replace

import pytest
import torch
import toy
from toy import TASKS, ToyPredictor, ToyWorld

from transframer.training.checkpoint import load_run
from transframer.training.config import TrainConfig
from transframer.training.early_stop import Best
from transframer.training.validation import Validation


def noted(best, *bits):
    return [best.note(step, {"a": value}) for step, value in enumerate(bits)]


class TestBest:
    def test_patience_counts_validations_in_a_row(self):
        best = Best(["a"], 2)
        assert noted(best, 5.0, 6.0, 4.0, 4.0) == [True, False, True, False]
        assert not best.over
        assert noted(best, 4.5) == [False]
        assert best.over
        assert (best.step, best.bits) == (2, 4.0)

    def test_weights_that_were_validated_before_try_no_patience(self):
        best = Best(["a"], 2)
        assert [best.note(step, {"a": 4.0}) for step in (1, 2, 2, 2)] == [True, False, False, False]
        assert not best.over
        best.note(3, {"a": 4.0})
        assert best.over

    def test_without_patience_it_is_never_over(self):
        best = Best(["a"], 0)
        noted(best, *map(float, range(10)))
        assert not best.over

    def test_only_the_mean_of_its_own_tasks_counts(self):
        best = Best(["a", "b"], 1)
        assert best.note(0, {"a": 2.0, "b": 4.0, "other": 0.0})
        assert best.bits == 3.0
        assert best.note(1, {"a": 5.0, "b": 0.0, "other": 99.0})

    def test_a_validation_that_is_no_number_is_no_gain(self):
        best = Best(["a"], 1)
        assert noted(best, 3.0, float("nan")) == [True, False]
        assert best.over

    def test_its_state_survives(self):
        best, again = Best(["a"], 3), Best(["a"], 3)
        noted(best, 3.0, 4.0)
        again.load(best.state())
        assert vars(again) == vars(best)


CURVE = [9.0, 5.0, 7.0, 8.0, 6.0, 4.0]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run of 12 steps with a validation every other; their bits are those of CURVE."""

    def bits(self, predictor):
        step = int(predictor.steps_seen)
        return dict.fromkeys(TASKS, CURVE[step // 2 - 1])

    monkeypatch.setattr(Validation, "bits_per_frame", bits)
    return TrainConfig(
        steps=12, batch_size=8, out=tmp_path / "run", workers=0, warmup_steps=2, validations=6, patience=2,
        validation_episodes=2, pictures=0, device="cpu", ema_decay=0.0, checkpoint_minutes=1e-9,
    )  # fmt: skip


class Counting(ToyPredictor):
    """Knows how many steps it was trained: in a weight, so that averages and saved models know it too."""

    def __init__(self, stop_at=None):
        super().__init__(dropout=0.0)
        self.steps_seen = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
        self.stop_at = stop_at

    def loss(self, batch, generator):
        with torch.no_grad():
            self.steps_seen += 1
        if self.stop_at == int(self.steps_seen):
            import signal

            signal.raise_signal(signal.SIGTERM)
        return super().loss(batch, generator)


def kept(folder):
    """The step of the model that a run kept."""
    return int(load_run(folder, Counting.from_pretrained)[0].steps_seen)


def last_step(folder):
    return max(int(path.name[5:]) for path in (folder / "checkpoints").iterdir())


def test_it_stops_after_the_patience_and_keeps_the_best_model(config, capsys):
    toy.run(config, Counting())
    assert last_step(config.out) == 8, "validations at 2, 4 (best), 6, 8"
    assert kept(config.out) == 4
    assert "stopping: 2 validations in a row without fewer bits per frame than the 5.00 of step 4" in (
        capsys.readouterr().out
    )


def test_with_more_patience_it_ends_later_and_better(config):
    toy.run(replace(config, patience=5), Counting())
    assert last_step(config.out) == 12
    assert kept(config.out) == 12


def test_without_patience_the_last_model_is_kept(config):
    toy.run(replace(config, patience=0, steps=8, validations=4), Counting())
    assert kept(config.out) == 8


@pytest.mark.parametrize("stop_at", [1, 3, 5, 7])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(config, tmp_path, stop_at):
    toy.run(config, Counting())
    other = replace(config, out=tmp_path / "other")
    with pytest.raises(SystemExit):
        toy.run(other, Counting(stop_at))
    assert kept(other.out) == (4 if stop_at >= 4 else 2 if stop_at >= 2 else 1)
    toy.run(TrainConfig(resume=other.out), Counting())
    states = [
        torch.load(c.out / "checkpoints/step-000008/state.pt", weights_only=True) for c in (config, other)
    ]
    for state in states:
        del state["trained_s"]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    models = [load_run(c.out, Counting.from_pretrained)[0].state_dict() for c in (config, other)]
    torch.testing.assert_close(*models, rtol=0, atol=0)


def test_a_run_that_is_over_can_go_on_with_more_patience(config):
    toy.run(config, Counting())
    toy.run(TrainConfig(resume=config.out), Counting())
    assert last_step(config.out) == 8, "with the same it is over at once"
    assert kept(config.out) == 4
    toy.run(TrainConfig(resume=config.out, patience=5), Counting())
    assert kept(config.out) == 12


def test_a_run_that_is_made_longer_is_validated_to_its_new_end(config):
    toy.run(replace(config, patience=5, steps=8, validations=4), Counting())
    assert kept(config.out) == 4
    toy.run(TrainConfig(resume=config.out, steps=12), Counting())
    assert kept(config.out) == 12, "better than that of step 4"


def test_patience_that_comes_later_starts_to_count_then(config):
    """Until then the last model was kept and not the best: that one is not claimed to be there."""
    toy.run(replace(config, patience=0, steps=4, validations=2), Counting())
    toy.run(TrainConfig(resume=config.out, patience=3, steps=6, validations=3), Counting())
    assert kept(config.out) == 6


def test_only_the_tasks_of_the_data_count():
    world = ToyWorld()
    assert Validation(TASKS, world, 3, 0).samples["copy"][0]["level"] == 0.0
    assert TrainConfig(data="x", tasks=["a", "b"], data_tasks=["b"]).tasks_of_data == ["b"]
    assert TrainConfig(data="x", tasks=["a", "b"]).tasks_of_data == ["a", "b"]
    assert TrainConfig(tasks=["a", "b"]).tasks_of_data == []
