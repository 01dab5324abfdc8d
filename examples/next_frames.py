"""What comes next? Digits move and bounce; a model sees six frames of a clip and goes on with four of its own."""

import tempfile
from pathlib import Path

from carousel import Forecaster, Frames
from carousel.datasets import digit_images, moving_digits
from carousel.evaluate_frames import evaluate_frames
from carousel.render import strip

moving = {"size": 32, "digits": 1, "speed": 2.0}
train = moving_digits(200, frames=12, images=digit_images("train", side=14)[0], **moving)  # [200, 12, 32, 32]
test = moving_digits(20, frames=10, images=digit_images("test", side=14)[0], seed=1, **moving)

quick = Forecaster.frame_defaults.with_settings(
    ["steps=120", "least_steps=120", "hidden_size=16", "learning_rate=5e-3"]
)
model = Forecaster(4, context=6, frames=Frames(size=32, grey=True), config=quick)  # leave config out for real use
found = evaluate_frames(model.fit(list(train)), list(test))
found.show()

seen, true = test[0, :6, ..., None], test[0, 6:, ..., None]
place = Path(tempfile.mkdtemp()) / "frames.png"
strip([("seen", list(seen)), ("true", list(true)), ("predicted", list(model.predict([seen])[0]))], place)
print(f"a picture of it: {place}")
