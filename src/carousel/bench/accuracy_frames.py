"""Accuracy on clips: digits in order, digits that move, and actions from the joints of people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.bench import sets
from carousel.bench.accuracy import Figures, Outcome, Stopwatch, over_seeds
from carousel.bench.joints import joint_channels, moved
from carousel.classifier import Classifier
from carousel.datasets import digit_order, moving_digits
from carousel.estimators import Forecaster
from carousel.evaluate_frames import COPY, FramesEvaluation, evaluate_frames
from carousel.inputs.frames import Frames
from carousel.render import strip

__all__ = ["digits_in_order", "forecast_moving_digits", "jhmdb", "moving_mnist"]

Bytes = NDArray[np.uint8]


def digits_in_order(seeds: Sequence[int] = (0, 1, 2)) -> Outcome:
    """Clips of 6 to 12 digits; the label is which of two of them comes first, so that only the order tells."""
    learned, labels = digit_order(1200, seed=1)
    ordered, truth = digit_order(600, seed=2, part="test")
    mixed, same = digit_order(600, seed=2, part="test", shuffled=True)
    watch, found = Stopwatch(), []
    for seed in seeds:
        model = Classifier(frames=Frames(size=28, grey=True, filters=(16, 32, 32)))
        model.set_params(config=dataclasses.replace(model.settings, seed=1000 * seed))
        with watch:
            model.fit(learned, labels)
            figures = {"in order": model.score(ordered, truth), "shuffled": model.score(mixed, same)}
        found.append({"LSTM": figures})
    rows, sd = over_seeds(found, ("in order", "shuffled"))
    return Outcome(
        "order",
        "Digits one after another, 28 x 28, made from scikit-learn's digits: does the 3 or the 7 come first? 1,200"
        " clips to learn from, 600 to test, of images that training has not seen; accuracy in order, and shuffled"
        " (chance is 0.5, three deviations are 0.061).",
        "frames=Frames(size=28, grey=True, filters=(16, 32, 32))",
        len(seeds),
        rows,
        sd,
        {"in order": (">=", 0.95), "shuffled": ("<=", 0.561)},
        watch.seconds,
    )


ACTIONS: dict[str, Any] = {
    "bidirectional": True,
    "steps": 500,
    "epochs": 1000.0,
    "batch_size": 64,
    "holdout": 0.0,
    "patience": 0,
}
COPIES, MEMBERS = 8, 3  # of each training clip, moved; of the ensemble


def jhmdb(seeds: Sequence[int] = (0, 1, 2)) -> Outcome:
    """Actions from the joints of people, the three official splits; joints are arrays of numbers, and no frames."""
    clips, labels, tests = sets.jhmdb()
    watch, found = Stopwatch(), []
    for seed in seeds:
        parts = []
        for k, test in enumerate(tests):
            rng = np.random.default_rng([seed, k])
            learned = [clips[i] for i in np.flatnonzero(~test) for _ in range(1 + COPIES)]
            fresh = [clip if i % (1 + COPIES) == 0 else moved(clip, rng) for i, clip in enumerate(learned)]
            model = Classifier(pooling="attention", seeds=MEMBERS)
            model.set_params(config=dataclasses.replace(model.settings, seed=1000 * seed + k, **ACTIONS))
            with watch:
                model.fit([joint_channels(clip) for clip in fresh], np.repeat(labels[~test], 1 + COPIES))
                own = [joint_channels(clips[i]) for i in np.flatnonzero(test)]
                guess = model.predict(own)
                every = _each_frame(model, own)
            truth = labels[test]
            frames = np.mean(np.concatenate([e == t for e, t in zip(every, truth, strict=True)]))
            parts.append({"accuracy": float(np.mean(guess == truth)), "per frame": float(frames)})
        mean = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
        splits = {f"split {k + 1}": part["accuracy"] for k, part in enumerate(parts)}
        found.append({"LSTM": mean | splits})
    rows, sd = over_seeds(found, ("accuracy", "per frame", "split 1", "split 2", "split 3"))
    rows["logistic regression on means of six segments"] = {
        "accuracy": 0.727,
        "split 1": 0.705,
        "split 2": 0.733,
        "split 3": 0.743,
    }
    return Outcome(
        "jhmdb_skeleton",
        "J-HMDB, 14 actions from the 15 joints of people in 609 clips, mean of the three official splits (433 and 176"
        f" clips). Each training clip is shown as it is and {COPIES} times moved: mirrored, turned, stretched, hurried"
        " (`carousel.bench.joints`). Per frame: the label that each frame alone says, of those of its clip.",
        f"pooling=attention, seeds={MEMBERS}, " + ", ".join(f"{k}={v}" for k, v in ACTIONS.items()),
        len(seeds),
        rows,
        sd,
        {"accuracy": (">=", 0.75)},
        watch.seconds,
        {"DD-Net (its README; paper 0.772)": {"accuracy": 0.82}},
        ("Settings were chosen within the training part of split 1.",),
    )


def _each_frame(model: Classifier, clips: list[Any]) -> list[NDArray[Any]]:
    """The label that the outputs of each frame give by themselves."""
    import torch

    from carousel.inputs.rows import channels
    from carousel.model import sequence_batch

    seen = channels(model.read(clips), model.config_.input)
    with torch.no_grad():
        made = torch.stack([member(sequence_batch(seen), every_row=True)[1] for member in model.model_]).mean(0)
    names = model.classes_[made.argmax(1).numpy()]
    return np.split(names, seen.offsets[1:-1])


MOVING: dict[str, Any] = {
    "steps": 2500,
    "least_steps": 2500,
    "epochs": 1000.0,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "warmup": 100,
    "averaging": 0.99,
    "evaluate_every": 100,
    "patience": 0,
    "holdout": 0.02,
    "precision": "bf16-mixed",
    "checkpoint_every": 100,
}


def moving_mnist(seeds: Sequence[int] = (0,), out: Path | None = None, **settings: Any) -> Outcome:
    """Two digits of MNIST in 64 x 64 pixels: ten frames seen, ten predicted; `out` is a folder for a strip of them."""
    images = {part: sets.mnist_images(part) for part in ("train", "test")}
    clips = moving_digits(5000, frames=22, images=images["train"], seed=1)
    test = moving_digits(1000, frames=20, images=images["test"], seed=2)
    watch, found = Stopwatch(), []
    chosen = MOVING | settings
    for seed in seeds:
        with watch:
            made = forecast_moving_digits(clips, seed=1000 * seed, settings=chosen)
        if out is not None:
            _draw(made, test, out / "moving_mnist.png")
        found.append(figures(evaluate_frames(made, list(test))))
    rows, sd = over_seeds(found, ("MSE a frame", "SSIM", "below last frame"))
    return Outcome(
        "moving_mnist",
        "Moving MNIST, 64 x 64, two digits: 10 frames seen, 10 predicted; 5,000 clips made from the training digits,"
        " 1,000 from the test digits. Squared error summed over the pixels of a frame, SSIM, and the share of the last"
        " frame's squared error that is saved.",
        ", ".join(f"{k}={v}" for k, v in chosen.items() if k != "checkpoint_every"),
        len(seeds),
        rows,
        sd,
        {"below last frame": (">=", 0.4)},
        watch.seconds,
        {"ConvLSTM (Shi 2015, as in Wang 2017)": {"MSE a frame": 103.3, "SSIM": 0.707}},
    )


def _draw(model: Forecaster, clips: Bytes, place: Path) -> None:
    """Two clips: frames seen, true and predicted."""
    rows: list[tuple[str, list[Any]]] = []
    for clip in clips[:2, ..., None]:
        made = model.predict([clip[:10]])[0]
        rows += [("seen", list(clip[:10])), ("true", list(clip[10:])), ("predicted", list(made))]
    strip(rows, place)


def forecast_moving_digits(clips: Bytes, *, seed: int = 0, settings: dict[str, Any]) -> Forecaster:
    """A model of the next ten frames, fitted."""
    made = Forecaster(10, context=10, frames=Frames(size=clips.shape[2], grey=True, cache=1024))
    made.set_params(config=dataclasses.replace(made.settings, seed=seed, **settings))
    return made.fit(list(clips))


def figures(found: FramesEvaluation) -> dict[str, Figures]:
    """With the share of the copied last frame's error that each method saves."""
    copied = found.of(COPY)["MSE a frame"]
    return {
        name: {**{k: row[k] for k in ("MSE a frame", "SSIM")}, "below last frame": 1 - row["MSE a frame"] / copied}
        for name, row in found.rows.items()
    }
