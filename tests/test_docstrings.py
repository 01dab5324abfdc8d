"""The examples in docstrings are executed, and every public name of the layer has a docstring."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import carousel

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(carousel.__path__, "carousel.") if not module.name.endswith("_core")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell", "Ragged", "CellSpec"])
def test_public_classes_show_an_executed_example(name: str):
    found = doctest.DocTestFinder(recurse=False).find(getattr(carousel, name))
    assert any(test.examples for test in found)
