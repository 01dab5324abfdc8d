"""What does a person want, and with what? Slots and the intent of an utterance in one model, in a few seconds."""

import itertools

import polars as pl

from carousel import Tagger, TextConfig
from carousel.evaluate_sequences import evaluate

CITIES = ["Rome", "New York", "Accra", "Rio de Janeiro", "Oslo"]
SONGS = ["Imagine", "Purple Rain", "Hey Jude", "So What", "Roxanne"]
ASKED = ["weather in {} please", "will it rain in {} today", "how warm is {} now"]
PLAYED = ["play {}", "put on {} please", "I want to hear {} now"]


def utterance(frame: str, name: str, slot: str, intent: str) -> tuple[str, str, str]:
    labels = [
        f"B-{slot}" if k == 0 else f"I-{slot}" for k in range(len(name.split()))
    ]  # the first word begins a slot, others go on
    tags = frame.replace("{}", "\0").split()
    tags = [tag for word in tags for tag in (labels if word == "\0" else ["O"])]
    return frame.format(name), " ".join(tags), intent


rows = [utterance(frame, city, "city", "weather") for frame, city in itertools.product(ASKED, CITIES)]
rows += [utterance(frame, song, "song", "music") for frame, song in itertools.product(PLAYED, SONGS)]
table = pl.DataFrame(rows, schema=["words", "slots", "intent"], orient="row")

words = TextConfig("word", fewest=1, width=16, spelling=4)
quick = Tagger.text_defaults.with_settings(["hidden_size=16", "steps=300", "learning_rate=0.02", "dropout=0.2"])
model = Tagger("slots", text="words", intent="intent", crf=True, words=words, config=quick).fit(table)

found = evaluate(model, table, train=table)
print(model.predict(pl.DataFrame({"words": ["play Purple Rain please", "will it rain in New York"]})))
print(f"span F1 {found.of('LSTM')['span_f1']:.3f} on what it has learned from; other data tell more")
