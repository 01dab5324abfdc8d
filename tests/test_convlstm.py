"""ConvLSTM against an oracle of shifted products in float64, written apart from the code; its backends, and mutants."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import carousel
from carousel import ConvLSTM, Ragged, cli
from carousel.backends import conv
from carousel.bench.conv import Usual, compare
from carousel.bench.layer import Grid
from test_mutants import _mutant

LENGTHS = (7, 1, 4)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "peephole": {"peephole": True},
    "layer norm": {"layer_norm": True},
    "coupled with peepholes": {"coupled": True, "peephole": True},
    "stride and dilation": {"stride": 2, "dilation": 2, "peephole": True},
    "clip, norm, no bias": {"cell_clip": 0.3, "peephole": True, "layer_norm": True, "bias": False},
    "unlike sides": {"kernel_size": (5, 3), "stride": (3, 1), "dilation": (1, 2), "coupled": True, "layer_norm": True},
}
FAILURES = (AssertionError, IndexError, RuntimeError)


def shifted(x: Tensor, weight: Tensor, stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """The convolution of x [C, H, W], as a sum over the kernel of products with x shifted."""
    (k, m), (s, r), (d, e) = weight.shape[2:], stride, dilation
    up, left = d * (k - 1) // 2, e * (m - 1) // 2
    height, width = -(-x.shape[1] // s), -(-x.shape[2] // r)
    around = x.new_zeros(x.shape[0], x.shape[1] + 2 * up, x.shape[2] + 2 * left)
    around[:, up : up + x.shape[1], left : left + x.shape[2]] = x
    total: Any = 0.0
    for i in range(k):
        for j in range(m):
            seen = around[:, i * d :: s, j * e :: r][:, :height, :width]
            total = total + torch.einsum("gc,cyx->gyx", weight[:, :, i, j], seen)
    return total


def normal(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()


def oracle(layer: ConvLSTM, clip: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One clip [T, C, H, W] with states [L, H, H', W'], layer by layer, place by place."""
    ends_h, ends_c, spec = [], [], layer.spec
    for k in range(layer.num_layers):
        w = {name.removesuffix(f"_l{k}"): p for name, p in layer.named_parameters() if name.endswith(f"_l{k}")}
        stride = (1, 1) if k else layer.stride
        hk, ck, outputs = h[k], c[k], []
        column = {name: p[:, None, None] for name, p in w.items() if p.dim() == 1}
        for x in clip:
            a, r = shifted(x, w["weight_ih"], stride, layer.dilation), shifted(hk, w["weight_hh"], (1, 1), (1, 1))
            if spec.layer_norm:
                a, r = normal(a) * column["norm_ih"], normal(r) * column["norm_hh"]
            z = a + r + (column["bias_ih"] + column["bias_hh"] if spec.bias else 0)
            peeps: Any = column["weight_ch"].chunk(2 if spec.coupled else 3) if spec.peephole else (0, 0, 0)
            if spec.coupled:
                zf, zg, zo = z.chunk(3)
                f = torch.sigmoid(zf + peeps[0] * ck)
                i = 1 - f
            else:
                zi, zf, zg, zo = z.chunk(4)
                i, f = torch.sigmoid(zi + peeps[0] * ck), torch.sigmoid(zf + peeps[1] * ck)
            ck = f * ck + i * torch.tanh(zg)
            ck = ck.clamp(-spec.cell_clip, spec.cell_clip) if spec.cell_clip else ck
            o = torch.sigmoid(zo + peeps[1 if spec.coupled else 2] * ck)
            shown = ck
            if spec.layer_norm:
                shown = normal(ck) * column["norm_c"] + (column["norm_bias_c"] if spec.bias else 0)
            hk = o * torch.tanh(shown)
            outputs.append(hk)
        clip = torch.stack(outputs)
        ends_h.append(hk)
        ends_c.append(ck)
    return clip, torch.stack(ends_h), torch.stack(ends_c)


def made(case: dict[str, Any], backend: str, dtype: torch.dtype = torch.float64, **more: Any) -> ConvLSTM:
    torch.manual_seed(3)
    sizes = {"input_size": 3, "hidden_size": 5, "num_layers": 2} | more
    layer = ConvLSTM(**sizes, **case, backend=backend, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn_like(p) * (3.0 / p[0].numel()) ** 0.5 if p.dim() == 4 else torch.randn_like(p) * 0.7)
    return layer.to(dtype)


def frames(layer: ConvLSTM, size: tuple[int, int] = (9, 6), steps: int = 7, batch: int = 3) -> list[Tensor]:
    """A padded batch and states that are not zero."""
    torch.manual_seed(4)
    like = layer.weight_ih_l0
    x = torch.randn(steps, batch, layer.input_size, *size, dtype=torch.float64)
    places = layer._window(0).places(*size)
    states = torch.randn(2, layer.num_layers, batch, layer.hidden_size, *places, dtype=torch.float64)
    return [t.to(like.dtype).requires_grad_() for t in (x, states[0].clone(), states[1].clone())]


def found(layer: ConvLSTM, kind: str, given: list[Tensor]) -> list[Tensor]:
    """Rows of the output, both states, and gradients of frames, states and all weights."""
    x, h, c = given
    if kind == "ragged":
        out, ends = layer(Ragged.from_padded(x, torch.tensor(LENGTHS)), (h, c))
        y = out.values
    elif kind == "batch first":
        layer = copy.copy(layer)
        layer.batch_first = True
        y, ends = layer(x.transpose(0, 1), (h, c))
        y = y.transpose(0, 1)
    else:
        y, ends = layer(x, (h, c))
    return _with_gradients([y, *ends], [*given, *layer.parameters()])


def expected(layer: ConvLSTM, kind: str, given: list[Tensor]) -> list[Tensor]:
    x, h, c = given
    lengths = LENGTHS if kind == "ragged" else (x.shape[0],) * x.shape[1]
    parts = [oracle(layer, x[:n, b], h[:, b], c[:, b]) for b, n in enumerate(lengths)]
    y = torch.cat([p[0] for p in parts]) if kind == "ragged" else torch.stack([p[0] for p in parts], 1)
    ends = [torch.stack([p[k] for p in parts], 1) for k in (1, 2)]
    return _with_gradients([y, *ends], [*given, *layer.parameters()])


def _with_gradients(results: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(5)
    loss: Any = sum((t.double() * torch.randn(t.shape, dtype=torch.float64)).sum() for t in results)
    return [*(t.detach() for t in results), *torch.autograd.grad(loss, inputs)]


def check(case: dict[str, Any], backend: str, kind: str) -> None:
    layer = made(case, backend)
    given = frames(layer)
    for got, want in zip(found(layer, kind, given), expected(layer, kind, given), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)  # float64: sums in another order


@pytest.mark.parametrize("kind", ["time-major", "batch first", "ragged"])
@pytest.mark.parametrize("backend", conv.BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_oracles(case: str, backend: str, kind: str):
    check(CASES[case], backend, kind)


def near(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert (a.double() - b).abs().max() <= tolerance * max(float(b.abs().max()), 1e-3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("size", "batch", "case"),
    [((17, 18), 3, {}), ((16, 31), 1, {"peephole": True}), ((19, 16), 4, {"coupled": True, "cell_clip": 0.4})],
)
def test_large_frames_in_float32_are_those_of_float64(
    size: tuple[int, int], batch: int, case: dict[str, Any], threads: int
):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        exact, fast = (
            made(case, b, d, hidden_size=19) for b, d in (("reference", torch.float64), ("native", torch.float32))
        )
        inputs = frames(exact, size, 3, batch)
        want = found(exact, "time-major", inputs)
        got = found(fast, "time-major", [t.detach().float().requires_grad_() for t in inputs])
        near(got, want, 5e-6)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("case", ["plain", "layer norm", "coupled with peepholes", "stride and dilation"])
def test_bfloat16_is_near(case: str):
    exact, half = (
        made(CASES[case], b, d, hidden_size=20) for b, d in (("reference", torch.float64), ("native", torch.bfloat16))
    )
    inputs = frames(exact)
    for kind in ("time-major", "ragged"):
        got = found(half, kind, [t.detach().bfloat16().requires_grad_() for t in inputs])
        assert {t.dtype for t in got} == {torch.bfloat16}
        near(got, found(exact, kind, inputs), 0.06)  # 8 bits of mantissa, two layers, seven steps


@pytest.mark.parametrize("backend", conv.BACKENDS)
def test_autocast_computes_in_bfloat16_and_leaves_float32_gradients(backend: str):
    layer = made({}, backend, torch.float32, hidden_size=8)
    x, h, c = frames(layer)
    with torch.autocast("cpu", torch.bfloat16):
        y, (h1, c1) = layer(x, (h, c))
    assert {t.dtype for t in (y, h1, c1)} == {torch.bfloat16}
    of = torch.autograd.grad(y.float().sum(), [x, h, c, *layer.parameters()])
    assert {t.dtype for t in of} == {torch.float32}
    near([y.detach()], [layer(x, (h, c))[0].detach().double()], 0.06)


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float32, (16, 18)), (torch.float32, (9, 6)), (torch.float64, (9, 6))]
)
@pytest.mark.parametrize("backend", conv.BACKENDS)
def test_frames_one_at_a_time_and_in_chunks_give_what_the_clip_gives(
    backend: str, dtype: torch.dtype, size: tuple[int, int]
):
    layer = made({"peephole": True}, backend, dtype)
    x, h, c = frames(layer, size)
    with torch.no_grad():
        whole, ends = layer(x, (h, c))
        for chunk in (1, 3):
            state, parts = (h, c), []
            for part in x.split(chunk):
                y, state = layer(part, state)
                parts.append(y)
            exact = {"rtol": 0, "atol": 0} if backend == "native" else {"rtol": 1e-5, "atol": 1e-6}
            for got, want in zip((torch.cat(parts), *state), (whole, *ends), strict=True):
                torch.testing.assert_close(got, want, **exact)


def test_a_clip_does_not_depend_on_its_neighbours_nor_on_threads():
    layer = made({}, "native", torch.float32, num_layers=1)
    x, h, c = frames(layer, (17, 16))
    before = torch.get_num_threads()
    with torch.no_grad():
        out, (h1, _) = layer(Ragged.from_padded(x, torch.tensor(LENGTHS)), (h, c))
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                for b, n in enumerate(LENGTHS):
                    alone, (h_alone, _) = layer(x[:n, b : b + 1], (h[:, b : b + 1], c[:, b : b + 1]))
                    assert torch.equal(out[b], alone[:, 0])
                    assert torch.equal(h1[:, b], h_alone[:, 0])
        finally:
            torch.set_num_threads(before)


def test_a_clip_of_length_zero_keeps_its_state():
    for backend in conv.BACKENDS:
        layer = made({}, backend)
        x, h, c = (t.detach() for t in frames(layer))
        clips = Ragged(x[:, 0], torch.tensor([0, 3, 3, 7]))
        out, (h1, c1) = layer(clips, (h, c))
        assert torch.equal(h1[0, 1], h[0, 1])
        assert torch.equal(c1[1, 1], c[1, 1])
        assert len(out[1]) == 0
        alone = oracle(layer, x[3:7, 0], h[:, 2], c[:, 2])
        torch.testing.assert_close(out[2], alone[0])


@pytest.mark.parametrize("case", ["peephole", "clip, norm, no bias", "stride and dilation"])
def test_gradcheck_through_the_core(case: str):
    layer = made(CASES[case] | {"cell_clip": 0.0}, "native", num_layers=1, input_size=2, hidden_size=2)
    given = frames(layer, (3, 4), 3, 2)

    def run(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(dict(layer.named_parameters()), weights, strict=True))
        y, ends = torch.func.functional_call(layer, named, (Ragged.from_padded(x, torch.tensor([3, 1])), (h, c)))
        return (y.values, *ends)

    assert torch.autograd.gradcheck(run, (*given, *layer.parameters()), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (*given, *layer.parameters()), fast_mode=True)


def test_equal_to_the_usual_step_by_step_layer():
    torch.manual_seed(0)
    own = ConvLSTM(4, 20)
    usual = Usual(own)
    x = torch.randn(7, 3, 4, 18, 17, requires_grad=True)
    y, _ = own(x)
    other = usual(x)
    near([y.detach()], [other.detach().double()], 1e-5)
    seed = torch.randn_like(y)
    of_x, of_ih, of_hh = torch.autograd.grad(y, [x, own.weight_ih_l0, own.weight_hh_l0], seed)
    want_x, want = torch.autograd.grad(other, [x, usual.weight], seed)
    near([of_x, of_ih, of_hh], [t.double() for t in (want_x, want[:, :4], want[:, 4:])], 1e-5)


def test_inference_keeps_nothing_and_dropout_is_for_training_alone(monkeypatch: pytest.MonkeyPatch):
    layer = ConvLSTM(3, 4, num_layers=2, dropout=0.5)
    kept: list[bool] = []
    native: Any = conv.load("native")
    true = native._forward

    def spied(fixed: Any, operands: Any, keep: bool) -> Any:
        kept.append(keep)
        return true(fixed, operands, keep)

    monkeypatch.setattr(native, "_forward", spied)
    x = torch.randn(7, 3, 3, 8, 8)
    with torch.no_grad():
        first, second = layer.eval()(x)[0], layer(x)[0]
    assert kept == [False] * 4
    assert torch.equal(first, second)
    layer.train()(x)
    assert kept[4:] == [True] * 2
    assert not torch.equal(layer(x)[0], layer(x)[0])


def test_the_weights_and_how_they_begin():
    torch.manual_seed(0)
    layer = ConvLSTM(3, 8, 5, num_layers=2, peephole=True, layer_norm=True, forget_bias=1.0)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes["weight_ih_l0"] == (32, 3, 5, 5)
    assert shapes["weight_hh_l1"] == (32, 8, 5, 5)
    assert shapes["weight_ch_l0"] == (24,)
    bound = (11 * 25) ** -0.5
    assert 0.95 * bound < layer.weight_ih_l0.abs().max() <= bound
    assert torch.equal(layer.norm_c_l0, torch.ones(8))
    assert (layer.bias_ih_l0[8:16] - 1).abs().max() <= bound
    assert "kernel_size=(5, 5), num_layers=2, forget_bias=1.0, peephole=True, layer_norm=True" in repr(layer)


BAD_ARGUMENTS = {
    "kernel_size must be odd": {"kernel_size": 4},
    "kernel_size must be a whole number above 0": {"kernel_size": (3, 3, 3)},
    "stride must be a whole number above 0, or two": {"stride": 0},
    "dilation must be a whole number": {"dilation": 1.5},
    "backend must be 'auto' or one of native, reference": {"backend": "aten"},
    "it needs bias=True": {"bias": False, "forget_bias": 1.0},
    "hidden_size must be greater than zero": {"hidden_size": 0},
    "cell_clip must be finite": {"cell_clip": -1.0},
}


@pytest.mark.parametrize("sentence", BAD_ARGUMENTS)
def test_a_bad_argument_is_refused_in_one_sentence(sentence: str):
    with pytest.raises(ValueError, match=sentence):
        ConvLSTM(**({"input_size": 3, "hidden_size": 4} | BAD_ARGUMENTS[sentence]))


def test_bad_frames_and_states_are_refused_in_one_sentence():
    layer = ConvLSTM(3, 4, stride=2)
    x = torch.zeros(7, 2, 3, 6, 6)
    good = torch.zeros(1, 2, 4, 3, 3)
    calls: dict[str, tuple[Any, ...]] = {
        r"frames \[T, B, C, H, W\], got shape \[2, 3, 6, 6\]": (x[0],),
        r"frames \[N, C, H, W\], got shape": (Ragged(x, torch.tensor([0, 7])),),
        "the frames have 2 channels, this ConvLSTM takes 3": (x[:, :, :2],),
        "the frames have no pixels": (x[..., :0],),
        "takes one frame at least": (x[:0],),
        "the frames are torch.float64, this ConvLSTM is torch.float32": (x.double(),),
        r"the state h must be \[1, 2, 4, 3, 3\] for these frames, got \[1, 2, 4, 6, 6\]": (
            x,
            (torch.zeros(1, 2, 4, 6, 6), good),
        ),
        "the state c must be .* got NoneType": (x, (good, None)),
        "the state c is torch.float64, the frames are torch.float32": (x, (good, good.double())),
        r"is a pair \(h, c\)": (x, good),
    }
    for sentence, arguments in calls.items():
        with pytest.raises(carousel.DataError, match=sentence):
            layer(*arguments)
    with pytest.raises(TypeError, match=r"takes a Tensor or a carousel\.Ragged, got list"):
        layer([x])
    with pytest.raises(TypeError, match=r"give ragged\.tensors"):
        layer(Ragged(x[:, 0].numpy(), [0, 7]))
    with pytest.raises(carousel.NotSupported, match="it runs on the CPU"):
        ConvLSTM(3, 4, backend="native", device="meta")(x.to("meta"))
    with pytest.raises(carousel.NotSupported, match=r"torch.func.grad"):
        torch.func.grad(lambda t: layer(t)[0].sum())(x)


MUTANTS = {
    "the input and forget gates trade places": (
        "native", "plain", "time-major",
        "    used = [",
        "    weights = tuple(w.reshape(4, -1)[[1, 0, 2, 3]].reshape(w.shape) for w in weights)\n    used = [",
    ),
    "no gradient of the peepholes": (
        "native", "peephole", "ragged",
        "    every = [", "    of_weights[4].zero_()\n    every = [",
    ),
    "the first step's weight gradient without its state": (
        "native", "plain", "time-major", "of[:batch], h, weight", "of[:batch], h * 0, weight",
    ),
    "the first step's weight gradient without its state, ragged": (
        "native", "plain", "ragged", "of[first], h[begun]", "of[first], h[begun] * 0",
    ),
    "every step's weight gradient sees its own output": (
        "native", "plain", "ragged", "of[now], y[before]", "of[now], y[now]",
    ),
    "a finished clip's state moves on": (
        "reference", "plain", "ragged", "h.index_copy(0, live, ", "h.index_copy(0, live * 0, ",
    ),
    "the outputs stay in the order of the visits": (
        "reference", "plain", "ragged", "torch.cat(outputs)[where]", "torch.cat(outputs)",
    ),
    "the recurrent convolution has the input's dilation": (
        "reference", "stride and dilation", "time-major",
        'w["weight_hh"], padding=window.recurrent_padding', 'w["weight_hh"], padding=window.padding, dilation=2',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_seen(name: str, monkeypatch: pytest.MonkeyPatch):
    backend, case, kind, old, new = MUTANTS[name]
    monkeypatch.setitem(conv._LOADED, backend, _mutant(f"carousel.backends.conv_{backend}", old, new))
    with pytest.raises(FAILURES):
        check(CASES[case], backend, kind)


def test_a_finished_clip_that_moves_on_in_the_core_is_seen(monkeypatch: pytest.MonkeyPatch):
    native: Any = conv.load("native")
    true = native._inputs

    def longer(fixed: Any, *operands: Any) -> Any:
        lengths = fixed.rows.lengths.flip(0)
        return true(fixed._replace(rows=fixed.rows._replace(lengths=lengths)), *operands)

    monkeypatch.setattr(native, "_inputs", longer)
    with pytest.raises((*FAILURES, ValueError)):
        check(CASES["plain"], "native", "ragged")


def test_the_benchmark_compares_equals_and_prints_ratios():
    report = compare(Grid(hidden=(4,), batch=(3,), seconds=0.01), side=8, steps=7)
    assert [row[:3] for row in report.rows] == [[4, 4, 3], [1, 4, 3]]
    assert set(report.summary) == {
        "geometric mean against the usual one",
        "worst against the usual one",
        "worst of bfloat16 against own float32",
    }
    assert all(value > 0 for value in report.summary.values())


def test_bench_conv_refuses_what_it_does_not_measure(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["bench", "conv", "--dtype", "float64"]) == 2
    assert "--dtype is not about conv; leave it out." in capsys.readouterr().err
