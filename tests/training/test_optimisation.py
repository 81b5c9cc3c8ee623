import copy
import doctest

import pytest
import torch
import toy
from torch import nn

from transframer.training import optimisation
from transframer.training.config import TrainConfig
from transframer.training.optimisation import (
    learning_rate,
    make_optimizer,
    moving_average,
    progress,
    set_learning_rate,
)


def test_doctests():
    assert doctest.testmod(optimisation).failed == 0


def test_the_rate_warms_up_and_ends_at_zero_with_the_time():
    config = TrainConfig(minutes=10.0, learning_rate=1.0, warmup_steps=10)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 4, 0.0) == pytest.approx(0.5)
    assert learning_rate(config, 500, 300.0) == pytest.approx(0.5)
    assert learning_rate(config, 900, 600.0) == learning_rate(config, 900, 999.0) == 0


def test_progress_is_of_what_ends_first():
    config = TrainConfig(minutes=1.0, steps=100)
    assert progress(config, 50, 6.0) == 0.5
    assert progress(config, 10, 45.0) == 0.75
    assert progress(TrainConfig(steps=100), 10, 1e6) == 0.1


def test_only_matrices_decay():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 4)
            self.conv = nn.Conv2d(4, 4, 3)
            self.norm = nn.LayerNorm(4)
            self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))
            self.row_embedding = nn.Parameter(torch.zeros(3, 4))
            self.frozen = nn.Parameter(torch.zeros(3, 4), requires_grad=False)

    model = Model()
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    by_decay = {g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in optimizer.param_groups}
    assert by_decay == {
        0.1: {"conv.weight"},
        0.0: {"table.weight", "conv.bias", "norm.weight", "norm.bias", "gain", "row_embedding"},
    }


def gradients(model, seed):
    for n, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * seed + n))


def test_muon_turns_matrices_by_all_directions_alike_and_leaves_the_rest_to_adam():
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Embedding(5, 8))
    config = TrainConfig(optimizer="muon", learning_rate=0.1, weight_decay=0.0)
    optimizer = make_optimizer(model, config)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    gradients(model, 0)
    model[0].weight.grad[:8] *= 100  # some directions far ahead of the others
    optimizer.step()
    change = {name: value.detach() - before[name] for name, value in model.named_parameters()}
    # Of 16 outputs by 72 inputs, 0.2 sqrt(72) times an orthogonal matrix, as Newton-Schulz comes near one.
    values = torch.linalg.svdvals(change["0.weight"].flatten(1)) / (0.1 * 0.2 * 72**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3
    root_mean_square = change["0.weight"].square().mean().sqrt()
    assert float(root_mean_square) == pytest.approx(0.2 * 0.1, rel=0.3)  # as large as a step of AdamW
    for name in ("0.bias", "1.weight"):
        steps = change[name].abs()
        assert float(steps.min()) == pytest.approx(float(steps.max()), rel=1e-3)


def test_muon_goes_on_from_its_state():
    models, config = [nn.Sequential(nn.Linear(16, 16)) for _ in range(2)], TrainConfig(optimizer="muon")
    one, other = (make_optimizer(model, config) for model in models)
    gradients(models[0], 0)
    one.step()
    models[1].load_state_dict(models[0].state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for model, optimizer in zip(models, (one, other), strict=True):
        gradients(model, 1)
        optimizer.step()
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)


def test_a_module_may_scale_its_learning_rate():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].lr_scale = 5.0
    config = TrainConfig(steps=100, learning_rate=0.2, warmup_steps=0, weight_decay=0.1)
    optimizer = make_optimizer(model, config)
    set_learning_rate(optimizer, config, 50, 0.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == pytest.approx([0.1, 0.1, 0.5, 0.5])
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.1}


def test_a_module_may_learn_in_a_part_of_the_run():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].lr_span = (0.0, 0.4)
    model[1].lr_span, model[1].lr_scale = (0.4, 1.0), 5.0
    config = TrainConfig(steps=1000, learning_rate=1.0, warmup_steps=0)
    optimizer = make_optimizer(model, config)
    for step, first, second in [
        (0, 0.0, 0.0), (10, 0.5 * 0.975, 0.0), (200, 0.5, 0.0), (399, 0.0025, 0.0),
        (400, 0.0, 0.0), (415, 0.0, 5 * 0.5 * 0.975), (700, 0.0, 2.5), (1000, 0.0, 0.0),
    ]:  # fmt: skip
        set_learning_rate(optimizer, config, step, 0.0)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        found = [rates[id(p)] for p in model.parameters()]
        assert found == pytest.approx([first, first, second, second]), step


def test_the_average_follows_its_formula():
    model = toy.ToyPredictor()
    average, expected = moving_average(model, 0.3), None
    for n in range(6):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(n)))
        now = model.hidden.weight.detach().double().clone()
        keep = min(0.3, (1 + n) / (10 + n)) if n else 0.0  # the first update takes the weights as they are
        expected = now if expected is None else keep * expected + (1 - keep) * now
        average.update_parameters(model)
    torch.testing.assert_close(average.module.hidden.weight.double(), expected)
    assert not average.module.training
    assert not any(p.requires_grad for p in average.parameters())
