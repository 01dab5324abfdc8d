"""The native kernels against the reference in float64, over every tail, layout, instruction set and split."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from carousel import _core
from carousel.backends import Call, Result, Rows, native, reference
from carousel.cell import CellSpec

SPECS = {
    "plain": CellSpec(),
    "no bias": CellSpec(bias=False),
    "peephole": CellSpec(peephole=True, cell_clip=0.5),
    "coupled": CellSpec(coupled=True, peephole=True),
    "layer norm": CellSpec(layer_norm=True),
    "projection": CellSpec(proj_size=5),
    "decay": CellSpec(decay=True),
    "regularised": CellSpec(recurrent_dropout=0.3, zoneout_c=0.2, zoneout_h=0.4),
    "everything": CellSpec(
        peephole=True,
        coupled=True,
        layer_norm=True,
        decay=True,
        proj_size=5,
        cell_clip=0.9,
        recurrent_dropout=0.3,
        zoneout_c=0.2,
        zoneout_h=0.4,
    ),
}
SPECS["smooth"] = replace(SPECS["everything"], cell_clip=0.0)  # rounding c across the clip makes gradients jump
LENGTHS = (7, 1, 9, 3, 9, 4)


def ragged(lengths: tuple[int, ...]) -> Rows:
    sizes = torch.tensor(lengths)
    return Rows(sizes.cumsum(0) - sizes, torch.arange(max(lengths)), sizes, False, False)


def make(
    spec: CellSpec,
    size: int,
    hidden: int,
    rows: Rows,
    *,
    directions: int = 1,
    dtype: torch.dtype = torch.float64,
    seed: int | None = 5,
    recompute: int = 0,
    scale: float = 0.3,
) -> Call:
    n, b, out = int(rows.lengths.sum()), rows.lengths.numel(), spec.output_size(hidden)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    weights = tuple(
        {name: (scale * random(*shape)).requires_grad_() for name, shape in spec.shapes(size, hidden).items()}
        for _ in range(directions)
    )
    gaps = torch.rand(directions, n, dtype=torch.float64).to(dtype).requires_grad_() if spec.decay else None
    return Call(
        random(n, size).requires_grad_(),
        rows,
        random(directions, b, out).requires_grad_(),
        random(directions, b, hidden).requires_grad_(),
        weights,
        gaps,
        None if seed is None else torch.tensor(seed),
        True,
        recompute,
    )


def leaves(call: Call) -> list[Tensor]:
    gaps = [] if call.elapsed is None else [call.elapsed]
    return [call.x, call.h, call.c, *(w for d in call.weights for w in d.values()), *gaps]


def everything(spec: CellSpec, call: Call, backend: object = native) -> list[Tensor]:
    """Outputs, states, trace, and the gradients of a fixed random combination of them."""
    result: Result = backend.run(spec, call)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in result[:3]]
    gradients = torch.autograd.grad(result[:3], leaves(call), upstream)
    return [t.detach() for t in result if t is not None] + list(gradients)


def same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def widened(call: Call) -> Call:
    def up(t: Tensor) -> Tensor:
        return t.detach().double().requires_grad_()

    return call._replace(
        x=up(call.x),
        h=up(call.h),
        c=up(call.c),
        weights=tuple({k: up(w) for k, w in d.items()} for d in call.weights),
        elapsed=None if call.elapsed is None else up(call.elapsed),
    )


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("seed", [None, 5])
def test_equals_the_reference(name: str, directions: int, seed: int | None) -> None:
    torch.manual_seed(0)
    call = make(SPECS[name], 6, 19, ragged(LENGTHS), directions=directions, seed=seed)
    same(everything(SPECS[name], call), everything(SPECS[name], call, reference), 1e-11)  # 9 steps, 25 sums each


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33])
def test_every_tail(size: int) -> None:
    torch.manual_seed(size)
    for spec in (CellSpec(), CellSpec(proj_size=34 - size), CellSpec(layer_norm=True, peephole=True)):
        call = make(spec, 34 - size, size, ragged((3, 1, 4)))
        same(everything(spec, call), everything(spec, call, reference), 1e-9)  # layer norm of one or two units


@pytest.mark.parametrize("every", [1, 2, 4, 100])
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_recompute_changes_nothing(name: str, every: int) -> None:
    torch.manual_seed(0)
    call = make(SPECS[name], 6, 19, ragged(LENGTHS), directions=2)
    found = everything(SPECS[name], call._replace(recompute=every))
    same(found, everything(SPECS[name], call), 1e-13)  # other chunks: sums of gradients in another order


@pytest.mark.parametrize("name", ["plain", "smooth"])
def test_bfloat16(name: str) -> None:
    """Eight bits of mantissa, 0.4 % each rounding: the error is a few of them, more through layer norm."""
    torch.manual_seed(0)
    call = make(SPECS[name], 40, 35, ragged(LENGTHS * 4), directions=2, dtype=torch.bfloat16, scale=0.1)
    found, expected = everything(SPECS[name], call), everything(SPECS[name], widened(call), reference)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.bfloat16
        assert float((a.double() - b).norm() / b.norm()) < (0.01 if name == "plain" else 0.03)


def test_float32() -> None:
    torch.manual_seed(0)
    for spec in SPECS.values():
        call = make(spec, 40, 35, ragged(LENGTHS), dtype=torch.float32, scale=0.1)
        found, expected = everything(spec, call), everything(spec, widened(call), reference)
        same([t.double() for t in found], expected, 2e-5)


def test_views_are_read_where_they_lie() -> None:
    torch.manual_seed(0)
    spec, rows = CellSpec(), ragged((7, 3, 1))
    call = make(spec, 5, 18, rows)
    wide = torch.randn(11, 9, dtype=torch.float64)
    for view in (wide[:, 2:7], wide[:, ::2], wide.T.contiguous().T[:, 1:6], torch.randn(5, 11).double().T):
        given = call._replace(x=view.requires_grad_())
        expected = call._replace(x=view.detach().clone().requires_grad_())
        same(everything(spec, given), everything(spec, expected), 0)


def test_layouts_agree_bit_for_bit() -> None:
    torch.manual_seed(0)
    steps, b, spec = 8, 5, CellSpec(peephole=True)
    lengths = torch.full((b,), steps)
    major = Rows(torch.arange(b), torch.arange(steps) * b, lengths, True, True)
    call = make(spec, 6, 19, major)
    first = Rows(torch.arange(b) * steps, torch.arange(steps), lengths, True, False)
    x = call.x.detach().view(steps, b, 6).transpose(0, 1).reshape(-1, 6)
    y = native.run(spec, call).y.view(steps, b, 19).transpose(0, 1).reshape(-1, 19)
    torch.testing.assert_close(native.run(spec, call._replace(x=x, rows=first)).y, y, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_zero_ulp_over_chunks_of_time(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    spec, steps, b = SPECS[name], 23, 5
    rows = Rows(torch.arange(b), torch.arange(steps) * b, torch.full((b,), steps), True, True)
    call = make(spec, 7, 21, rows, dtype=dtype, seed=None)
    with torch.no_grad():
        whole = native.run(spec, call)
        for cuts in ((0, 1, 23), (0, 7, 8, 20, 23), tuple(range(24))):
            h, c, pieces = call.h, call.c, []
            for start, end in pairwise(cuts):
                part = Rows(rows.first, rows.ahead[: end - start], torch.full((b,), end - start), True, True)
                span = slice(start * b, end * b)
                gaps = None if call.elapsed is None else call.elapsed[:, span]
                found = native.run(spec, call._replace(x=call.x[span], rows=part, h=h, c=c, elapsed=gaps))
                h, c = found.h, found.c
                pieces.append(found.y)
            assert torch.equal(torch.cat(pieces), whole.y)
            assert torch.equal(h, whole.h)
            assert torch.equal(c, whole.c)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_zero_ulp_over_batch_mates(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    spec, lengths = SPECS[name], LENGTHS * 3
    rows = ragged(lengths)
    call = make(spec, 7, 21, rows, dtype=dtype, seed=None, directions=2)
    with torch.no_grad():
        together = native.run(spec, call).y
        for b in range(len(lengths)):
            span = slice(int(rows.first[b]), int(rows.first[b]) + lengths[b])
            gaps = None if call.elapsed is None else call.elapsed[:, span]
            alone = call._replace(
                x=call.x[span],
                rows=ragged(lengths[b : b + 1]),
                h=call.h[:, b : b + 1],
                c=call.c[:, b : b + 1],
                elapsed=gaps,
            )
            assert torch.equal(native.run(spec, alone).y, together[span])


@pytest.mark.parametrize(("lengths", "hidden"), [((40,) * 12, 70), ((60, 1, 33, 20), 70), ((9,), 260), ((8, 5), 420)])
def test_zero_ulp_over_threads(lengths: tuple[int, ...], hidden: int) -> None:
    """Rows shared out, and units shared out: one sequence, and weights larger than a cache."""
    torch.manual_seed(0)
    call = make(CellSpec(), 20, hidden, ragged(lengths), dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(native.run(CellSpec(), call)[:3])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("name", SPECS)
def test_gradients_over_threads(name: str) -> None:
    torch.manual_seed(0)
    call = make(SPECS[name], 30, 70, ragged((20, 1, 33, 20, 7)), directions=1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(everything(SPECS[name], call))
    finally:
        torch.set_num_threads(before)
    same(found[1], found[0], 1e-11)


@pytest.mark.parametrize(("steps", "b"), [(0, 0), (0, 2), (3, 0)])
def test_nothing_to_do(steps: int, b: int) -> None:
    rows = Rows(torch.arange(b), torch.arange(steps) * b, torch.full((b,), steps), True, True)
    call = make(CellSpec(), 3, 4, rows)
    y, h, c, _ = native.run(CellSpec(), call)
    assert y.shape == (0, 4)
    assert torch.equal(h, call.h)
    assert torch.equal(c, call.c)
    weight = call.weights[0]["weight_hh"]
    of_h, of_c, of_weight = torch.autograd.grad(h.sum() + 2 * c.sum(), [call.h, call.c, weight])
    assert torch.equal(of_h, torch.ones_like(h))
    assert torch.equal(of_c, torch.full_like(c, 2))
    assert not of_weight.any()


def test_a_nan_stays_in_its_row() -> None:
    torch.manual_seed(0)
    call = make(CellSpec(), 6, 19, ragged(LENGTHS), seed=None)
    clean = native.run(CellSpec(), call).y
    x = call.x.detach().clone()
    x[2, 3] = float("nan")
    spoilt = native.run(CellSpec(), call._replace(x=x)).y
    assert torch.isnan(spoilt[2:7]).all()
    clean_rows = [0, 1, *range(7, 33)]
    assert torch.equal(spoilt[clean_rows], clean[clean_rows])


def test_rows_that_do_not_fit_are_refused() -> None:
    call = make(CellSpec(), 3, 4, ragged((3, 2)))
    wrong = call.rows._replace(first=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="row outside x"):
        native.run(CellSpec(), call._replace(rows=wrong))


ON_ONE_SET = """
import sys; sys.path.insert(0, {folder!r})
import torch, test_native as t
torch.manual_seed(0)
for name in ("plain", "everything", "projection"):
    call = t.make(t.SPECS[name], 21, 19, t.ragged(t.LENGTHS), directions=2)
    t.same(t.everything(t.SPECS[name], call), t.everything(t.SPECS[name], call, t.reference), 1e-11)
for name in ("plain", "smooth", "projection"):
    small = t.make(t.SPECS[name], 21, 19, t.ragged(t.LENGTHS), dtype=torch.bfloat16, scale=0.1)
    for a, b in zip(t.everything(t.SPECS[name], small), t.everything(t.SPECS[name], t.widened(small), t.reference)):
        assert float((a.double() - b).norm() / b.norm()) < 0.03
print(t._core.instruction_set())
"""


def with_instruction_set(name: str) -> subprocess.CompletedProcess[str]:
    code = ON_ONE_SET.format(folder=str(Path(__file__).parent))
    environment = os.environ | {"CAROUSEL_ISA": name}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("name", ["portable", "avx2", "avx512", "amx"])
def test_each_instruction_set_equals_the_reference(name: str) -> None:
    found = with_instruction_set(name)
    if "is not an instruction set of this machine" in found.stderr:
        pytest.skip(f"this machine has no {name}")
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == name


def test_an_unknown_instruction_set_is_an_error() -> None:
    found = with_instruction_set("mmx")
    assert found.returncode != 0
    assert "CAROUSEL_ISA=mmx is not an instruction set of this machine; choose one of: " in found.stderr
    assert _core.instruction_set() in found.stderr
