import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from transframer.benchmarks.codec import ceiling
from transframer.codec import round_trip
from transframer.data.world import World
from transframer.errors import DataError
from transframer.tasks.class_palette import palette, read_mask
from transframer.tasks.semantic_segmentation import SemanticSegmentation

IMAGE = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)


def regions(num_classes, seed, size=64, sites=10):
    """A mask of straight-edged regions: the Voronoi cells of random points, of random classes."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(sites, 2, generator=generator) * size
    classes = torch.randint(num_classes, (sites,), generator=generator)
    pixels = torch.cartesian_prod(torch.arange(size), torch.arange(size)).float()
    return classes[torch.cdist(pixels, points).argmin(1)].view(size, size)


def test_ceiling_and_tokens_on_the_world():
    task = SemanticSegmentation()
    samples = World("test", 3).samples(range(192), task.sample_type, task.clip)
    metrics, tokens = ceiling(task, samples)
    assert metrics["miou"] >= 0.97
    assert tokens <= 175


@pytest.mark.parametrize("num_classes", [1, 2, 8, 9, 27, 28, 150, 255])
def test_any_number_of_classes_survives_the_codec(num_classes):
    task = SemanticSegmentation(classes=tuple(map(str, range(num_classes))))
    right = []
    for seed in range(3):
        mask = regions(num_classes, seed)
        episode = task.format({"images": IMAGE, "mask": mask})
        right.append((task.decode(round_trip(episode), episode) == mask).double().mean().item())
    assert min(right) >= 0.98


@pytest.mark.parametrize("num_classes", [1, 8, 9, 150, 255])
def test_palette_colours_differ(num_classes):
    assert len(palette(num_classes).unique(dim=0)) == num_classes


def test_no_third_class_on_the_edge_of_two():
    mask = torch.full((64, 64), 5)  # the darkest grey beside the lightest: all others lie between
    mask[:, 20:] = 4
    mask[30:, 35:] = 3
    task = SemanticSegmentation()
    episode = task.format({"images": IMAGE, "mask": mask})
    frame = round_trip(episode)
    nearest = (frame.image[0].float()[..., None] - palette(6)[:, 0].float()).abs().argmin(-1)
    assert set(nearest.unique().tolist()) > {3, 4, 5}
    assert set(task.decode(frame, episode).unique().tolist()) == {3, 4, 5}


def test_a_class_thinner_than_a_window_is_read_where_it_is_clean():
    mask = torch.zeros(32, 32, dtype=torch.int64)
    mask[10:13, :] = 2
    assert torch.equal(read_mask(palette(6)[mask].permute(2, 0, 1), 6), mask)


def test_iou_agrees_with_torchmetrics():
    task = SemanticSegmentation()
    true, found = regions(6, 1), regions(6, 2)
    true[:5] = 255
    oracle = MulticlassJaccardIndex(6, average="none", ignore_index=255)(found, true)
    metrics = task.summarise([task.score(found, {"images": IMAGE, "mask": true})])
    ours = [metrics[f"iou/{name}"] for name in task.classes]
    present = [value for value in ours if not math.isnan(value)]
    assert torch.allclose(torch.tensor(ours).nan_to_num(0).float(), oracle, atol=1e-6)
    assert metrics["miou"] == pytest.approx(sum(present) / len(present))
    assert metrics["pixel_accuracy"] == pytest.approx((found == true)[5:].double().mean().item())


def test_scores_are_summed_before_they_are_divided():
    task = SemanticSegmentation(classes=("a", "b"))
    one = {"images": IMAGE, "mask": torch.tensor([[0, 0, 0, 1]])}
    two = {"images": IMAGE, "mask": torch.tensor([[1, 255, 255, 255]])}
    scores = [task.score(torch.tensor([[0, 0, 1, 1]]), one), task.score(torch.tensor([[0, 0, 0, 0]]), two)]
    assert task.summarise(scores)["miou"] == pytest.approx((2 / 4 + 1 / 3) / 2)


def test_an_absent_class_does_not_make_nan_and_nothing_labelled_does():
    task = SemanticSegmentation()
    nothing = {"images": IMAGE, "mask": torch.full((64, 64), 255)}
    ground = {"images": IMAGE, "mask": torch.ones(64, 64, dtype=torch.int64)}
    scores = [task.score(torch.ones(64, 64, dtype=torch.int64), sample) for sample in (nothing, ground)]
    assert task.summarise(scores)["miou"] == 1.0
    assert math.isnan(task.summarise(scores[:1])["miou"])
    assert math.isnan(task.summarise([])["miou"])


def test_pixels_not_labelled_add_no_edge():
    task = SemanticSegmentation()
    mask = torch.zeros(64, 64, dtype=torch.int64)
    mask[:, 32:] = 3
    holes = mask.clone()
    holes[10:20, 5:25] = 255
    whole, holed = (task.format({"images": IMAGE, "mask": m}).target.image for m in (mask, holes))
    assert torch.equal(whole, holed)


@pytest.mark.parametrize("wrong", [-1, 6, 254])
def test_unknown_ids_are_refused(wrong):
    mask = torch.zeros(64, 64, dtype=torch.int64)
    mask[3, 3] = wrong
    with pytest.raises(DataError, match=rf"class {wrong}\nexpected 0 to 5"):
        SemanticSegmentation().format({"images": IMAGE, "mask": mask})


def test_samples_vote():
    votes = [torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 2]]), torch.tensor([[5, 2, 1]])]
    assert SemanticSegmentation().combine(votes).tolist() == [[0, 2, 2]]


def test_floor_is_the_majority_of_the_labelled():
    task = SemanticSegmentation()
    masks = [torch.full((64, 64), value) for value in (2, 2, 4)]
    masks[0][:32], masks[1][:32] = 255, 255
    floor = task.floor([{"images": IMAGE, "mask": mask} for mask in masks])
    found = floor(task.format({"images": torch.zeros(1, 3, 32, 96, dtype=torch.uint8)}))
    assert found.shape == (32, 96)
    assert found[:16].unique().tolist() == [4]
    assert found[16:].unique().tolist() == [2]


def test_the_file_holds_class_ids(tmp_path):
    mask = torch.tensor([[0, 5], [3, 1]])
    (path,) = SemanticSegmentation().write(mask, tmp_path / "photo", (4, 6))
    with Image.open(path) as picture:
        assert picture.mode == "P"
        ids = np.array(picture)
    assert np.array_equal(ids, np.kron(mask.numpy(), np.ones((2, 3), int)))
