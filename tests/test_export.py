"""carousel export: files of every format, what is said of them, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from carousel import LSTM, cli, modelfile
from carousel.config import ModelConfig, StackConfig
from carousel.export import FORMATS, onnx_feeds
from carousel.model import members_from
from command_line import Result, later, model_bytes, shops
from onnx_cases import run
from stream_cases import plain_input, tagger, write


@pytest.fixture
def call(capsys):
    def made(*arguments: object) -> Result:
        capsys.readouterr()
        status = cli.run([str(a) for a in arguments])
        return Result(status, *capsys.readouterr())

    return made


def model(folder: Path, *, seeds: int = 1, **stack: Any) -> Path:
    head = tagger().head
    return write(ModelConfig("tag", plain_input(), StackConfig(6, **stack), head, seeds), folder)


def stack_of(path: Path, member: int = 0) -> LSTM:
    weights, document = modelfile.read(path)
    return members_from(ModelConfig.from_json(document["model"]), weights)[member].stack


def test_onnx_of_a_fitted_forecaster_gives_what_predict_gives(call, tmp_path: Path) -> None:
    path, out = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    path.write_bytes(model_bytes())
    made = call("export", path, "--to", "onnx", "--out", out)
    assert made.status == 0
    assert made.out.startswith(f"wrote {out}\nopset 22, ")
    onnx.checker.check_model(onnx.load(out), full_check=True)
    shops().write_csv(tmp_path / "shops.csv")
    later().write_csv(tmp_path / "later.csv")
    done = call("predict", path, tmp_path / "shops.csv", "--future", tmp_path / "later.csv", "--json")
    expected = [json.loads(line)["forecast"] for line in done.out.splitlines()]
    fed = onnx_feeds.feeds(path, shops(), later())
    np.testing.assert_allclose(run(out.read_bytes(), fed)["forecast"].reshape(-1), expected, rtol=1e-6)


@pytest.mark.parametrize("choices", [{}, {"num_layers": 2, "bidirectional": True}])
def test_torch_loads_its_file(choices: dict[str, Any], call, tmp_path: Path) -> None:
    path, out = model(tmp_path, **choices), tmp_path / "lstm.safetensors"
    made = call("export", path, "--to", "torch", "--out", out, "--json")
    said = json.loads(made.out)
    theirs = torch.nn.LSTM(**said["lstm"])
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in load_file(out).items()})
    x = torch.randn(7, 3, 3)
    torch.testing.assert_close(theirs.eval()(x)[0], stack_of(path)(x)[0], rtol=1e-6, atol=1e-6)
    assert "the LSTM alone" in said["notes"][1]


def test_keras_and_flax_read_their_files(call, tmp_path: Path) -> None:
    path = model(tmp_path, num_layers=2, bidirectional=True)
    x = torch.randn(7, 3, 3)
    expected = stack_of(path)(x)[0]
    assert call("export", path, "--to", "keras", "--out", tmp_path / "k.npz").status == 0
    with np.load(tmp_path / "k.npz", allow_pickle=False) as arrays:
        names = [f"{w}/{k}" for w in ("forward", "backward") for k in ("kernel", "recurrent_kernel", "bias")]
        layers = [[arrays[f"layer_{n}/{name}"] for name in names] for n in (0, 1)]
    torch.testing.assert_close(LSTM.from_keras(layers).eval()(x.transpose(0, 1))[0].transpose(0, 1), expected)
    assert call("export", path, "--to", "flax", "--out", tmp_path / "f.safetensors").status == 0
    tree: dict[str, Any] = {}
    for name, value in load_file(tmp_path / "f.safetensors").items():
        *parts, last = name.split("/")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    found = LSTM.from_flax([tree["layer_0"], tree["layer_1"]]).eval()(x.transpose(0, 1))[0]
    torch.testing.assert_close(found.transpose(0, 1), expected)


def test_a_member_of_an_ensemble_is_chosen(call, tmp_path: Path) -> None:
    path, out = model(tmp_path, seeds=3), tmp_path / "lstm.safetensors"
    for member in (0, 2):
        assert call("export", path, "--to", "torch", "--out", out, "--member", member).status == 0
        expected = stack_of(path, member).weight_hh_l0.detach().numpy()
        np.testing.assert_array_equal(load_file(out)["weight_hh_l0"], expected)


REFUSED = {
    "unknown format": (["--to", "tflite", "--out", "m.x"], "'tflite' is no format; choose onnx, torch, keras, flax"),
    "suffix": (
        ["--to", "onnx", "--out", "m.bin"],
        "m.bin: the suffix must be .onnx for --to onnx; name the output so.",
    ),
    "folder": (["--to", "onnx", "--out", "no/m.onnx"], "no/m.onnx: there is no folder no; make it first."),
    "choice": (
        ["--to", "onnx", "--out", "m.onnx", "--member", "0"],
        "--member is no choice of --to onnx; leave it out",
    ),
    "which member": (
        ["--to", "torch", "--out", "m.safetensors"],
        "it is an ensemble of 2 members, of which this format",
    ),
    "no member": (
        ["--to", "torch", "--out", "m.safetensors", "--member", "2"],
        "it has no member 2; choose one of 0 to 1",
    ),
    "variant": (
        ["--to", "keras", "--out", "m.npz", "--member", "0"],
        "peephole has no equal in Keras' LSTM: its gates do not",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_use_is_status_2_in_one_sentence(case: str, call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options, message = REFUSED[case]
    path = write(tagger(), tmp_path) if case == "variant" else model(tmp_path, seeds=2)
    made = call("export", path, *options)
    assert (made.status, made.out) == (2, "")
    assert message in made.err
    assert len(made.err.splitlines()) == 1
    assert [one for one in tmp_path.iterdir() if one != path] == []


def test_without_onnx_the_extra_is_named(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    made = call("export", model(tmp_path), "--to", "onnx", "--out", tmp_path / "m.onnx")
    assert made.status == 2
    assert "ONNX export needs onnx, which is not installed: pip install 'carousel-lstm[export]'." in made.err


def test_every_format_has_a_writer() -> None:
    assert list(FORMATS)[:4] == ["onnx", "torch", "keras", "flax"]
    for form in FORMATS.values():
        assert callable(__import__(form.module, fromlist=["write"]).write)
