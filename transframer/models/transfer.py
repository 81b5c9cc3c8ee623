"""A trained model as the start of another: with more tasks and kinds, or low-rank changes of its weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from transframer.errors import ConfigError
from transframer.models.transframer import Transframer
from transframer.predictor import FramePredictor


@torch.no_grad()
def extended(
    model: Transframer,
    tasks: Iterable[str],
    kinds: Iterable[str],
    anew: Iterable[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> Transframer:
    """A copy that also knows these tasks and annotation kinds; what it says of the old ones stays as it is.

    New names come after the old ones, so that every old name keeps its row in the embedding tables.

    Args:
        anew: tasks that it knows but is to learn with other labels. Their rows become the mean of the other
            tasks' rows, or those of random weights where it knows no other: what it is certain of now would
            have to be unlearned.
        changes: other settings of the copy, which keeps all the weights; a part that the model lacks, such
            as a sketch, begins with random ones.

    Raises:
        ConfigError: changes under which its weights do not fit.
    """
    config = dataclasses.replace(
        model.config,
        tasks=tuple(dict.fromkeys((*model.config.tasks, *tasks))),
        kinds=tuple(dict.fromkeys((*model.config.kinds, *kinds))),
        **(changes or {}),
    )
    larger = Transframer(config)
    random = [table.weight.clone() for table in larger.task_tables()]
    own = larger.state_dict()
    tables = {table.weight.data_ptr() for table in (*larger.task_tables(), larger.encoder.annotations.kind)}
    for name, value in model.state_dict().items():
        if name in own and own[name].shape == value.shape:
            own[name].copy_(value)
        elif name in own and own[name].data_ptr() in tables:  # for more names, or for one more hint
            own[name][: value.shape[0], : value.shape[1]].copy_(value)
        else:
            raise ConfigError(
                f"{dict(changes or {})} for a model to start from that has {name} of {tuple(value.shape)}",
                field="model_settings",
                expected="changes that keep all its weights, such as another sketch_weight or chunk_events",
                next_step="train from random weights, or leave the model as it is",
            )
    known, again = model.config.tasks, set(anew)
    others = [row for row, name in enumerate(known) if name not in again]
    for table, start in zip(larger.task_tables(), random, strict=True):
        for row, name in enumerate(known):
            if name in again:
                table.weight[row] = table.weight[others].mean(0) if others else start[row]
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
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "lora_A")]
    for layer in layers:  # its change learns at its own rate
        scale = getattr(layer.get_base_layer(), "lr_scale", 1.0)
        for change in (*layer.lora_A.children(), *layer.lora_B.children()):
            change.lr_scale = scale


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
