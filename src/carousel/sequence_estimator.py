"""What estimators of whole sequences have in common: parameters, reading, saving, and the way to their outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig, StackConfig, from_record
from carousel.errors import CarouselError, DataError
from carousel.estimator import Estimator, versions
from carousel.inputs import columns
from carousel.inputs.clips import Clips, fit_frames, read_clips, read_pictures
from carousel.inputs.corpus import Corpus
from carousel.inputs.frames import Frames, FramesInput
from carousel.inputs.labels import Labels
from carousel.inputs.roles import Roles
from carousel.inputs.rows import Sequences, channels, read_arrays, read_sequences, sequence_roles
from carousel.inputs.sequence import SequenceInput
from carousel.inputs.sequence_fit import fit_input
from carousel.inputs.table import append_rows
from carousel.inputs.tokens import TextConfig, TokenInput
from carousel.sequences import SequenceTask, outputs
from carousel.text_estimator import ReadsTexts
from carousel.trainconfig import TrainConfig

__all__ = ["SequenceEstimator", "is_frame", "names", "versions"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KEPT = ("categorical", "class_weight", "cost", "precision")


class SequenceEstimator(ReadsTexts, Estimator):
    """What reads tables and arrays as whole sequences; `per_row` says whether its head speaks of rows or sequences."""

    per_row: ClassVar[bool]

    id: str | None
    time: str | None
    target: str | None
    features: Sequence[str] | None
    static: Sequence[str]
    categorical: Sequence[str]
    long: Sequence[str] | None
    kind: Literal["label", "regression"]
    class_weight: Literal["balanced"] | Mapping[Any, float] | None
    frames: str | Frames | None = None
    frame_defaults: ClassVar[TrainConfig]
    n_features_in_: int
    decoding_: Callable[[int, int], None] | None = None  # told of clips that are decoded, of how many

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator that does not inherit from its own (its import takes a second)."""
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        labels = self.kind == "label"
        return Tags(
            estimator_type="classifier" if labels else "regressor",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags() if labels else None,
            regressor_tags=None if labels else RegressorTags(poor_score=True),
            input_tags=InputTags(three_d_array=True, allow_nan=True),
            non_deterministic=False,
        )

    def read(self, data: Any, *, source: str = "data", target: bool = False) -> Sequences:
        """The sequences of a table or of arrays, as the fitted model takes them.

        `target`: the column of the target must be there. Raises DataError for faults of the data.
        """
        seen: Any = self._fitted().input
        if isinstance(seen, FramesInput):
            return self._read_frames(data, seen.roles, source, target)
        if isinstance(seen, TokenInput):
            return self._read_texts(data, seen.roles, is_frame(data), source, target)  # type: ignore[return-value]
        if is_frame(data):
            return read_sequences(
                data,
                seen.roles,
                source=source,
                fitted=seen,
                variable=seen.variable,
                value=seen.value,
                target=target,
                answered=self.per_row,
            )
        found = read_arrays(data, source=source)
        count, expected = _features(data, found), getattr(self, "n_features_in_", len(seen.roles.features))
        if count != expected or found.features.shape[1] != len(seen.roles.features):
            raise DataError(
                f"{source} has {count} features, but {type(self).__name__} is expecting {expected} features as input;"
                " give the channels of training (and ragged sequences as a list of arrays)."
            )
        return found

    @property
    def predict_proba(self) -> Callable[..., Any]:
        """`predict_proba(X)`: calibrated probabilities of `classes_`, [B, K] of sequences, of rows [T, K] for each
        sequence of arrays and [N, K] for the rows of a table in their order. Absent from a model of numbers."""
        if self.kind == "regression":
            raise AttributeError("a model of numbers has no predict_proba; its predictions have quantiles")
        return self._predict_proba

    def _predict_proba(self, X: Any, *, source: str | None = None) -> Any:
        raise NotImplementedError

    def outputs(self, sequences: Sequences) -> Floats:
        """What the head gives before its read-out, mean over the members: [N, .] of rows or [B, .] of sequences."""
        config = self._fitted()
        return outputs(self.model_, channels(sequences, config.input), per_row=self.per_row, told=self.decoding_)

    def _task(self, sequences: Any) -> Any:
        """What makes of examples what is trained."""
        return self._text_task(sequences) if self.of_texts else SequenceTask

    @classmethod
    def _parameters_of(cls, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `__init__` from a fitted config, and from what `_parameters_to_keep` kept."""
        seen: Any = config.input
        kept = provenance.get("parameters", {})
        return cls._parameters_of_input(seen, config, provenance) | {
            name: kept[name] for name in KEPT if name in kept and name in cls._parameters
        }

    def _parameters_to_keep(self) -> dict[str, Any]:
        """For the provenance: the parameters that only a further `fit` needs, which the fitted config does not hold."""
        found: dict[str, Any] = {name: getattr(self, name, None) for name in KEPT}
        found["categorical"] = list(names(self.categorical))
        if isinstance(self.class_weight, Mapping):
            found["class_weight"] = {str(name): float(weight) for name, weight in self.class_weight.items()}
        for name in ("cost", "precision"):
            found[name] = None if found[name] is None else float(found[name])
        kept = {name: value for name, value in found.items() if value not in (None, [])}
        return {"parameters": kept} if kept else {}

    @staticmethod
    def _parameters_of_input(seen: Any, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        if isinstance(seen, FramesInput):
            return {"frames": Frames.fitted(seen), "time": seen.roles.time, "seeds": config.seeds}
        if isinstance(seen, TokenInput):
            words = from_record(TextConfig, provenance["text"], "provenance.text")
            text = next(iter(seen.roles.features), None)
            return {"id": seen.roles.id, "text": text, "words": words, "seeds": config.seeds}
        return {
            "id": seen.roles.id,
            "time": seen.roles.time,
            "features": seen.roles.features,
            "static": seen.roles.static,
            "long": None if seen.variable is None or seen.value is None else (seen.variable, seen.value),
            "seeds": config.seeds,
        }

    def _read_to_fit(self, data: Any, target: str | None, source: str) -> Sequences:
        """The sequences of a table with roles inferred, or of arrays."""
        self._check_names()
        if self.frames is not None:
            return self._read_frames(data, self._frame_roles(data, target, source), source, True)
        if not is_frame(data):
            for name in ("id", "time", "target", "features", "static", "categorical", "long"):
                if getattr(self, name, None):
                    raise CarouselError(
                        f"{name} is about the columns of a table, and {source} are arrays; leave it out."
                    )
            found = read_arrays(data, source=source)
            self.n_features_in_ = _features(data, found)
            return found
        variable, value = self.long or (None, None)
        roles = sequence_roles(
            data,
            id=self.id,
            time=self.time,
            target=() if target is None else (target,),
            features=None if self.features is None else names(self.features),
            static=names(self.static),
            variable=variable,
            value=value,
            source=source,
        )
        return read_sequences(
            data,
            roles,
            source=source,
            categorical=names(self.categorical),
            variable=variable,
            value=value,
            answered=self.per_row,
        )

    def _read_with_valid(
        self, data: Any, y: Any, valid: Any, target: str | None, source: str
    ) -> tuple[Sequences, Any, Floats | None]:
        """The sequences of `data` and `valid` together, their labels, and of each [B] the time from which its rows are
        held out, -inf for all and inf for none (None: no `valid` was given).

        Raises DataError where a sequence of `valid` is in the data as well; where rows have a target of their own, only
        for one that does not go on after the data.
        """
        if self.of_texts:
            return self._texts_with_valid(data, y, valid, target is not None, is_frame(data), source)  # type: ignore[return-value]
        if self.frames is not None and valid is not None and is_frame(data):
            return self._clips_with_valid(data, valid, target, source)
        own = self._read_to_fit(data, target, source)
        if valid is None:
            return own, y, None
        if own.backend is None:
            if not isinstance(valid, tuple) or len(valid) != 2:
                raise CarouselError("valid goes with arrays as a pair (X, y); give both.")
            size, count = getattr(self, "n_features_in_", 0), len(own.ids)
            found = self._read_to_fit([*data, *valid[0]], target, source)
            self.n_features_in_ = size
            since = np.where(np.arange(len(found.ids)) < count, np.inf, -np.inf)
            return found, [*y, *valid[1]], since
        other = self._read_to_fit(valid, target, "valid")
        begin = dict(zip(other.ids, other.time[other.offsets[:-1]].tolist(), strict=True))
        end = dict(zip(own.ids, own.time[own.offsets[1:] - 1].tolist(), strict=True))
        table = columns.as_frame(data, source)
        shared = tuple(name for name in table.columns if name in columns.as_frame(valid, "valid").columns)
        both = [name for name in own.ids if name in begin]
        for name in both:
            who = f"sequence {name!r}" if own.roles.id else "the only sequence (name the id column)"
            if not self.per_row:
                raise DataError(
                    f"valid: {who} is in the data as well, so that the validation would see what was trained on; take"
                    " it out of one of them."
                )
            if own.roles.time is None or begin[name] <= end[name]:
                raise DataError(
                    f"valid: {who} is in the data as well and does not go on after it in time; give other sequences,"
                    " or later rows."
                )
        found = self._read_to_fit(append_rows(table, valid, shared, "valid").to_native(), target, source)
        held = [np.inf if name not in begin else begin[name] if name in end else -np.inf for name in found.ids]
        return found, y, np.array(held)

    @property
    def settings(self) -> TrainConfig:
        """The choices of training: `config`, or the defaults of the task and of what it reads."""
        if self.config is None and self.of_texts:
            return self.text_defaults
        return self.frame_defaults if self.config is None and self.frames is not None else super().settings

    def _frames(self) -> Frames:
        return Frames.of(self.frames or Frames())

    def _frame_roles(self, data: Any, target: str | None, source: str) -> Roles:
        """Of a table of clips: which column names them, and which numbers their frames."""
        for name in ("id", "features", "static", "categorical", "long"):
            if getattr(self, name, None):
                raise CarouselError(f"{name} is about tables of numbers, and frames is given; leave it out.")
        given = self._frames()
        if not is_frame(data):
            for name in ("time", "target"):
                if getattr(self, name, None):
                    raise CarouselError(
                        f"{name} is about the columns of a table, and {source} are arrays; leave it out."
                    )
            return Roles()
        if given.column is None:
            raise CarouselError("which column holds the clips is not said; name it, as frames='path'.")
        return Roles(given.column, self.time, () if target is None else (target,), (), ())

    def _read_frames(self, data: Any, roles: Roles, source: str, target: bool) -> Clips:
        given = self._frames()
        if not is_frame(data):
            return read_pictures(data, given, source=source)
        if roles.id is None:
            raise DataError(f"{source}: the model was trained on arrays of frames; give a list of arrays [T, H, W, C].")
        return read_clips(data, roles, given, source=source, target=target, progress=self.decoding_)

    def _clips_with_valid(
        self, data: Any, valid: Any, target: str | None, source: str
    ) -> tuple[Sequences, Any, Floats | None]:
        """Clips of both tables, decoded once; those of `valid` are held out."""
        roles = self._frame_roles(data, target, source)
        table, other = columns.as_frame(data, source), columns.as_frame(valid, "valid")
        for one, name in ((table, source), (other, "valid")):
            columns.require(one, roles.columns, name)
        own, held = (set(one[str(roles.id)].to_list()) for one in (table, other))
        both = [name for name in held if name in own]
        if both:
            raise DataError(f"valid: the clip {both[0]!r} is in the data as well; take it out of one of them.")
        joined = append_rows(table, valid, roles.columns, "valid").to_native()
        found = self._read_frames(joined, roles, source, True)
        return found, None, np.array([-np.inf if name in held else np.inf for name in found.ids])

    def _check_names(self) -> None:
        for name in ("id", "time", "target", "event"):
            value = getattr(self, name, None)
            if value is not None and not isinstance(value, str):
                raise CarouselError(f"{name} must be the name of a column as text, got {value!r}; give it as text.")
        if self.long is not None and (isinstance(self.long, str) or len(self.long) != 2):
            raise CarouselError(f"long must name two columns, of the variable and of its value, got {self.long!r}.")
        self._check_seeds()

    def _check_class_weight(self, kind: str) -> None:
        given = self.class_weight
        if given is not None and given != "balanced" and not isinstance(given, Mapping):
            raise CarouselError(f"class_weight must be None, 'balanced' or a weight for each label, got {given!r}.")
        if given is not None and kind == "regression":
            raise CarouselError("class_weight is about labels, and kind is regression; leave it out.")

    def _class_weights(self, truth: Labels) -> Floats:
        """What each label counts in the loss."""
        weight = np.ones(len(truth.values))
        known = np.isfinite(truth.values)
        codes = truth.values[known].astype(np.int64)
        if isinstance(self.class_weight, Mapping):
            names = [str(name) for name in self.class_weight]
            found = dict(zip(names, self.class_weight.values(), strict=True))
            classes = truth.classes or ("0", "1")
            for name in names:
                if name not in classes and f"{name}.0" not in classes:
                    raise CarouselError(f"class_weight names {name!r}, which is no label; labels are {classes}.")
            each = [float(found.get(name, found.get(name.removesuffix(".0"), 1.0))) for name in classes]
            if min(each) < 0:
                raise CarouselError(f"class_weight must not be negative, got {self.class_weight!r}.")
            weight[known] = np.array(each)[codes]
        elif self.class_weight == "balanced":
            count = np.bincount(codes)
            weight[known] = (len(codes) / ((count > 0).sum() * np.maximum(count, 1)))[codes]
        return weight

    def _input(self, sequences: Sequences, training: Ints) -> Any:
        if isinstance(sequences, Corpus):
            return self._token_input(sequences, training)
        if isinstance(sequences, Clips):
            return fit_frames(sequences, training, Frames.of(self._frames()))
        variable, value = self.long or (None, None)
        return fit_input(sequences, training, variable=variable, value=value)

    def _stack(self, seen: SequenceInput) -> StackConfig:
        """Decay is on where the clock is uneven, unless the settings say otherwise."""
        settings = self.settings
        cell = settings.cell
        if getattr(seen, "uneven", False) and settings.uneven_decay:
            cell = dataclasses.replace(cell, decay=True)
        try:
            return StackConfig(
                settings.hidden_size, settings.num_layers, settings.dropout, cell, settings.bidirectional
            )
        except ValueError as error:
            raise CarouselError(f"{error}; correct the parameter.") from None


def _features(data: Any, sequences: Sequences) -> int:
    """Of a 2-D array [B, T], or lists in a list, the steps, as scikit-learn counts features; else the channels."""
    if isinstance(data, list) and all(isinstance(part, list) and not isinstance(part[0], list) for part in data):
        lengths = {len(part) for part in data}
        return lengths.pop() if len(lengths) == 1 else sequences.features.shape[1]
    return int(data.shape[1]) if getattr(data, "ndim", 0) == 2 else sequences.features.shape[1]


def is_frame(data: Any) -> bool:
    return isinstance(nw.from_native(data, eager_only=True, pass_through=True), nw.DataFrame)


def names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
