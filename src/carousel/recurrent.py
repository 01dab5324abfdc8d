"""What LSTM and LSTMCell have in common: weights that follow from a CellSpec, how they begin, and what is refused."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel import backends
from carousel.cell import CellSpec
from carousel.errors import CarouselError

__all__ = ["Recurrent", "check_input_dtype", "check_sizes", "check_state"]


class Recurrent(nn.Module):
    """The weights of a CellSpec, named as torch names them, once for each of `_suffixes`."""

    input_size: int
    hidden_size: int

    def __init__(
        self, input_size: int, hidden_size: int, spec: CellSpec, forget_bias: float | None, backend: str
    ) -> None:
        super().__init__()
        if forget_bias is not None and not spec.bias:
            raise CarouselError("forget_bias is added to the forget gate's bias: it needs bias=True.")
        for name in backends.BACKENDS if backend == "auto" else (backend,):
            backends.load(name)  # an unknown name is refused here, not at the first call
        self.input_size, self.hidden_size, self.spec = input_size, hidden_size, spec
        self.forget_bias, self.backend = forget_bias, backend
        self._names = tuple(spec.shapes(input_size, hidden_size))
        # weight_drop is done here, to the weights; recurrent dropout is for training alone
        self._training_spec = replace(spec, weight_drop=0.0)
        self._evaluation_spec = replace(spec, weight_drop=0.0, recurrent_dropout=0.0)

    @property
    def bias(self) -> bool:
        return self.spec.bias

    def _running_spec(self) -> CellSpec:
        return self._training_spec if self.training else self._evaluation_spec

    def _register(self, suffix: str, input_size: int, device: Any, dtype: Any) -> None:
        for name, shape in self.spec.shapes(input_size, self.hidden_size).items():
            self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))

    def _weight(self, name: str) -> Tensor:
        weight: Tensor = getattr(self, name)  # a Parameter, or what functional_call or a parametrization put there
        return weight

    def _weights(self, suffix: str = "") -> dict[str, Tensor]:
        weights = {name: self._weight(name + suffix) for name in self._names}
        if self.spec.weight_drop and self.training:
            weights["weight_hh"] = F.dropout(weights["weight_hh"], self.spec.weight_drop)
        return weights

    def _suffixes(self) -> list[str]:
        return [""]

    def reset_parameters(self) -> None:
        """As torch.nn.LSTM: uniform in +-1 / sqrt(hidden_size); then what torch does not have.

        The gains of layer norm begin with 1 and its offset with 0. The decay rates begin spread over time
        constants of 1.4 to 400 units of elapsed time, so that some units forget fast and some slowly.
        """
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)
        for suffix in self._suffixes():
            if self.spec.layer_norm:
                for name in ("norm_ih", "norm_hh", "norm_c"):
                    nn.init.ones_(self._weight(name + suffix))
                if self.spec.bias:
                    nn.init.zeros_(self._weight("norm_bias_c" + suffix))
            if self.spec.decay:
                nn.init.uniform_(self._weight("decay_rate" + suffix), -6.0, 0.0)
            if self.forget_bias is not None:
                start = self.spec.gates.index("f") * self.hidden_size
                with torch.no_grad():
                    self._weight("bias_ih" + suffix)[start : start + self.hidden_size] += self.forget_bias

    def _variant_repr(self) -> str:
        plain = CellSpec()
        chosen = [
            f", {field.name}={getattr(self.spec, field.name)}"
            for field in fields(CellSpec)
            if field.name not in ("bias", "proj_size") and getattr(self.spec, field.name) != getattr(plain, field.name)
        ]
        if self.forget_bias is not None:
            chosen.append(f", forget_bias={self.forget_bias}")
        if self.backend != "auto":
            chosen.append(f", backend={self.backend!r}")
        return "".join(chosen)

    def _seed(self, device: torch.device) -> Tensor | None:
        """From torch's own generator, as a tensor, so that manual_seed rules and a compiled graph stays whole."""
        spec = self.spec
        if not self.training or not (spec.recurrent_dropout or spec.zoneout_c or spec.zoneout_h):
            return None
        return torch.randint(0, 2**62, (), dtype=torch.int64, device=device)

    def check_elapsed(self, elapsed: Any) -> None:
        if self.spec.decay and elapsed is None:
            raise CarouselError("this LSTM has decay=True: give elapsed=, the time since the previous row of each row.")
        if not self.spec.decay and elapsed is not None:
            raise CarouselError("elapsed= is used by decay=True only: leave it out, or build the LSTM with decay=True.")


def check_sizes(input_size: int, hidden_size: int, bias: bool, proj_size: int) -> None:
    """With torch's exceptions and words."""
    if not isinstance(bias, bool):
        raise TypeError(f"bias should be of type bool, got: {type(bias).__name__}")
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
        if value <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


def check_input_dtype(x: Tensor, weight: Tensor) -> None:
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). "
            f"Convert input: input.to({weight.dtype}), or convert model: model.to({x.dtype})"
        )


def check_state(name: str, state: Tensor, x: Tensor) -> None:
    if state.device != x.device:
        raise RuntimeError(f"{name} is on {state.device} but the input on {x.device}: move one to the other")
    if state.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise RuntimeError(f"{name} is {state.dtype} but the input {x.dtype}: convert one to the other")
