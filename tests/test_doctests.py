"""The examples in the docstrings of every module hold."""

import doctest
import importlib
import pkgutil

import pytest

import transframer

MODULES = [
    info.name
    for info in pkgutil.walk_packages(transframer.__path__, "transframer.")
    if not info.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["transframer.codec.tokens", "transframer.errors"])
def test_examples_are_found_at_all(name):
    assert doctest.testmod(importlib.import_module(name)).attempted > 0
