"""The optimiser, the schedule of its learning rate, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.optim import Muon
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from transframer.training.config import TrainConfig

WHOLE_RUN = (0.0, 1.0)


def decays(name: str, parameter: nn.Parameter, owner: nn.Module) -> bool:
    """Whether weight decay applies: to matrices, and not to norms, biases, gains and embeddings.

    Args:
        name: the parameter's full name.
        owner: the module that holds it.
    """
    is_matrix = sum(size > 1 for size in parameter.shape) >= 2  # a gain may have the shape c x 1 x 1 x 1
    return is_matrix and not isinstance(owner, nn.Embedding) and "embed" not in name


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101), fused into one kernel per step; or Muon.

    Muon (https://kellerjordan.github.io/posts/muon) makes the update of a matrix, or of a convolution's
    outputs by all that they read, nearly orthogonal, so that no few directions rule it. Its updates are as
    large as those of AdamW (arXiv 2502.16982), which keeps what has no weight decay.

    A module's attribute `lr_scale` multiplies the learning rate of the parameters that it holds itself, and
    its attribute `lr_span` says from when to when they learn, as shares of the run.
    """
    groups: dict[tuple[bool, float, tuple[float, float]], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            owner = model.get_submodule(name.rpartition(".")[0])
            scale, span = getattr(owner, "lr_scale", 1.0), getattr(owner, "lr_span", WHOLE_RUN)
            key = decays(name, parameter, owner), float(scale), span
            groups.setdefault(key, []).append(parameter)
    settings = [
        {
            "params": members,
            "weight_decay": config.weight_decay * decay,
            "lr_scale": scale,
            "lr_span": span,
            "use_fallback": not decay,  # read by Muon alone
        }
        for (decay, scale, span), members in groups.items()
    ]
    rate, betas = config.peak_learning_rate, (0.9, 0.98)
    if config.optimizer == "muon":
        return Muon(settings, lr=rate, betas=betas, nesterov=True)
    return torch.optim.AdamW(settings, lr=rate, betas=betas, fused=True)


def size_line(model: nn.Module) -> str:
    """How many parameters there are, and how many of them learn where not all do.

    >>> size_line(nn.Linear(1000, 1000, bias=False))
    '1.00 M parameters'
    """
    weights = list(model.parameters())
    parameters = sum(weight.numel() for weight in weights)
    learned = sum(weight.numel() for weight in weights if weight.requires_grad)
    share = f", of which {learned / 1e6:.2f} M are learned" if learned < parameters else ""
    return f"{parameters / 1e6:.2f} M parameters{share}"


def progress(config: TrainConfig, step: int, elapsed_s: float) -> float:
    """How much of the run is over, 0 to 1: the greater of the fractions of its steps and of its time."""
    of_steps = step / config.steps if config.steps else 0.0
    of_time = elapsed_s / (60 * config.minutes) if config.minutes else 0.0
    return min(1.0, max(of_steps, of_time))


def learning_rate(config: TrainConfig, step: int, elapsed_s: float = 0.0) -> float:
    """Linear warm-up, then linear decay to zero at the end of the run.

    Args:
        step: steps already taken.
        elapsed_s: seconds already trained; of no effect where only the steps are limited.

    >>> config = TrainConfig(steps=1000, learning_rate=1.0, warmup_steps=100)
    >>> [round(learning_rate(config, step), 3) for step in (0, 99, 500, 1000)]
    [0.01, 0.901, 0.5, 0.0]
    """
    warmup = config.warmup_steps if config.steps is None else min(config.warmup_steps, config.steps // 5)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return config.peak_learning_rate * rise * (1.0 - progress(config, step, elapsed_s))


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, elapsed_s: float
) -> None:
    """Sets the rate of every parameter group: `learning_rate`, times the group's own scale; where the group
    learns for a part of the run only, it rises and falls within that."""
    part = progress(config, step, elapsed_s)
    for group in optimizer.param_groups:
        span = tuple(group.get("lr_span", WHOLE_RUN))  # checkpoints from before there were spans have none
        if span == WHOLE_RUN:
            rate = learning_rate(config, step, elapsed_s)
        else:
            rate = config.peak_learning_rate * _within(part, *span)
        group["lr"] = rate * group["lr_scale"]


def _within(part: float, start: float, end: float) -> float:
    """Warm-up over a twentieth of a span of the run, then linear decay to its end; 0 outside."""
    if not start <= part < end:
        return 0.0
    done = (part - start) / (end - start)
    return min(1.0, 20 * done) * (1.0 - done)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows its weights: the n-th update keeps min(decay, (1 + n) / (10 + n)).

    The rising decay is that of tf.train.ExponentialMovingAverage: it forgets the first weights of a short
    run. Read the averaged model off `.module`; buffers are copied.
    """

    def update(averages: Sequence[Tensor], currents: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        keep = min(decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(averages), list(currents), 1.0 - keep)

    average = AveragedModel(model, multi_avg_fn=update)  # type: ignore[arg-type]
    average.requires_grad_(False)
    return average.eval()
