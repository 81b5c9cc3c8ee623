"""The draft: its event probabilities against brute force, its loss against hand-computed nats."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from tests.models.conftest import CONFIG, episode, wake
from transframer.codec import code_episodes, legal_mask
from transframer.models.draft import Draft, EventPrior
from transframer.models.legal import later_pairs
from transframer.models.transframer import Transframer


def toy_draft(seed=0, cells=4):
    generator = torch.Generator().manual_seed(seed)
    legal = torch.rand(1, 192, cells, generator=generator) < 0.7
    parts = [torch.randn(1, 192, cells, generator=generator, dtype=torch.float64) for _ in range(3)]
    return Draft(parts[0] * 2 - 3, parts[1], parts[2].exp(), legal)


@pytest.mark.parametrize("last", [(0, -1), (0, 2), (7, 1), (190, 0), (191, 3)])
def test_next_event_under_independent_coefficients(last):
    draft = toy_draft()
    expected, none = {}, 1.0
    for pair in itertools.product(range(192), range(4)):
        if pair > last and draft.legal[0][pair]:
            p = float(draft.coded[0][pair].sigmoid())
            expected[pair] = none * p
            none *= 1 - p
    prior = EventPrior(draft)
    row, channel, position = (torch.tensor([[number]]) for number in (0, *last))
    logits = prior.channel_logits(row, channel, position)[0, 0]
    later = [c for c in range(192) if any(pair[0] == c for pair in expected)]
    got = logits[[*later, 192]].softmax(0)
    want = [sum(p for (c, _), p in expected.items() if c == k) for k in later]
    torch.testing.assert_close(got, torch.tensor([*want, none], dtype=torch.float64), rtol=1e-5, atol=1e-9)
    for c in later[:3]:
        cells = [p for k, p in expected if k == c]
        got = prior.position_logits(row, torch.tensor([[c]]))[0, 0, cells].softmax(0)
        want = torch.tensor([expected[c, p] for p in cells], dtype=torch.float64)
        torch.testing.assert_close(got, want / want.sum(), rtol=1e-6, atol=1e-9)


def test_loss_by_hand():
    draft = Draft(
        torch.full((1, 192, 1), 0.0),
        torch.full((1, 192, 1), 1.0),
        torch.full((1, 192, 1), 0.5),
        torch.ones(1, 192, 1).bool(),
    )
    grid = torch.zeros(1, 192, 1, 1, dtype=torch.int16)
    grid[0, 3], grid[0, 5] = 2, -1
    is_open = torch.zeros(1, 192, 1, dtype=torch.bool)
    is_open[0, 3:5] = True  # one coded, one not; the coded one at 5 is given
    expected = 2 * math.log(2) + abs(math.asinh(2) - 1) / 0.5 + math.log(2 * 0.5)
    assert draft.loss(grid, is_open).item() == pytest.approx(expected, rel=1e-6)


def test_cells_that_the_subsampling_lacks_cost_nothing():
    legal = legal_mask((2, 2), "4:2:0")[None]
    even = Draft(*(torch.zeros(1, 192, 4) for _ in range(2)), torch.ones(1, 192, 4), legal)
    nats = even.loss(torch.zeros(1, 192, 2, 2, dtype=torch.int16), torch.ones_like(legal))
    assert nats.item() == pytest.approx(int(legal.sum()) * math.log(2), rel=1e-6)


def test_only_the_coefficients_after_the_chunk_teach_the_draft():
    later = later_pairs(torch.tensor([0, 5]), torch.tensor([-1, 2]), (2, 2))
    assert later[0].all()
    assert later[1].flatten().long().argmax() == 5 * 4 + 3
    assert later[1].sum() == 192 * 4 - (5 * 4 + 3)


def test_without_a_draft_it_is_the_papers_model():
    torch.manual_seed(0)
    model = wake(Transframer(replace(CONFIG, draft=False)))
    names = [name for name, _ in model.named_parameters()]
    assert not any("draft" in name or "correction" in name for name in names)
    e = episode(1)
    batch = model.collate([e])
    assert set(model.dct_images(batch)) == {"context", "reference"}
    assert torch.isfinite(model.log_prob([e])).all()
    drawn = model.sample([e], generator=torch.Generator().manual_seed(0))
    assert drawn.frames[0].image.shape == e.target.image.shape
    loss = model.loss(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss.total, (loss.nats / loss.events).mean())


def test_hints_teach_the_draft_in_a_few_steps():
    """A target that is its hint: the weights of the hint alone find it, whatever the features do."""
    torch.manual_seed(0)
    model = Transframer(CONFIG)
    e = episode(2, 1, quality=60, subsampling="4:4:4")
    e = replace(e, target=replace(e.target, image=e.context[0].image))
    batch, grid = model.collate([e]), code_episodes([e])
    dct, zero = model.dct_images(batch), torch.zeros(1, dtype=torch.long)
    open_ = torch.ones(1, 192, 16, dtype=torch.bool)
    rate = 4e-3 * model.draft.hint.lr_scale
    optimiser = torch.optim.Adam(model.draft.hint.parameters(), lr=rate)
    coded = grid.flatten(2) != 0

    def error():
        draft = model.encode(batch, dct, torch.zeros_like(grid), zero).draft
        return draft.loss(grid, open_).sum(), (draft.centre - grid.flatten(2).asinh())[coded].abs().mean()

    before = error()[1].item()
    for _ in range(40):
        optimiser.zero_grad()
        error()[0].backward()
        optimiser.step()
    assert error()[1].item() < 0.5 * before
