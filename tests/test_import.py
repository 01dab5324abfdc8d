"""What `import carousel` brings in, and that its public names are there."""

from __future__ import annotations

import importlib.resources
import subprocess
import sys

import pytest

import carousel


def in_a_process_of_its_own(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_brings_in_nothing_heavy():
    found = in_a_process_of_its_own(
        "import sys; before = set(sys.modules); import carousel; print(sorted(set(sys.modules) - before))"
    )
    heavy = ("torch", "pandas", "numpy", "polars", "narwhals", "sklearn", "rich", "typer", "matplotlib", "lightning")
    assert not [name for name in heavy if f"'{name}" in found], found


@pytest.mark.parametrize(
    "module",
    ["modelfile", "config", "inputs.table", "inputs.windows", "heads.forecast", "evaluate", "export"]
    + [f"export.{name}" for name in ("onnx", "onnx_forecast", "onnx_detect", "onnx_feeds", "torch", "keras", "flax")],
)
def test_the_deployment_wing_does_without_torch(module):
    assert in_a_process_of_its_own(f"import sys, carousel.{module}; print('torch' in sys.modules)") == "False"


def test_every_public_name_is_there_and_listed():
    for name in carousel.__all__:
        assert getattr(carousel, name) is not None
        assert name in dir(carousel)
    assert carousel.Forecaster.__module__ == "carousel.estimators"
    assert issubclass(carousel.DataError, carousel.CarouselError)
    with pytest.raises(AttributeError, match="module 'carousel' has no attribute 'Forcaster'"):
        _ = carousel.Forcaster


def test_a_name_whose_dependency_is_missing_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import carousel\n"
        "try:\n    carousel.LSTM\n"
        "except carousel.MissingExtra as error:\n    print(error)"
    )
    assert in_a_process_of_its_own(code) == (
        "carousel.LSTM needs torch, which is not installed: pip install 'carousel-lstm[train]'."
    )


def test_the_package_says_that_it_is_typed():
    assert importlib.resources.files("carousel").joinpath("py.typed").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
@pytest.mark.parametrize("order", ["torch, carousel", "carousel.lstm, torch", "carousel._core, torch"])
def test_one_openmp_runtime_whatever_the_order_of_imports(order):
    code = f"import {order}, carousel._core; from carousel import doctor; print(len(doctor.examine()['openmp']))"
    assert in_a_process_of_its_own(code) == "1"
