"""What every predictor does alike with its settings and its saved weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, TypeVar

from huggingface_hub import PyTorchModelHubMixin

from transframer.models.catalog import with_tuples
from transframer.weights import located

Config = TypeVar("Config")


class Pretrained(PyTorchModelHubMixin):
    """Saved and read with its settings, by the Hugging Face hub's library."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Weights that come with the package by name ("generalist"), a folder, or an id on the Hugging Face
        hub."""
        return super().from_pretrained(located(pretrained_model_name_or_path), **kwargs)

    @classmethod
    def _from_pretrained(cls, **kwargs):
        with redirect_stdout(StringIO()):  # the library prints where it loads from
            return super()._from_pretrained(**kwargs)


def settings_of(kind: type[Config], given: Config | Mapping[str, Any]) -> Config:
    """Settings as they are, or made of what `config.json` holds."""
    if isinstance(given, kind):
        return given
    assert isinstance(given, Mapping)
    return kind(**with_tuples(given))
