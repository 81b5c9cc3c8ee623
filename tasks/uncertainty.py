"""How far apart several samples of the model are at each pixel: what the tasks' uncertainty maps share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor


def vote_entropy(masks: Sequence[Int[Tensor, "h w"]], num_classes: int) -> Float[Tensor, "h w"]:
    """Entropy of the classes that masks vote for, in nats: 0 where they agree, at most log of their number.

    The plug-in estimate -sum p log p of the vote shares p; of few votes it is below the model's own entropy.

    Args:
        masks: class ids, 0 to num_classes - 1.

    >>> votes = [torch.tensor([[0, 1]]), torch.tensor([[0, 2]])]
    >>> vote_entropy(votes, 3)
    tensor([[0.0000, 0.6931]])
    """
    votes = torch.zeros(num_classes, *masks[0].shape)
    for mask in masks:
        votes.scatter_add_(0, mask.long()[None], torch.ones(1, *mask.shape))
    return torch.special.entr(votes / len(masks)).sum(0)


def total_deviation(maps: Sequence[Shaped[Tensor, "c h w"]]) -> Float[Tensor, "h w"]:
    """The root of the variances over several maps, summed over their channels, in the unit of the maps.

    The variance is that of the maps themselves (divided by their number), not an estimate for others.

    >>> total_deviation([torch.zeros(2, 1, 1), torch.tensor([[[6.0]], [[8.0]]])])
    tensor([[5.]])
    """
    return torch.stack([each.float() for each in maps]).var(0, unbiased=False).sum(0).sqrt()


def colour_deviation(images: Sequence[Shaped[Tensor, "3 h w"]]) -> Float[Tensor, "h w"]:
    """Standard deviation over several images, in grey levels of 0-255, root mean square over the channels.

    >>> black = torch.zeros(3, 1, 1, dtype=torch.uint8)
    >>> float(colour_deviation([black, black + 8]))
    4.0
    """
    return total_deviation(images) / len(images[0]) ** 0.5


def resize_map(values: Float[Tensor, "h w"], size: tuple[int, int] | None) -> Float[Tensor, "h2 w2"]:
    """A map resized bilinearly to `size` (height, width); as it is where that is None."""
    if size is None or tuple(values.shape) == tuple(size):
        return values
    return F.interpolate(values[None, None], tuple(size), mode="bilinear", antialias=True)[0, 0]
