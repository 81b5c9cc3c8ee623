"""The sketch: what it starts as, what it learns from, and what the rest of the model gets of it."""

from dataclasses import replace

import pytest
import torch

from tests.models.conftest import CONFIG, episode, wake
from transframer.models.sketch import sketch_loss
from transframer.models.transframer import Transframer


def encoded(model, episodes):
    return model.encode_start(model.collate(episodes))


def test_it_starts_as_nothing_and_leaves_the_model_as_it_is(episodes):
    torch.manual_seed(0)
    plain = wake(Transframer(replace(CONFIG, sketch=False)))
    model = Transframer(CONFIG).eval()
    own = model.state_dict()
    with torch.no_grad():
        for name, value in plain.state_dict().items():
            if own[name].shape == value.shape:
                own[name].copy_(value)
            else:  # weights of the hints: the sketch is one more
                own[name][:, : value.shape[1]] = value
    torch.testing.assert_close(model.log_prob(episodes), plain.log_prob(episodes))
    assert not encoded(model, episodes).sketch.any()
    assert encoded(plain, episodes).sketch is None
    wake(model)
    assert encoded(model, episodes).sketch.any()


def test_an_episode_is_sketched_alike_in_any_batch(any_model, episodes):
    together = encoded(any_model, episodes).sketch
    for i, own in enumerate(episodes):
        torch.testing.assert_close(encoded(any_model, [own]).sketch[0], together[i], rtol=1e-4, atol=1e-3)
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(encoded(any_model, episodes).select(rows).sketch, together[rows])


def test_a_task_may_take_the_hints_as_they_are(episodes):
    model = Transframer(CONFIG).eval()
    batch = model.collate(episodes)
    hints = model.dct_images(batch)["hint_pixels"]
    with torch.no_grad():
        model.sketch.hint.weight[batch.task[0]] = torch.tensor([0.5, -0.25])
    expected = 256 * ((0.5 * hints[:, 0] - 0.25 * hints[:, 1]) / 256).tanh()
    expected[batch.task != batch.task[0]] = 0
    assert expected.any()
    torch.testing.assert_close(encoded(model, episodes).sketch, expected)


@pytest.mark.parametrize("reference", [None, (0.0, 1.0)])
def test_it_learns_what_the_target_is_in_pixels(reference):
    torch.manual_seed(0)
    model = Transframer(CONFIG)
    e = episode(1, 2, reference=reference)
    batch = model.collate([e])
    coded = e.target.image.float() - (128 if reference is None else e.context[1].image.float())
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    errors = []
    for _ in range(60):
        optimiser.zero_grad()
        model.loss(batch, torch.Generator().manual_seed(0)).total.backward()
        optimiser.step()
        with torch.no_grad():
            errors.append((encoded(model, [e]).sketch[0] - coded).square().mean().sqrt().item())
    assert errors[-1] < 0.4 * errors[0]


def test_it_learns_from_the_pixels_alone(any_model):
    """The nats of the coefficients use the sketch and do not bend it."""
    any_model.config = replace(any_model.config, sketch_weight=0.0)
    any_model.loss(any_model.collate([episode()]), torch.Generator().manual_seed(0)).total.backward()
    for name, parameter in any_model.sketch.named_parameters():
        taught = parameter.grad is not None and bool(parameter.grad.any())
        assert taught == name.startswith("to_cells"), name


def test_its_range_holds_every_difference_of_two_images(any_model):
    with torch.no_grad():
        any_model.sketch.out.weight.mul_(1e4)
    sketch = encoded(any_model, [episode()]).sketch
    assert sketch.abs().max() == 256


def test_the_loss_is_the_root_mean_square_error_of_each_frame():
    sketch = torch.zeros(2, 3, 4, 4)
    coded = torch.stack([torch.full((3, 4, 4), 32.0), torch.zeros(3, 4, 4)])
    coded[1, 0, 0, 0] = 48.0  # 48 of one of 48 values: 48**2 / 48 = 48 on average
    expected = [(32**2 + 1) ** 0.5 / 32, 49**0.5 / 32]
    assert sketch_loss(sketch, coded).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("changes", [{"sketch": False}, {"pixel_stem": ()}, {"draft": False}])
def test_without_what_it_needs_there_is_none(changes):
    model = Transframer(replace(CONFIG, **changes))
    assert model.sketch is None
    assert not any("sketch" in name for name in model.state_dict())
    assert torch.isfinite(model.log_prob([episode()])).all()
