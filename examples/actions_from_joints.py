"""What is this person doing? Joints of a skeleton are numbers in columns: a table, and no model of pictures.

With CAROUSEL_DATA set J-HMDB (14 actions, the first official split), otherwise stick figures made here.
"""

import os
from pathlib import Path

import numpy as np

from carousel import Classifier, TrainConfig
from carousel.bench.joints import joint_channels, moved
from carousel.bench.sets import jhmdb

rng = np.random.default_rng(0)


def figures(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Clips [T, 15, 2] of people who wave (a wrist goes up and down), squat (hips do), or walk (ankles swing)."""
    body = np.array([[0, -1], [0, 0], [0, -1.4], [-0.4, -0.9], [0.4, -0.9], [-0.2, 0.2], [0.2, 0.2], [-0.6, -0.4]])
    body = np.concatenate([body, [[0.6, -0.4], [-0.2, 1], [0.2, 1], [-0.7, 0.1], [0.7, 0.1], [-0.2, 1.8], [0.2, 1.8]]])
    moving = {"wave": [(12, 1)], "squat": [(5, 1), (6, 1), (1, 1)], "walk": [(13, 0), (14, 0)]}
    names, clips = rng.choice(list(moving), count), []
    for name in names:
        swing = 0.5 * np.sin(np.arange(rng.integers(15, 40)) * rng.uniform(0.4, 0.8))
        clip = body + 0.05 * rng.normal(size=(len(swing), 15, 2))
        for k, (joint, axis) in enumerate(moving[name]):
            clip[:, joint, axis] += swing * (-1) ** k
        clips.append(clip)
    return clips, names


real = (Path(os.environ.get("CAROUSEL_DATA", "")) / "jhmdb_skeleton").is_dir()
clips, labels, test = (*jhmdb()[:2], jhmdb()[2][0]) if real else (*figures(120), np.arange(120) >= 80)
train = [k for k in np.flatnonzero(~test) for _ in range(4)]  # each clip four times, mirrored, turned and stretched
X = [joint_channels(moved(clips[k], rng)) for k in train]
quick = TrainConfig(steps=300 if real else 120, hidden_size=32, dropout=0.4, batch_size=32, width=0, holdout=0.0)
model = Classifier(pooling="attention", config=quick).fit(X, labels[train])
right = model.score([joint_channels(clips[k]) for k in np.flatnonzero(test)], labels[test])
print(f"{right:.0%} of {test.sum()} clips are named rightly")
