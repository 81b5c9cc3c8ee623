"""Instances as a frame: a class has several colours, so that its objects differ where they are close.

The colours are a lattice of the RGB cube with an odd number of levels: its middle is grey, which costs no
tokens, and means that there is no object. The others go round: the first one of each class, the second one of
each, and so on, those farthest in luma from grey coming first, since luma is what the codec keeps best. Most
objects get the first colour of their class; four to a class suffice for any map (the four-colour theorem).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from scipy.ndimage import label as connected
from torch import Tensor

from transframer.tasks.chroma_planes import luma
from transframer.tasks.class_palette import colour_mask, palette, read_mask
from transframer.tasks.instance_masks import numbers_of

_MIN_COLOURS = 4


@dataclass(frozen=True)
class InstanceColours:
    """The colours of some classes, and how instances are written in them and read.

    Attributes:
        num_classes: how many classes.
        gap_px: objects of one class and colour are farther apart than this; what is closer is one object.
    """

    num_classes: int
    gap_px: int

    @cached_property
    def levels(self) -> int:
        """Levels of red, green and blue: 3 for up to 6 classes, 5 up to 31, 7 up to 85, ..."""
        wanted = 1 + _MIN_COLOURS * self.num_classes
        return next(levels for levels in range(3, 257, 2) if levels**3 >= wanted)

    @property
    def quality(self) -> int:
        """A JPEG quality at which the colours are told apart: the closer they are, the finer."""
        return min(95, 12 * self.levels - 24)

    @cached_property
    def _order(self) -> Int[Tensor, " n"]:
        """Places in the palette: grey, then the others, the farthest from it in luma first."""
        colours = palette(self.levels**3)
        contrast = (luma(colours.T[..., None])[0, :, 0] - 128).abs()
        middle = len(colours) // 2
        contrast[middle] = torch.inf
        return contrast.argsort(descending=True, stable=True)

    def write(self, masks: Bool[Tensor, "n h w"], labels: Int[Tensor, " n"]) -> UInt8[Tensor, "3 h w"]:
        """The frame of these objects.

        The larger choose first. Where all colours of a class are taken nearby, the last one is used again.
        """
        classes, most = labels.tolist(), (self.levels**3 - 1) // self.num_classes
        colour = torch.zeros(len(classes) + 1, dtype=torch.int64)  # 0 is grey
        chosen: list[int] = []
        for i in masks.flatten(1).sum(1).argsort(descending=True, stable=True).tolist():
            around = _spread(masks[i], self.gap_px + 1)
            rivals = (j for j in chosen if classes[j] == classes[i] and bool((around & masks[j]).any()))
            taken = {int(colour[j + 1]) for j in rivals}
            options = [1 + turn * self.num_classes + classes[i] for turn in range(most)]
            colour[i + 1] = next((option for option in options if option not in taken), options[-1])
            chosen.append(i)
        return colour_mask(self._order[colour[numbers_of(masks)]], self.levels**3)

    def read(
        self, image: UInt8[Tensor, "3 h w"], min_px: float
    ) -> tuple[Bool[Tensor, "n h w"], Int[Tensor, " n"]]:
        """The masks and classes of the objects in a coded, decoded or sampled frame.

        Args:
            min_px: objects of fewer pixels are left out.
        """
        colour = self._order.argsort()[read_mask(image, self.levels**3)]
        masks, labels = [], []
        for value in colour.unique().tolist():
            if not 1 <= value <= (self.levels**3 - 1) // self.num_classes * self.num_classes:
                continue
            mask = colour == value
            parts, count = connected(_spread(mask, self.gap_px // 2).numpy(), np.ones((3, 3)))
            for part in range(1, count + 1):
                own = mask & torch.from_numpy(parts == part)
                if own.sum() >= min_px:
                    masks.append(own)
                    labels.append((value - 1) % self.num_classes)
        stacked = torch.stack(masks) if masks else torch.zeros(0, *image.shape[1:], dtype=torch.bool)
        return stacked, torch.tensor(labels, dtype=torch.int64)


def _spread(mask: Bool[Tensor, "h w"], reach_px: int) -> Bool[Tensor, "h w"]:
    """The pixels within this distance along both axes."""
    return F.max_pool2d(mask.float()[None], 2 * reach_px + 1, 1, reach_px)[0] > 0
