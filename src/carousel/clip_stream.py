"""`ClipStream`: a model of frames that takes one picture at a time, as a camera gives them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel import estimators
from carousel.config import ModelConfig
from carousel.errors import CarouselError, DataError, NotSupported
from carousel.framing import as_numbers
from carousel.heads.classify import probabilities
from carousel.heads.detect import DetectState, most_of
from carousel.heads.frames import OddFramesHead, block_errors, block_means
from carousel.inputs.frames import BadFrame, Bytes, FramesInput, prepare
from carousel.inputs.frames_files import EARLY
from carousel.model import SequenceBatch
from carousel.ragged import Ragged

__all__ = ["ClipStream"]

Arrays = dict[str, NDArray[Any]]


class ClipStream:
    """A classifier, tagger or detector of clips that takes one frame at a time and says after each what it makes of it.

    `path` is a model file. A classifier's answer is that of the clip up to this frame; a tagger's and a detector's are
    those that `predict` gives for the frame, within rounding. Raises ModelFileError for a file that is refused,
    NotSupported for a model of something else, of frames ahead, or that reads clips from both ends.

    A stream is not to be used by two threads at once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._estimator = estimators.load(path)
        config: ModelConfig = self._estimator.config_
        name = os.fspath(path)
        if not isinstance(config.input, FramesInput):
            raise NotSupported(f"{name}: the model reads no frames; use `carousel.Stream`.")
        if config.task == "forecast":
            raise NotSupported(f"{name}: frames ahead are of clips that have ended; use `predict`.")
        if config.stack.bidirectional:
            raise NotSupported(f"{name}: a bidirectional stack reads its clip from both ends; use `predict`.")
        self._config, self._members = config, self._estimator.model_
        self._mark = _mark(self._estimator)
        self.reset()

    @property
    def frames(self) -> int:
        """Frames since the beginning of the clip, those included that the model does without."""
        return self._count

    def reset(self) -> None:
        """To the beginning of another clip."""
        self._count, self._due = 0, 0
        self._states: list[Any] = [None] * len(self._members)
        self._pools: list[Arrays] = [{} for _ in self._members]
        self._memories: list[Any] = [None] * len(self._members)
        self._expected: NDArray[np.float64] | None = None
        head = self._config.head
        self._views = DetectState(head) if isinstance(head, OddFramesHead) else None  # type: ignore[arg-type]

    def push(self, picture: Any, seconds: float | None = None) -> dict[str, Any] | None:
        """One picture [h, w] or [h, w, 1 to 4], of any size: a dict whose keys are the columns of `predict`.

        None where the model does without this frame, by `every` or `rate`; `rate` needs the time in `seconds` since
        the first frame. Raises DataError where the array is no picture; the stream is then as it was before.
        """
        wanted = self._config.input.picture
        if wanted.rate is not None and seconds is None:
            raise DataError("the model was trained at a rate, so that push needs seconds; give the frame's time.")
        try:
            small = prepare(picture, wanted)
        except BadFrame as error:
            raise DataError(f"frame {self._count}: {error}; leave it out, or correct it.") from None
        number, self._count = self._count, self._count + 1
        if number % wanted.every:
            return None
        if wanted.rate is not None and seconds is not None:
            if seconds < self._due / wanted.rate - EARLY:
                return None
            self._due = int(max(self._due + 1, np.floor(seconds * wanted.rate + EARLY) + 1))
        with torch.no_grad():
            return self._odd(small) if self._views is not None else self._labelled(small)

    def _labelled(self, picture: Bytes) -> dict[str, Any]:
        made = []
        for k, member in enumerate(self._members):
            features, self._memories[k] = member.input.encode(torch.from_numpy(picture[None]), self._memories[k])
            rows = Ragged(features, torch.tensor([0, 1]))
            none = torch.zeros(1, 0)
            batch = SequenceBatch(rows, none.long(), torch.zeros(1), none, none.long())
            out, self._states[k] = member.rows(batch, self._states[k])
            pooled = out.values
            if self._config.task == "classify":
                pooled, self._pools[k] = _pooled(member.head, pooled, self._pools[k])
            made.append(member.head.output(pooled).double())
        outputs = torch.stack(made).mean(0).numpy()
        return {name: _plain(values[0]) for name, values in self._read_out(outputs).items()}

    def _read_out(self, outputs: NDArray[np.float64]) -> Mapping[str, NDArray[Any]]:
        if self._config.task == "tag":
            found: dict[str, NDArray[Any]] = self._estimator._read_out(outputs)
            return found
        head = self._config.head
        if head.kind == "label":
            chance = probabilities(outputs, head.temperature)
            rest = {f"p_{name}": chance[:, k] for k, name in enumerate(head.classes)}
            return {"prediction": self._estimator.classes_[chance.argmax(1)]} | rest
        numbers = head.numbers(outputs)
        return {"prediction": numbers[:, 0]} | {f"q{q:g}": numbers[:, 1 + k] for k, q in enumerate(head.quantiles)}

    def _odd(self, picture: Bytes) -> dict[str, Any]:
        head: OddFramesHead = self._config.head
        views = self._views
        if views is None:
            raise RuntimeError("a detector without its views")
        truth = picture[None].astype(np.float64) / 255
        blocks = len(head.columns)
        errors = np.full(blocks, np.nan)
        if self._expected is not None:
            errors = block_errors(self._expected, truth, head.blocks)[0]
        found = views.judge(errors, block_means(picture[None], head.blocks)[0])
        known = self._expected is not None or any(view.of == "value" for view in head.views)
        guess: Tensor = torch.zeros(())
        for k, member in enumerate(self._members):
            logits, self._states[k] = member.step(as_numbers(picture[None])[:, None], self._states[k])
            guess = guess + torch.sigmoid(logits) / len(self._members)
        self._expected = guess[:, 0].permute(0, 2, 3, 1).double().numpy()
        odd = bool(found.anomaly[0]) and known
        because = ", ".join(most_of(found.parts[0], head.columns)) or None if odd else None
        return {"score": float(found.score[0]) if known else None, "anomaly": odd, "because": because}

    def state(self) -> bytes:
        """All that the next frames depend on."""
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, **self._arrays())
        body = held.getvalue()
        return self._mark + zlib.crc32(body).to_bytes(4, "little") + body

    def restore(self, state: bytes) -> None:
        """Go on from what `state` gave; CarouselError where it is of another model, or damaged."""
        if not isinstance(state, bytes) or len(state) < len(self._mark) + 4:
            raise CarouselError("these bytes are no state of a stream; give what `state` gave.")
        at = len(self._mark)
        mark, check, body = state[:at], state[at : at + 4], state[at + 4 :]
        if mark != self._mark:
            raise CarouselError("the state belongs to another model; use the model that it came from.")
        if zlib.crc32(body).to_bytes(4, "little") != check:
            raise CarouselError("the state is damaged; take one that `state` gave.")
        with np.load(io.BytesIO(body), allow_pickle=False) as found:
            self._take({name: found[name] for name in found.files})

    def _arrays(self) -> Arrays:
        found: Arrays = {"at": np.array([self._count, self._due])}
        for k, state in enumerate(self._states):
            for layer, (h, c) in enumerate([] if state is None else state if self._views is not None else [state]):
                found |= {f"{k}.h.{layer}": h.numpy(), f"{k}.c.{layer}": c.numpy()}
            if (memory := self._memories[k]) is not None:
                found |= {f"{k}.memory.{n}": part.numpy() for n, part in enumerate(memory)}
            found |= {f"{k}.pool.{name}": value for name, value in self._pools[k].items()}
        if self._expected is not None:
            found["expected"] = self._expected
        if self._views is not None:
            v = self._views
            found |= {f"ring.{k}": ring for k, ring in enumerate(v.rings)}
            found |= {f"low.{k}": low for k, low in enumerate(v.low)} | {f"high.{k}": h for k, h in enumerate(v.high)}
            found |= {"largest": np.array(v.largest), "rest": np.array([v.held, v.left])}
        return found

    def _take(self, found: Arrays) -> None:
        self.reset()
        self._count, self._due = (int(n) for n in found["at"])
        for k in range(len(self._members)):
            layers = sorted(int(name.rsplit(".", 1)[1]) for name in found if name.startswith(f"{k}.h."))
            pairs = [(torch.from_numpy(found[f"{k}.h.{n}"]), torch.from_numpy(found[f"{k}.c.{n}"])) for n in layers]
            if pairs:
                self._states[k] = pairs if self._views is not None else pairs[0]
            if f"{k}.memory.0" in found:
                self._memories[k] = tuple(torch.from_numpy(found[f"{k}.memory.{n}"]) for n in (0, 1))
            start = f"{k}.pool."
            self._pools[k] = {name.removeprefix(start): v for name, v in found.items() if name.startswith(start)}
        self._expected = found.get("expected")
        if self._views is not None:
            v, count = self._views, len(self._config.head.views)
            v.rings = [found[f"ring.{k}"] for k in range(count)]
            v.low, v.high = [found[f"low.{k}"] for k in range(count)], [found[f"high.{k}"] for k in range(count)]
            v.largest = found["largest"].tolist()
            v.held, v.left = float(found["rest"][0]), int(found["rest"][1])


def _pooled(head: Any, row: Tensor, before: Arrays) -> tuple[Tensor, Arrays]:
    """The rows so far as one [1, P], and what the next row needs of them."""
    if head.pooling == "last":
        return row, {}
    value = row.double()
    if head.pooling == "max":
        top = value if not before else torch.maximum(value, torch.from_numpy(before["top"]))
        return top.to(row.dtype), {"top": top.numpy()}
    score = float(head.attention(row)[0, 0]) if head.attention is not None else 0.0
    peak = max(score, float(before["peak"])) if before else score
    fade = float(np.exp(float(before["peak"]) - peak)) if before else 0.0
    own = float(np.exp(score - peak))
    total = value * own + (torch.from_numpy(before["total"]) * fade if before else 0.0)
    mass = own + (float(before["mass"]) * fade if before else 0.0)
    return (total / mass).to(row.dtype), {"peak": np.array(peak), "total": total.numpy(), "mass": np.array(mass)}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _mark(estimator: Any) -> bytes:
    found = hashlib.sha256(json.dumps(estimator.config_.to_json(), sort_keys=True).encode())
    for name in sorted(estimator._weights):
        found.update(np.ascontiguousarray(estimator._weights[name]).tobytes())
    return b"crsf" + found.digest()[:12]
