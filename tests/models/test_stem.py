"""The stem: features of the target slot at three resolutions, and the motion it finds between frames."""

from dataclasses import replace

import pytest
import torch

from tests.models.conftest import CONFIG, episode, wake
from transframer.models.motion import TimedPairs, timed_pairs
from transframer.models.stem import MotionCosts, PixelStem
from transframer.models.transframer import Transframer


def costs_of(size, shift, early_at, late_at):
    """What a cost volume makes of features that move by `shift` cells (x, y): costs, and what it found."""
    torch.manual_seed(0)
    costs = MotionCosts(93)
    with torch.no_grad():
        costs.out.weight.copy_(torch.eye(93, 81)[..., None, None])
        costs.out.bias.zero_()
        costs.found.weight.copy_(torch.eye(93)[:, 81:, None, None])
    coarse = torch.randn(1, 93, size[0], size[1])
    seen = [coarse.roll([round(shift[1] * at), round(shift[0] * at)], (2, 3)) for at in (early_at, late_at)]
    pairs = TimedPairs(*map(torch.tensor, ([0], [0], [1], [early_at], [late_at])))
    return costs(torch.cat(seen), pairs)


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (-2, 4), (4, -2)])
@pytest.mark.parametrize(("early_at", "late_at"), [(0.0, 1.0), (-0.5, 0.5), (-2.0, -1.0)])
def test_a_motion_has_the_features_that_are_most_alike(shift, early_at, late_at):
    costs = costs_of((16, 20), shift, early_at, late_at)
    assert costs.shape == (1, 93, 16, 20)
    inner, found = costs[0, :81, 8, 10], costs[0, 81:, 8, 10].unflatten(0, (4, 3))
    column, row = int(inner.argmax()) % 9 - 4, int(inner.argmax()) // 9 - 4
    assert (column, row) == shift
    assert inner.max().item() == pytest.approx(4.0, rel=1e-4)  # a cosine of 1
    # In the middle of a wide window nothing is beyond the edges, where the motion of `roll` is another.
    assert (found[:3, :2] - torch.tensor(shift)).abs().max() < 0.1
    assert found[0, 2] > 0.99


def test_both_kinds_of_costs_reach_a_reader_that_begins_as_nothing():
    pairs = TimedPairs(*map(torch.tensor, ([0], [0], [1], [0.0], [1.0])))
    torch.manual_seed(0)
    x = torch.randn(2, 8, 16, 16)
    with torch.no_grad():
        assert MotionCosts(8)(x, pairs).std() > 0.1


def test_large_images_are_searched_on_as_many_cells():
    assert costs_of((48, 64), (0, 0), 0.0, 1.0).shape == (1, 93, 48, 64)


def test_memory_does_not_grow_with_the_square_of_a_long_side():
    """Its 1,024 columns would take 39 GB."""
    assert costs_of((16, 1024), (0, 0), 0.0, 1.0).shape == (1, 93, 16, 1024)


def test_pairs_are_the_two_frames_nearest_in_time():
    model = Transframer(CONFIG)
    untimed = episode(0, 2)
    untimed = replace(
        untimed,
        context=tuple(replace(f, annotation=replace(f.annotation, time=None)) for f in untimed.context),
    )
    pairs = timed_pairs(model.collate([episode(0, 1), untimed, episode(1, 3), episode(2, 2)]))
    assert pairs.rows.tolist() == [2, 3]
    assert pairs.early.tolist() == [4, 6]
    assert pairs.late.tolist() == [5, 7]
    assert pairs.early_at.tolist() == [-2, -2]
    assert pairs.late_at.tolist() == [-1, -1]
    still = episode(1, 2)
    same = replace(still.context[1], annotation=replace(still.context[1].annotation, time=0.0))
    still = replace(still, context=(still.context[0], same))
    none = timed_pairs(model.collate([episode(0, 1), untimed, still]))
    assert [len(part) for part in none] == [0] * 5


def test_the_target_slot_has_features_of_its_own_at_every_resolution(episodes):
    torch.manual_seed(0)
    batch = Transframer(CONFIG).collate(episodes)
    stem = wake(PixelStem((8, 16), 32, finer=True))
    with torch.no_grad():
        annotation = torch.randn(len(batch.images), 32)
        cells, (quarter, half) = stem(batch, annotation)
        assert cells.shape == (len(batch.images) + len(batch), 32, 4, 4)
        assert quarter.shape == (len(batch), 16, 8, 8)
        assert half.shape == (len(batch), 8, 16, 16)
        # Frames of other episodes do not matter; those of the same do.
        first = int((batch.episode == 0).sum())
        batch.images[:first] = 255 - batch.images[:first]
        changed = stem(batch, annotation)[1]
        assert PixelStem((8, 16), 32, finer=False)(batch, annotation)[1] == ()
    for was, now in zip((quarter, half), changed, strict=True):
        torch.testing.assert_close(now[1:], was[1:])
        assert not torch.allclose(now[0], was[0])
