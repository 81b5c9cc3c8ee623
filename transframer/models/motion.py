"""What the pixels alone say of the target: motion between two frames, and the frame it leads to.

Motion is searched at the query's time t = 0. A surface point seen in a pixel there, that moves by d pixels
between an early frame at t_e and a late one at t_l, was seen displaced by d * t_e / (t_l - t_e) in the
first and by d * t_l / (t_l - t_e) in the second. The same search so gives forward flow (t_e = 0),
interpolation (t_e < 0 < t_l) and extrapolation (t_l < 0). It is a cost volume as optical flow networks
build (arXiv 1709.02371), of colours instead of learned features, and its softmax-weighted displacement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from transframer.models.batch import Batch

_CELLS = 16  # of the search's grid along the short side of the image
_REACH = 3  # cells that the search looks to each side, in half cells
_WINDOW = 9  # side of the square that has to match, in cells
_GREYS = 1.0  # mean absolute difference that makes a displacement e times less likely
_STILL = 4.0  # the same, per cell of displacement: nothing tells motions in a flat area apart


class TimedPairs(NamedTuple):
    """Two context frames of each episode that has times, those nearest to the query's.

    Attributes:
        rows: the episodes.
        early, late: the packed indices of their frames.
        early_at, late_at: when these were seen, relative to the query.
    """

    rows: Int[Tensor, " n"]
    early: Int[Tensor, " n"]
    late: Int[Tensor, " n"]
    early_at: Float[Tensor, " n"]
    late_at: Float[Tensor, " n"]


def timed_pairs(batch: Batch) -> TimedPairs:
    """The pairs of a batch; episodes without two frames of different times have none."""
    f = len(batch.images)
    frames = torch.where(batch.slots[:, :-1] < f, batch.slots[:, :-1], f)  # b n
    time = F.pad(batch.context.time, (0, 1))[frames]
    timed = F.pad(batch.context.has_time, (0, 1))[frames]
    rows = (timed.sum(1) > 1).nonzero()[:, 0]
    frames, time = frames[rows], time[rows]
    if not len(rows):
        return TimedPairs(rows, rows, rows, time.new_zeros(0), time.new_zeros(0))
    apart = torch.where(timed[rows], time.abs(), torch.inf)
    nearest = apart.topk(2, dim=1, largest=False).indices
    ends = nearest.gather(1, time.gather(1, nearest).argsort(1))  # early, late
    early, late = frames.gather(1, ends).unbind(1)
    early_at, late_at = time.gather(1, ends).unbind(1)
    moves = early_at < late_at
    return TimedPairs(*(part[moves] for part in (rows, early, late, early_at, late_at)))


@torch.no_grad()
def search_motion(
    early: Shaped[Tensor, "n 3 h w"],
    late: Shaped[Tensor, "n 3 h w"],
    early_at: Float[Tensor, " n"],
    late_at: Float[Tensor, " n"],
) -> Float[Tensor, "n 2 h w"]:
    """Pixels to the right and down that each point, as seen at time 0, moves between two frames.

    Finds up to 3/16 of the short side.

    Args:
        early, late: 0-255.
        early_at, late_at: their times, relative to the query's.
    """
    size = early.shape[2:]
    cell = max(1, min(size) // _CELLS)
    rows, columns = (side // cell for side in size)
    early, late = (F.interpolate(image.float(), (rows, columns), mode="area") for image in (early, late))
    line = torch.arange(-2 * _REACH, 2 * _REACH + 1, device=early.device) / 2
    rows_seen = displaced(early, late, early_at, late_at, line)
    difference = torch.cat([(one - other).abs().mean(2) for one, other in rows_seen], 1)
    still = _STILL * _displacements(line).norm(dim=1)[:, None, None]
    motion = mean_displacement(-averaged(difference, _WINDOW) / _GREYS - still, line) * cell
    return F.interpolate(motion, size, mode="bilinear", align_corners=False)


def displaced(
    early: Float[Tensor, "n c h w"],
    late: Float[Tensor, "n c h w"],
    early_at: Float[Tensor, " n"],
    late_at: Float[Tensor, " n"],
    line: Float[Tensor, " k"],
) -> Iterator[tuple[Float[Tensor, "n k c h w"], Float[Tensor, "n k c h w"]]]:
    """What each of two frames shows of every point, if the point moves between them by so much.

    A displacement is the same for all of a frame, so that bilinear sampling, replicated beyond the edges, is
    a product with a matrix for its columns and one for its rows: several times as fast as sampling points.

    Args:
        line: the displacements to the right, pixels; and those down.

    Yields:
        Both frames for one displacement down and all to the right.
    """
    seen = []
    for image, shift in zip((early, late), _shifts(line, early_at, late_at), strict=True):
        columns, rows = (_shifting(shift, size) for size in (image.shape[3], image.shape[2]))
        moved = _product(image.flatten(1, 2)[:, None], columns.mT)
        seen.append((moved.unflatten(2, image.shape[1:3]), rows))
    (early, early_rows), (late, late_rows) = seen
    for down in range(len(line)):
        yield (
            _product(early_rows[:, down, None, None], early),
            _product(late_rows[:, down, None, None], late),
        )


def correlated(
    early: Float[Tensor, "n c h w"],
    late: Float[Tensor, "n c h w"],
    early_at: Float[Tensor, " n"],
    late_at: Float[Tensor, " n"],
    line: Float[Tensor, " k"],
) -> Float[Tensor, "n d h w"]:
    """The products of both frames of `displaced`, summed over the channels, of all displacements: d = k * k.

    Sampling is linear in each frame, so that it may come after the product: of all points of one frame with
    all of the other, of which pairs of rows and pairs of columns are then weighed. With many channels that
    is less to compute, and a small part of what the displaced frames would hold for the backward pass.
    """
    n, (h, w), k = len(early), early.shape[2:], len(line)
    pairs = _product(early.flatten(2).mT, late.flatten(2)).view(n, h, w, h, w)
    pairs = pairs.transpose(2, 3).reshape(n, h * h, w * w)
    early_shift, late_shift = _shifts(line, early_at, late_at)
    rows, columns = (
        (_shifting(early_shift, size)[..., :, None] * _shifting(late_shift, size)[..., None, :]).view(
            n, k * size, size * size
        )
        for size in (h, w)
    )
    alike = _product(rows, _product(pairs, columns.mT)).view(n, k, h, k, w)
    return alike.transpose(2, 3).flatten(1, 2)


def averaged(maps: Float[Tensor, "n k h w"], window: int) -> Float[Tensor, "n k h w"]:
    """Each point's mean over the square of this odd side around it, as far as it lies in the map."""
    if window == 1:
        return maps

    def averaging(size: int) -> Tensor:
        near = torch.ones(size, size, dtype=maps.dtype, device=maps.device)
        near = near.tril(window // 2).triu(-(window // 2))
        return near / near.sum(1, keepdim=True)

    return _product(averaging(maps.shape[2]), _product(maps, averaging(maps.shape[3]).mT))


def mean_displacement(score: Float[Tensor, "n d h w"], line: Float[Tensor, " k"]) -> Float[Tensor, "n 2 h w"]:
    """The mean displacement (right, down) by a score's softmax, of all that `displaced` makes of a line."""
    return _product(score.softmax(1).movedim(1, 3), _displacements(line)).movedim(3, 1)


def _displacements(line: Float[Tensor, " k"]) -> Float[Tensor, "d 2"]:
    return torch.stack([line.repeat(len(line)), line.repeat_interleave(len(line))], 1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product in the precision of its factors, also in mixed precision."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def _shifts(
    line: Float[Tensor, " k"], early_at: Float[Tensor, " n"], late_at: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """How far points are from their places at time 0 in the early and in the late frame, if they move so."""
    span = late_at - early_at
    return line * (early_at / span)[:, None], line * (late_at / span)[:, None]


def _shifting(shift: Float[Tensor, "n k"], size: int) -> Float[Tensor, "n k size size"]:
    """Matrices that sample a line of pixels linearly at each pixel plus a shift, replicated beyond its ends.

    >>> _shifting(torch.tensor([[0.5]]), 3) @ torch.tensor([1.0, 2.0, 4.0])
    tensor([[[1.5000, 3.0000, 4.0000]]])
    """
    pixel = torch.arange(size, device=shift.device, dtype=shift.dtype)
    at = (pixel + shift[..., None]).clamp(0, size - 1)
    return (1 - (at[..., None] - pixel).abs()).clamp(min=0)


@torch.no_grad()
def follow_motion(
    early: Shaped[Tensor, "n 3 h w"],
    late: Shaped[Tensor, "n 3 h w"],
    early_at: Float[Tensor, " n"],
    late_at: Float[Tensor, " n"],
    motion: Float[Tensor, "n 2 h w"],
) -> Float[Tensor, "n 3 h w"]:
    """The frame at time 0 that the motion leads to: both frames moved, the nearer in time weighing more."""
    span = (late_at - early_at)[:, None, None, None]
    from_early, from_late = (
        warp(image.float(), motion * at[:, None, None, None] / span, image.shape[2])
        for image, at in ((early, early_at), (late, late_at))
    )
    share = early_at.abs() / (early_at.abs() + late_at.abs()).clamp(min=1e-6)
    return torch.lerp(from_early, from_late, share[:, None, None, None])


def warp(image: Tensor, shift: Float[Tensor, "n 2 m w"], height: int) -> Tensor:
    """The image at each pixel plus a shift, n x c x m x w, bilinear, replicated beyond its edges.

    Args:
        image: n x c x height x w.
        shift: in pixels to the right and down; m is a multiple of the height, whose rows repeat.

    >>> warp(torch.tensor([[[[1.0, 2.0, 4.0]]]]), torch.tensor([[[[0.5] * 3], [[0.0] * 3]]]), 1)
    tensor([[[[1.5000, 3.0000, 4.0000]]]])
    """
    rows, width = shift.shape[2:]
    x = torch.arange(width, device=image.device) + 0.5 + shift[:, 0]
    y = (torch.arange(rows, device=image.device) % height)[:, None] + 0.5 + shift[:, 1]
    grid = torch.stack([x / width, y / height], -1) * 2 - 1
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
