"""The cell as people write it in torch, for want of a kernel: what a variant costs without one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.lstm import LSTM

__all__ = ["Handwritten"]


class Handwritten(nn.Module):
    """A variant as people write it in torch: the input product of all steps at once, then a Python loop of steps.

    It shares the parameters of the carousel.LSTM given (one layer, one direction, time-major input).
    """

    def __init__(self, layer: LSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, elapsed: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        layer = self._layer()
        spec, size = layer.spec, layer.hidden_size
        w: dict[str, Tensor] = {n.removesuffix("_l0"): p for n, p in layer.named_parameters()}
        h = x.new_zeros(x.shape[1], spec.output_size(size))
        c = x.new_zeros(x.shape[1], size)
        bias = w["bias_ih"] + w["bias_hh"]
        a = F.linear(x, w["weight_ih"], None if spec.layer_norm else bias)
        if spec.layer_norm:
            a = F.layer_norm(a, a.shape[-1:], w["norm_ih"]) + bias
        fade = self._fade(w, elapsed)
        dropped = self._dropped(h)
        outputs = []
        for t in range(x.shape[0]):
            h, c = self._step(w, a[t], h, c, None if fade is None else fade[t], dropped)
            outputs.append(h)
        return torch.stack(outputs), (h[None], c[None])

    def _layer(self) -> LSTM:
        layer: LSTM = self.layer
        return layer

    def _fade(self, w: dict[str, Tensor], elapsed: Tensor | None) -> Tensor | None:
        if elapsed is None:
            return None
        return torch.exp(-elapsed[..., None] * F.softplus(w["decay_rate"]))

    def _dropped(self, h: Tensor) -> Tensor | None:
        p = self._layer().spec.recurrent_dropout
        return torch.empty_like(h).bernoulli_(1 - p) / (1 - p) if p and self.training else None

    def _step(
        self,
        w: dict[str, Tensor],
        a: Tensor,
        h: Tensor,
        c: Tensor,
        fade: Tensor | None,
        dropped: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        spec, size, old_h = self._layer().spec, self._layer().hidden_size, h
        if fade is not None:
            c = c * fade
        r = F.linear(h if dropped is None else h * dropped, w["weight_hh"])
        if spec.layer_norm:
            r = F.layer_norm(r, r.shape[-1:], w["norm_hh"])
        z = dict(zip(spec.gates, (a + r).split(size, -1), strict=True))
        peep = dict(zip(spec.gates.replace("g", ""), w["weight_ch"].split(size), strict=True)) if spec.peephole else {}
        f = torch.sigmoid(z["f"] + peep["f"] * c if peep else z["f"])
        i = 1 - f if spec.coupled else torch.sigmoid(z["i"] + peep["i"] * c if peep else z["i"])
        new_c = f * c + i * torch.tanh(z["g"])
        if spec.cell_clip:
            new_c = new_c.clamp(-spec.cell_clip, spec.cell_clip)
        o = torch.sigmoid(z["o"] + peep["o"] * new_c if peep else z["o"])
        seen = new_c
        if spec.layer_norm:
            seen = F.layer_norm(new_c, (size,), w["norm_c"], w["norm_bias_c"])
        new_h = o * torch.tanh(seen)
        if spec.proj_size:
            new_h = F.linear(new_h, w["weight_hr"])
        return self._zoneout(old_h, new_h, spec.zoneout_h), self._zoneout(c, new_c, spec.zoneout_c)

    def _zoneout(self, old: Tensor, new: Tensor, p: float) -> Tensor:
        if not p:
            return new
        return torch.where(torch.rand_like(new) < p, old, new) if self.training else p * old + (1 - p) * new
