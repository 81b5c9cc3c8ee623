"""Boxes written into grids of quantised DCT coefficients: one block per box, one coefficient per number.

The luma coefficients of the block at a box's centre hold, in whole quantisation steps,

    DC               the class, never 0: this is what says that a box is there
    (0, 1), (1, 0)   the centre relative to the block's, x and y: gradients of grey along x and y
    (0, 2), (2, 0)   the logarithm of width and height relative to the image's

and are zero in every other block. So a box costs at most five triples, each number is ordinal, and what
was written is read back exactly: the patterns stay inside 0-255, and rounding pixels to whole greys moves a
coefficient by less than half a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.codec import N_CHANNELS, quantisation
from transframer.codec.layout import ZIGZAG, channel_plane, channel_zigzag
from transframer.errors import ConfigError, DataError


def _luma_channel(row: int, column: int) -> int:
    here = (channel_plane == 0) & (channel_zigzag == ZIGZAG.index((row, column)))
    return int(here.nonzero())


CLASS, DX, DY, WIDTH, HEIGHT = (
    _luma_channel(*frequency) for frequency in ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0))
)
# Largest value that a coefficient of 1 adds to a pixel: of the constant, of cos(pi/16), of cos(pi/8).
_PEAKS = {CLASS: 0.125, DX: 0.17338, DY: 0.17338, WIDTH: 0.16333, HEIGHT: 0.16333}
_HEADROOM = 126.0  # greys from 128 to white, less the rounding of the pixels
_MIN_STEP = 3  # rounding 64 pixels moves a coefficient by 0.29 rms: half of 3 is five times that


@dataclass(frozen=True)
class BoxLattice:
    """The numbers that a block can hold.

    Attributes:
        num_classes: how many classes.
        quality: JPEG quality, whose quantisation steps are the lattice's.
        offset_px: one step of the centre, pixels; with 0.5 the centres of whole-pixel boxes are exact.
        octaves: the narrowest box is the image's width / 2^octaves wide; likewise its height.
    """

    num_classes: int
    quality: int
    offset_px: float = 0.5
    octaves: float = 5.0

    def __post_init__(self) -> None:
        if self.levels < 4:
            raise ConfigError(
                f"no room for {self.num_classes} classes of boxes at quality {self.quality}",
                field="quality",
                expected="fewer classes, or a quality of about 50 to 85",
            )

    @cached_property
    def levels(self) -> int:
        """Steps to either side of zero that all numbers can take at once without leaving 0-255."""
        steps = quantisation(torch.tensor([self.quality]))[0]
        if steps[list(_PEAKS)].min() < _MIN_STEP:
            return 0
        room = _HEADROOM - (self.num_classes + 1) // 2 * _PEAKS[CLASS] * steps[CLASS].item()
        return int(room / sum(_PEAKS[channel] * steps[channel].item() for channel in (DX, DY, WIDTH, HEIGHT)))

    def write(
        self,
        boxes: Float[Tensor, "n 4"],
        labels: Int[Tensor, " n"],
        size: tuple[int, int],
        grid: tuple[int, int],
    ) -> Int[Tensor, "192 gy gx"]:
        """The grid that holds these boxes.

        A box whose block is taken gets the nearest free one, smaller boxes choosing first. Where that is
        farther away than the lattice reaches (`levels` x `offset_px`), the box moves by the rest.

        Args:
            boxes: x0 y0 x1 y1, pixels.
            size: height and width of the image, pixels.
            grid: cells of the grid; only those wholly inside the image are used.

        Raises:
            DataError: more boxes than blocks, a box without area, or a label that is no class.
        """
        self._check(boxes, labels, size)
        out = torch.zeros(N_CHANNELS, *grid, dtype=torch.int16)
        rows, columns = size[0] // 8, size[1] // 8
        middles = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1) * 8.0 + 4
        free = torch.ones(len(middles), dtype=torch.bool)
        extent = boxes[:, 2:] - boxes[:, :2]
        sides = (extent / torch.tensor([size[1], size[0]])).log2() / self.octaves  # -1 to 0
        for i in extent.prod(1).argsort(stable=True).tolist():
            centre = (boxes[i, :2] + boxes[i, 2:]) / 2
            distance = (centre - middles).square().sum(1)
            block = int(torch.where(free, distance, torch.inf).argmin())
            free[block] = False
            offset = (centre - middles[block]) / self.offset_px
            numbers = torch.cat([offset, (1 + 2 * sides[i]) * self.levels]).round()
            y, x = divmod(block, columns)
            out[[DX, DY, WIDTH, HEIGHT], y, x] = numbers.clamp(-self.levels, self.levels).to(torch.int16)
            out[CLASS, y, x] = self._level(int(labels[i]))
        return out

    def read(
        self, grid: Int[Tensor, "192 gy gx"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "n 4"], Int[Tensor, " n"]]:
        """The boxes in a grid, inside the image, and their classes, blocks in raster order.

        Any grid can be read: numbers beyond the lattice are taken as its ends.
        """
        whole = grid[:, : size[0] // 8, : size[1] // 8]
        y, x = whole[CLASS].nonzero(as_tuple=True)
        numbers = whole[[DX, DY, WIDTH, HEIGHT]][:, y, x].T.clamp(-self.levels, self.levels).float()
        centre = torch.stack([x, y], 1) * 8 + 4 + numbers[:, :2] * self.offset_px
        extent = 2 ** (self.octaves * (numbers[:, 2:] / self.levels - 1) / 2)
        extent = extent * torch.tensor([size[1], size[0]])
        low, high = (centre - extent / 2).clamp(min=0), centre + extent / 2
        high = torch.minimum(high, torch.tensor([size[1], size[0]]))
        return torch.cat([low, high], 1), self._class(whole[CLASS, y, x].long())

    def _level(self, label: int) -> int:
        """Classes on both sides of zero, -k/2 to k/2 without 0, to leave the patterns most of the room."""
        level = label - self.num_classes // 2
        return level + 1 if level >= 0 else level

    def _class(self, level: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        label = torch.where(level > 0, level - 1, level) + self.num_classes // 2
        return label.clamp(0, self.num_classes - 1)

    def _check(self, boxes: Tensor, labels: Tensor, size: tuple[int, int]) -> None:
        blocks = (size[0] // 8) * (size[1] // 8)
        if len(boxes) > blocks:
            raise DataError(
                f"{len(boxes)} boxes in an image of {size[0]} x {size[1]} pixels",
                field="boxes",
                expected=f"at most {blocks}, one per 8x8 block",
                next_step="use larger frames, or leave out the smallest boxes",
            )
        if len(boxes) and not bool((boxes[:, 2:] > boxes[:, :2]).all()):
            raise DataError("a box without area", field="boxes", expected="x0 y0 x1 y1, x1 > x0, y1 > y0")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise DataError(
                f"classes {sorted(set(labels.tolist()))}",
                field="box_labels",
                expected=f"0 to {self.num_classes - 1}",
            )
