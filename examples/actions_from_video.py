"""Which way does it go? A label for every frame of videos, said again frame by frame, and drawn on the video."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from carousel import ClipStream, Frames, Tagger
from carousel.inputs.frames_files import read_clip
from carousel.render import Caption, encode, render

folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)


def film(name: str, frames: int = 24, side: int = 32) -> list[str]:
    """Write a video of a disc that turns round in the middle; the way it goes in each frame."""
    first, turn = int(rng.integers(2)), int(rng.integers(8, 16))
    ways = [("left", "right")[(first + (t >= turn)) % 2] for t in range(frames)]
    x = np.cumsum([1.0 if way == "right" else -1.0 for way in ways]) + side / 2 + rng.uniform(-4, 4)
    row, column = np.mgrid[:side, :side]
    disc = [(np.hypot(row - 16, column - at) < 5) * 200 + rng.integers(0, 40, (side, side)) for at in x]
    encode(iter(np.array(disc, np.uint8)), folder / name, rate=12)
    return ways


clips = {f"clip{k:02}.mp4": film(f"clip{k:02}.mp4") for k in range(24)}
rows = [(name, frame, way) for name, ways in clips.items() for frame, way in enumerate(ways)]
table = pl.DataFrame(rows, schema=["clip", "frame", "way"], orient="row")  # one row for each frame
frames = Frames("clip", size=24, grey=True, filters=(8, 16), features=24, root=folder)
quick = Tagger.frame_defaults.with_settings(["steps=150", "hidden_size=24", "learning_rate=5e-3"])
model = Tagger("way", time="frame", frames=frames, config=quick).fit(table.head(20 * 24))
new = table.tail(4 * 24)
right = (model.predict(new)["prediction"] == new["way"]).mean()
model.save(folder / "m.safetensors")
stream = ClipStream(folder / "m.safetensors")  # as a camera would be read
said = [stream.push(frame.picture) for frame in read_clip(folder / "clip23.mp4", frames.picture)]
captions = [Caption(k, one["prediction"], max(one["p_left"], one["p_right"])) for k, one in enumerate(said)]
print(f"{right:.0%} of frames are right; drawn: {render(folder / 'clip23.mp4', captions, folder / 'said.mp4')} frames")
