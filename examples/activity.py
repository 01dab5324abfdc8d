"""What is this person doing? Motion sensors of a wrist, a label for each recording, from arrays of any length.

With CAROUSEL_DATA set BasicMotions (UEA archive), otherwise generated recordings.
"""

import os
from pathlib import Path

import numpy as np

from carousel import Classifier, TrainConfig
from carousel.bench.sets import archive
from carousel.evaluate_sequences import evaluate


def generated(seed: int, count: int = 60) -> tuple[list[np.ndarray], list[str]]:
    """Walking and running swing at their own pace, standing does not."""
    rng = np.random.default_rng(seed)
    pace, swing = {"standing": 0.0, "walking": 0.5, "running": 1.1}, {"standing": 0.0, "walking": 0.8, "running": 1.6}
    recordings, labels = [], []
    for k in range(count):
        label = list(pace)[k % 3]
        t = np.arange(int(rng.integers(40, 80))) + rng.uniform(0, 10)
        wave = swing[label] * np.sin(pace[label] * rng.uniform(0.9, 1.1) * t)
        recordings.append(np.stack([wave, np.roll(wave, 2), 9.8 + 0.5 * wave], 1) + 0.3 * rng.normal(size=(len(t), 3)))
        labels.append(label)
    return recordings, labels


if (Path(os.environ.get("CAROUSEL_DATA", "")) / "ueaucr_small").is_dir():
    (train, y), (test, z) = (archive("ueaucr_small", "BasicMotions", part) for part in ("TRAIN", "TEST"))
else:
    (train, y), (test, z) = generated(0), generated(1)
quick = TrainConfig(steps=200, hidden_size=24, learning_rate=5e-3, batch_size=16, width=0)  # leave it out for real use
model = Classifier(pooling="max", config=quick).fit(train, y)
found = evaluate(model, test, z, train=train, train_y=y)
found.show()
print(model.predict(test[:4]))
