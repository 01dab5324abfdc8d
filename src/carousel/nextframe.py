"""The network of frames ahead: convolutional LSTMs over patches, which go on with the frames that they predict."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.convlstm import ConvLSTM

__all__ = ["NextFrame"]

States = list[tuple[Tensor, Tensor]]
KEEP = 3.0  # logit of the share of a pixel that stays, where training begins
EDGE = 0.01  # brightness that is as good as black, and as near to white: logits of pixels as they are stay finite


class NextFrame(nn.Module):
    """Frames in [0, 1] -> the logits of the next one after each; see `carousel.heads.frames.NextFramesHead`.

    After Shi et al. (2015, ConvLSTM) and Srivastava et al. (2015, the conditional future predictor), with one set of
    weights for reading and for going on.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        stack, head = config.stack, config.head
        cell = asdict(stack.cell)
        taken = {name: cell[name] for name in ("bias", "peephole", "coupled", "layer_norm", "cell_clip")}
        self.patch, self.layers = head.patch, nn.ModuleList()
        self.size: tuple[int, ...] = config.input.picture.size
        pixels = size = config.input.picture.channels * head.patch**2
        hidden = stack.hidden_size
        for layer in range(stack.num_layers):
            self.layers.append(ConvLSTM(size, hidden, head.kernel, stride=2 if layer else 1, forget_bias=1.0, **taken))
            size = hidden
        self.merge = nn.ModuleList(nn.Conv2d(2 * hidden, hidden, 1) for _ in range(stack.num_layers - 1))
        self.out = nn.Conv2d(hidden + pixels, 2 * pixels, 3, padding=1)
        begin = torch.cat([torch.zeros(pixels), torch.full((pixels,), KEEP)])
        self.out.bias = nn.Parameter(begin)  # training starts near "as it was"
        self.dropout = nn.Dropout(stack.dropout)

    @property
    def multiple(self) -> int:
        """Sides of frames are filled up to whole patches of the topmost layer."""
        return int(self.patch * 2 ** (len(self.layers) - 1))

    def step(self, frames: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """Frames [T, B, C, H, W] -> logits of the frame after each, of the same shape, and the states to go on with."""
        t, b, _, h, w = frames.shape
        x = self._patches(frames.flatten(0, 1))
        found, after, below = [], [], x.unflatten(0, (t, b))
        for layer, part in enumerate(self.layers):
            below, state = part(below, None if states is None else states[layer])
            after.append(state)
            found.append(below.flatten(0, 1))
        top = found.pop()
        for merge in reversed(self.merge):
            own = found.pop()
            top = F.relu(merge(torch.cat([own, F.interpolate(top, own.shape[-2:], mode="nearest")], 1)))
        made = self.out(torch.cat([self.dropout(top), x], 1))
        change, keep = (F.pixel_shuffle(part, self.patch)[..., :h, :w] for part in made.chunk(2, 1))
        logits = change + torch.sigmoid(keep) * torch.logit(frames.flatten(0, 1), EDGE)
        return logits.unflatten(0, (t, b)), after

    def forward(self, frames: Tensor, horizon: int = 1) -> Tensor:
        """Logits [T - 1 + horizon, B, C, H, W]: of the frames 1 ... T - 1, and of `horizon` more, which the network
        goes on to from its own."""
        seen, states = self.step(frames)
        found, last = [seen], seen[-1:]
        for _ in range(horizon - 1):
            last, states = self.step(torch.sigmoid(last), states)
            found.append(last)
        return torch.cat(found)

    def _patches(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C patch^2, H / patch, W / patch], edges repeated up to whole patches."""
        h, w = x.shape[-2:]
        down, right = -h % self.multiple, -w % self.multiple
        if down or right:
            x = F.pad(x, (0, right, 0, down), mode="replicate")
        return F.pixel_unshuffle(x, self.patch)
