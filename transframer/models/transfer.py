"""A trained model as the start of another: with more tasks and kinds, or low-rank changes of its weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable

import torch
from torch import nn

from transframer.errors import ConfigError
from transframer.models.transframer import Transframer
from transframer.predictor import FramePredictor


def extended(model: Transframer, tasks: Iterable[str], kinds: Iterable[str]) -> Transframer:
    """A copy that also knows these tasks and annotation kinds; what it says of the old ones stays as it is.

    New names come after the old ones, so that every old name keeps its row in the embedding tables.
    """
    config = dataclasses.replace(
        model.config,
        tasks=tuple(dict.fromkeys((*model.config.tasks, *tasks))),
        kinds=tuple(dict.fromkeys((*model.config.kinds, *kinds))),
    )
    larger = Transframer(config)
    own = larger.state_dict()
    for name, value in model.state_dict().items():
        if own[name].shape == value.shape:
            own[name].copy_(value)
        else:  # a table with more rows
            own[name][: len(value)].copy_(value)
    return larger.train(model.training)


def add_low_rank(model: nn.Module, rank: int) -> None:
    """Freezes a model in place, but for low-rank changes of its linear layers and its embedding tables.

    By the library peft: LoRA (Hu et al., arXiv 2106.09685), scale alpha / rank = 2. Convolutions stay as they
    are, since their weights are standardised before use and a change could not be merged into them.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            "peft is not installed", field="lora_rank", next_step="pip install 'transframer[lora]'"
        ) from error
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear), model)
    for table in tables:
        table.requires_grad_(True)


@torch.no_grad()
def merged(predictor: FramePredictor) -> FramePredictor:
    """The predictor with its low-rank changes, if it has any, added to the weights of a copy."""
    if not any(hasattr(module, "lora_A") for module in predictor.modules()):
        return predictor
    plain = copy.deepcopy(predictor)
    for name, module in list(plain.named_modules()):
        if hasattr(module, "lora_A"):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(plain.get_submodule(parent), own, module.get_base_layer())
    return plain.requires_grad_(True)
