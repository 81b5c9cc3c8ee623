"""The kinds of predictors by name: their presets, their learning rates, and where their class is. Imports no
torch, so that the command line can list them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transframer.errors import ConfigError, unknown_name
from transframer.models import presets, spatial_temporal_config

if TYPE_CHECKING:
    from transframer.predictor import FramePredictor


@dataclass(frozen=True)
class Model:
    """A kind of predictor.

    Attributes:
        target: its class, "module:Class"; built from one of its presets.
        presets: settings by name.
        learning_rates: the peak learning rate of each preset.
    """

    target: str
    presets: Mapping[str, Any]
    learning_rates: Mapping[str, float]

    def preset(self, name: str) -> Any:
        """The settings of a preset.

        Raises:
            UnknownNameError: lists the known presets and the nearest.
        """
        if name not in self.presets:
            raise unknown_name("preset", name, self.presets)
        return self.presets[name]

    def settings(self, preset: str, changes: Mapping[str, Any]) -> Any:
        """The settings of a preset with changes to them; lists count as tuples, as in YAML and JSON.

        Raises:
            UnknownNameError: a setting that the model does not have.
            ConfigError: a value that it cannot have.
        """
        base = self.preset(preset)
        known = [field.name for field in dataclasses.fields(base)]
        for name in changes:
            if name not in known:
                raise unknown_name("setting of the model", name, known)
        values = with_tuples(changes)
        for name, value in values.items():
            default = getattr(base, name)
            number = isinstance(default, float) and type(value) is int
            if not number and type(value) is not type(default):
                raise ConfigError(repr(value), field=name, expected=f"a value like {default!r}")
        return dataclasses.replace(base, **values)

    @property
    def predictor_class(self) -> type[FramePredictor]:
        """Imports the class."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)

    def build(
        self, preset: str, changes: Mapping[str, Any], tasks: Sequence[str], kinds: Sequence[str]
    ) -> FramePredictor:
        """A predictor of random weights.

        Args:
            tasks, kinds: the names to embed, for a model that embeds any.
        """
        settings = self.settings(preset, changes)
        names = {"tasks": tuple(tasks), "kinds": tuple(kinds)}
        known = {field.name for field in dataclasses.fields(settings)}
        settings = dataclasses.replace(settings, **{k: v for k, v in names.items() if k in known})
        return self.predictor_class(settings)


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tuples: JSON and YAML have no others."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


DEFAULT_MODEL = "transframer"  # what settings that name no model are of

MODELS: dict[str, Model] = {
    "transframer": Model(
        "transframer.models.transframer:Transframer", presets.PRESETS, presets.LEARNING_RATES
    ),
    "spatial-temporal": Model(
        "transframer.models.spatial_temporal:SpatialTemporal",
        spatial_temporal_config.PRESETS,
        spatial_temporal_config.LEARNING_RATES,
    ),
}


def get_model(name: str) -> Model:
    """A kind of predictor by name.

    Raises:
        UnknownNameError: lists the known ones and the nearest.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def model_of(predictor: FramePredictor) -> str:
    """The name of a predictor's kind, as its settings have it."""
    return getattr(getattr(predictor, "config", None), "model", DEFAULT_MODEL)
