"""Is a review good or bad? A text classifier on sentences that stand here, in seconds."""

import itertools

import polars as pl

from carousel import Classifier, TextConfig
from carousel.evaluate_sequences import evaluate

GOOD = ["a joy", "well acted", "truly moving", "funny and warm", "a small masterpiece"]
BAD = ["a chore", "badly acted", "truly dull", "loud and empty", "a small disaster"]
FRAMES = ["the film is {}", "what I saw was {}", "the plot is {}", "we found it {}", "{} from the first scene on"]

rows = [(frame.format(word), "good") for frame, word in itertools.product(FRAMES, GOOD)]
rows += [(frame.format(word), "bad") for frame, word in itertools.product(FRAMES, BAD)]
table = pl.DataFrame(rows, schema=["review", "label"], orient="row").sample(fraction=1.0, shuffle=True, seed=1)
train, test = table.head(35), table.tail(15)

words = TextConfig("word", fewest=1, width=16)
quick = Classifier.text_defaults.with_settings(["hidden_size=16", "steps=300", "learning_rate=0.02", "dropout=0.2"])
model = Classifier("label", text="review", words=words, config=quick).fit(train)

found = evaluate(model, test, train=train)
found.show()
print(model.predict(pl.DataFrame({"review": ["we found it well acted", "the ending is loud and empty"]})))
