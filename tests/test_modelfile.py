"""The model file: what is written is read back bit for bit, and every hostile file is refused by name."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from carousel import modelfile
from carousel.atomic import write_bytes
from carousel.cell import CellSpec
from carousel.config import ModelConfig, StackConfig
from carousel.errors import CarouselError, ModelFileError
from carousel.heads.forecast import ForecastHead
from carousel.inputs.clock import Grid
from carousel.inputs.table import Roles
from carousel.inputs.windows import Column, TableInput


def config() -> ModelConfig:
    table = TableInput(
        roles=Roles("shop", "day", ("sales",), features=("weather",)),
        grid=Grid("even", 86400.0),
        stamps=True,
        context=9,
        horizon=3,
        seasons=(7,),
        level="last",
        calendar=("day_of_week",),
        features=(Column("weather", "category", values=("rain", "snow ❄", "sun")),),
        known=(),
        static=(),
    )
    return ModelConfig("forecast", table, StackConfig(5, 2, 0.1, CellSpec(peephole=True)), ForecastHead(), seeds=2)


def document() -> dict:
    return {"format": 1, "model": config().to_json(), "provenance": {"seed": 3, "carousel": "0.1.0"}}


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in config().shapes().items()}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    modelfile.write(path, weights(), document())
    return path


def take_apart(data: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(header: dict | bytes, payload: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + payload


def with_document(data: bytes, change: Callable[[dict], None]) -> bytes:
    header, payload = take_apart(data)
    found = json.loads(header["__metadata__"]["carousel"])
    change(found)
    header["__metadata__"]["carousel"] = json.dumps(found)
    return put_together(header, payload)


def with_header(data: bytes, change: Callable[[dict], None]) -> bytes:
    header, payload = take_apart(data)
    change(header)
    return put_together(header, payload)


def with_value(data: bytes, value: float) -> bytes:
    header, payload = take_apart(data)
    begin = header["1.stack.weight_hh_l1"]["data_offsets"][0]
    at = begin + 4 * (2 * 5 + 3)
    return put_together(header, payload[:at] + np.float32(value).tobytes() + payload[at + 4 :])


def test_weights_and_document_come_back_bit_for_bit(model):
    found, said = modelfile.read(model)
    assert said == document()
    wanted = weights()
    assert list(found) == list(config().shapes())
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)
        found[name][...] = 0  # writable and owned: nothing is shared with the file


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    other = tmp_path / "other.safetensors"
    modelfile.write(other, dict(reversed(weights().items())), document())
    assert other.read_bytes() == model.read_bytes()


def test_the_safetensors_library_reads_the_same_weights(model):
    with safe_open(model, framework="numpy") as file:
        assert set(file.metadata()) == {"carousel"}
        for name, array in weights().items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


def test_reading_and_writing_need_no_torch(model):
    code = (
        "import sys; from carousel import modelfile; "
        f"w, d = modelfile.read({str(model)!r}); modelfile.write({str(model)!r}, w, d); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def drop(key: str) -> Callable[[dict], None]:
    return lambda found: found.pop(key)


def put(*path: str | int, value: object) -> Callable[[dict], None]:
    def change(found: dict) -> None:
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return change


def twice_in_document(data: bytes) -> bytes:
    header, payload = take_apart(data)
    text = header["__metadata__"]["carousel"]
    header["__metadata__"]["carousel"] = text.replace('"seeds":2', '"seeds":1,"seeds":2')
    return put_together(header, payload)


def twice_in_header(data: bytes) -> bytes:
    header, payload = take_apart(data)
    name = "0.head.out.bias"
    entry = json.dumps(header[name])
    raw = json.dumps(header).encode().replace(b"{", b'{"%s": %s, ' % (name.encode(), entry.encode()), 1)
    return put_together(raw, payload)


def overlapping(data: bytes) -> bytes:
    def change(header: dict) -> None:
        header["0.head.out.bias"]["data_offsets"] = [0, 28]

    return with_header(data, change)


def swap(data: bytes) -> bytes:
    """Weights of one size under each other's names cannot be told apart; of different shapes they can."""

    def change(header: dict) -> None:
        a, b = "0.stack.weight_ih_l0", "0.stack.weight_ih_l1"
        header[a], header[b] = header[b], header[a]

    return with_header(data, change)


WEIGHT = "1.stack.weight_hh_l1"
HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda d: b"", "is empty"),
    "a few bytes": (lambda d: d[:5], "no safetensors header"),
    "cut in the header": (lambda d: d[:100], "is truncated: its header alone needs"),
    "cut in the weights": (lambda d: d[:-7], "is truncated: .* bytes of weights were expected"),
    "with a rest": (lambda d: d + b"\0" * 8, "has a rest that belongs to no weight"),
    "text": (lambda d: b"shop,day,sales\n1,2,3\n", "no safetensors header"),
    "a pickle": (lambda d: pickle.dumps({"weights": [1.0] * 99}), "is a pickle; a safetensors file was expected"),
    "an old pickle": (lambda d: pickle.dumps([1.0] * 99, protocol=2), "is a pickle"),
    "torch.save": (lambda d: b"PK\x03\x04" + bytes(60), "as torch.save writes it"),
    "a huge header": (lambda d: (2**40).to_bytes(8, "little") + d[8:], "at most 16,777,216 are accepted"),
    "header no JSON": (lambda d: put_together(b"{nonsense}", b""), "no readable JSON in the header"),
    "header not UTF-8": (lambda d: put_together(b'{"\xff":1}', b""), "not UTF-8"),
    "header too deep": (lambda d: put_together(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b""), "JSON in the header"),
    "no document": (lambda d: with_header(d, drop("__metadata__")), "no metadata field 'carousel'"),
    "another's metadata": (
        lambda d: with_header(d, put("__metadata__", "format", value="pt")),
        "unknown metadata field 'format'",
    ),
    "document no object": (lambda d: with_header(d, put("__metadata__", "carousel", value="[1]")), "has a list as the"),
    "document with NaN": (
        lambda d: with_document(d, put("provenance", "seed", value=float("nan"))),
        "has NaN as a number in the document",
    ),
    "document with 1e999": (
        lambda d: with_header(d, put("__metadata__", "carousel", value='{"format": 1e999}')),
        "has 1e999 as a number in the document",
    ),
    "newer": (lambda d: with_document(d, put("format", value=2)), "is of format 2, this version reads format 1: upgr"),
    "format true": (lambda d: with_document(d, put("format", value=True)), "has True as field 'format'; 1 was"),
    "no format": (lambda d: with_document(d, drop("format")), "has None as field 'format'; 1 was expected"),
    "no model": (lambda d: with_document(d, drop("model")), "has no field 'model'"),
    "model no object": (lambda d: with_document(d, put("model", value=3)), "has a int as field 'model'"),
    "unknown field": (lambda d: with_document(d, put("extra", value=3)), "unknown field 'extra'; format, model, prov"),
    "unknown model field": (
        lambda d: with_document(d, put("model", "stack", "attention", value=3)),
        r"model\.stack\.attention",
    ),
    "missing model field": (lambda d: with_document(d, lambda f: f["model"]["head"].pop("width")), r"model\.head\.wid"),
    "wrong type": (lambda d: with_document(d, put("model", "stack", "hidden_size", value="5")), r"hidden_size"),
    "wrong size": (
        lambda d: with_document(d, put("model", "stack", "hidden_size", value=6)),
        "with shape .*; .* was expected",
    ),
    "a million layers": (
        lambda d: with_document(d, put("model", "seeds", value=10**12)),
        "at most 10,000 are accepted",
    ),
    "fields twice in the document": (twice_in_document, "the field 'seeds' twice in the document"),
    "fields twice in the header": (twice_in_header, "the field '0.head.out.bias' twice in the header"),
    "a weight missing": (lambda d: with_header(d, drop(WEIGHT)), f"lacks weight '{WEIGHT}'"),
    "a weight too many": (
        lambda d: with_header(d, put("x", value={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})),
        "has weight 'x', which its config does not know",
    ),
    "another dtype": (lambda d: with_header(d, put(WEIGHT, "dtype", value="F16")), "'F16'; F32 was expected"),
    "another shape": (lambda d: with_header(d, put(WEIGHT, "shape", value=[5, 20])), r"\[5, 20\]; \[20, 5\] was exp"),
    "negative shape": (lambda d: with_header(d, put(WEIGHT, "shape", value=[-20, -5])), r"\[20, 5\] was expected"),
    "swapped names": (swap, "with shape"),
    "offsets of no list": (lambda d: with_header(d, put(WEIGHT, "data_offsets", value=7)), "at 7; 400 bytes"),
    "offsets past the end": (
        lambda d: with_header(d, put(WEIGHT, "data_offsets", value=[10**9, 10**9 + 400])),
        "at byte .*; byte .* was expected|is truncated",
    ),
    "overlapping weights": (overlapping, "byte .* was expected"),
    "an entry with more": (lambda d: with_header(d, put(WEIGHT, "code", value="x")), "otherwise than by dtype"),
    "NaN weights": (lambda d: with_value(d, float("nan")), rf"nan in weight '{WEIGHT}' at \[2, 3\]; finite"),
    "infinite weights": (lambda d: with_value(d, float("-inf")), rf"-inf in weight '{WEIGHT}' at \[2, 3\]; finite"),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_hostile_files_are_refused_in_one_sentence_that_names_the_file(case, model):
    change, expected = HOSTILE[case]
    model.write_bytes(change(model.read_bytes()))
    with pytest.raises(ModelFileError, match=expected) as caught:
        modelfile.read(model)
    message = str(caught.value)
    assert message.startswith(str(model) + ": ")
    assert "\n" not in message
    assert message.endswith(".")


def test_every_cut_of_a_file_is_refused(model):
    data = model.read_bytes()
    for size in {*range(40), *range(0, len(data), 97), len(data) - 1}:
        model.write_bytes(data[:size])
        with pytest.raises(ModelFileError):
            modelfile.read(model)


def test_random_damage_never_passes_unseen_except_in_the_numbers(model):
    """A flipped byte in the header is refused or changes nothing; anything else than ModelFileError is a fault."""
    data = model.read_bytes()
    wanted = weights()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for at in rng.integers(0, header, 300):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        model.write_bytes(damaged)
        try:
            found, said = modelfile.read(model)
        except ModelFileError:
            continue
        assert said["format"] == 1
        assert set(found) == set(ModelConfig.from_json(said["model"]).shapes())
        assert all(found[k].size == wanted[k].size for k in found if k in wanted)


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="there is no such model file"):
        modelfile.read(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="is no regular file"):
        modelfile.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="is no regular file"):
        modelfile.read(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w, d: w.pop(WEIGHT), "lacks weight"),
        (lambda w, d: w.update(x=np.zeros(3, np.float32)), "has weight 'x'"),
        (lambda w, d: w.update({WEIGHT: w[WEIGHT].astype(np.float64)}), "as float64; float32 was expected"),
        (lambda w, d: w.update({WEIGHT: w[WEIGHT].T.copy()}), "with shape"),
        (lambda w, d: w[WEIGHT].__setitem__((1, 2), np.nan), r"nan in weight .* at \[1, 2\]"),
        (lambda w, d: d.update(format=2), "is of format 2"),
        (lambda w, d: d["provenance"].update(when=np.float32(1)), "not plain JSON"),
        (lambda w, d: d["provenance"].update(mase=float("nan")), "not plain JSON"),
    ],
)
def test_what_the_reader_would_refuse_is_not_written(change, expected, tmp_path):
    w, d = weights(), copy.deepcopy(document())
    change(w, d)
    with pytest.raises(ModelFileError, match=expected):
        modelfile.write(tmp_path / "m.safetensors", w, d)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["fsync", "write"])
def test_a_full_disk_leaves_the_previous_file_and_nothing_else(model, monkeypatch, name):
    before = model.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if name == "fsync":
        monkeypatch.setattr("carousel.atomic.os.fsync", full)
    else:
        real = os.fdopen
        monkeypatch.setattr("carousel.atomic.os.fdopen", lambda *a, **k: _failing(real(*a, **k), full))
    with pytest.raises(CarouselError, match=r"No space left on device.*unchanged"):
        modelfile.write(model, weights(), document() | {"provenance": {"seed": 4}})
    assert model.read_bytes() == before
    assert [p.name for p in model.parent.iterdir()] == [model.name]


class _failing:
    """A file whose write fails half-way, as on a full disk."""

    def __init__(self, file, fail) -> None:
        self.file, self.fail = file, fail

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.fail()


def test_a_limit_on_the_size_of_files_leaves_the_previous_file(model):
    """The kernel itself refuses the bytes here, in a process of its own."""
    before = model.read_bytes()
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_modelfile import document, weights
from carousel import modelfile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    modelfile.write({str(model)!r}, weights(), document())
except modelfile.ModelFileError:
    sys.exit("refused for another reason")
except ValueError as error:
    assert "File too large" in str(error), error
else:
    sys.exit("nothing was raised")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert model.read_bytes() == before
    assert [p.name for p in model.parent.iterdir()] == [model.name]


def test_an_interrupt_while_writing_leaves_no_temporary_file(model, monkeypatch):
    before = model.read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("carousel.atomic.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        modelfile.write(model, weights(), document())
    assert model.read_bytes() == before
    assert [p.name for p in model.parent.iterdir()] == [model.name]


def test_writes_keep_modes_follow_links_and_refuse_folders(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    write_bytes(real, b"one")
    real.chmod(0o640)
    link.symlink_to(real)
    write_bytes(link, b"two")
    assert link.is_symlink()
    assert real.read_bytes() == b"two"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    with pytest.raises(CarouselError, match="it is a folder"):
        write_bytes(tmp_path, b"x")
    with pytest.raises(CarouselError, match=r"No such file or directory.*name another place"):
        write_bytes(tmp_path / "no" / "where", b"x")
    with pytest.raises(CarouselError, match="cannot be written"):
        write_bytes(tmp_path / ("long" * 100), b"x")
