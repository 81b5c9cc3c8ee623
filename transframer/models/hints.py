"""Two pictures that the context gives of every target: what it looks like, and how it moves.

The model reads their coefficients beside those of the target, and the draft weighs them coefficient by
coefficient: what a task needs of them is learnt in few steps, since it needs no features first.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transframer.models.batch import Batch
from transframer.models.motion import follow_motion, search_motion, timed_pairs

N_HINTS = 2
_NEARNESS = 4.0  # a frame further by 1 radian, or one unit of time, weighs exp(-4)
_RADIAN_M = 5.0  # the move that makes a view as unlike the query as a turn by a radian
_GREYS_PER_PX = 4.0
_RGB_FROM_MOTION = torch.tensor([[1.402, 0.0], [-0.714136, -0.344136], [0.0, 1.772]])  # Cr, Cb: right, down


@torch.no_grad()
def hint_images(batch: Batch) -> Float[Tensor, "b 2 3 h w"]:
    """The context as it may look to the query, and its motion as colours, 0-255.

    Where two frames have times, the first is the frame that their motion leads to at the query's time; else
    the average of the context frames, the nearer to the query's camera or time the more. The motion is in Cr
    and Cb of a grey frame, which it is where there is none.
    """
    images = batch.images.float()
    weight = (-_NEARNESS * _distance(batch)).exp() + 1e-6
    total = weight.new_zeros(len(batch)).index_add_(0, batch.episode, weight)
    share = (weight / total[batch.episode])[:, None, None, None]
    look = images.new_zeros(len(batch), *images.shape[1:]).index_add_(0, batch.episode, images * share)
    motion = torch.full_like(look, 128.0)

    pairs = timed_pairs(batch)
    if len(pairs.rows):
        early, late = images[pairs.early], images[pairs.late]
        with torch.autocast(images.device.type, enabled=False):  # bf16 has no grey level exact
            px = search_motion(early, late, pairs.early_at, pairs.late_at)
            look[pairs.rows] = follow_motion(early, late, pairs.early_at, pairs.late_at, px)
            colours = torch.einsum("rc,nchw->nrhw", _RGB_FROM_MOTION.to(px.device), px)
        motion[pairs.rows] += _GREYS_PER_PX * colours
    return torch.stack([look, motion], 1)


def _distance(batch: Batch) -> Float[Tensor, " f"]:
    """How far each context frame is from the query: radians, with moves counted as turns, plus times."""
    context = batch.context
    middle = context.rays.shape[2] // 2, context.rays.shape[3] // 2
    ray, asked = context.rays[:, :, *middle], batch.query.rays[:, :, *middle][batch.episode]
    turn = (ray[:, 3:] * asked[:, 3:]).sum(1).clamp(-1, 1).acos()
    move = (ray[:, :3] - asked[:, :3]).norm(dim=1) / _RADIAN_M
    return (turn + move) * context.has_camera + context.time.abs() * context.has_time
