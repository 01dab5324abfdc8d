"""Replies learned from dialogues: with a context of several turns, and not the one reply that fits everything."""

import random

from carousel import TrainConfig, Translator
from carousel.heads.search import Sampling
from carousel.replies import Mutual

draw = random.Random(0)
drinks = {"coffee": ("black or with milk", "with milk"), "tea": ("green or black", "green"), "juice": ("apple", "yes")}
cakes = ("apple pie", "cheesecake", "a muffin")
dialogues = []
for _ in range(300):
    drink, cake = draw.choice(list(drinks)), draw.choice(cakes)
    asked, answer = drinks[drink]
    dull = draw.random() < 0.6  # what people say most of the time, whatever they are asked
    dialogues.append(
        [
            f"a {drink} please",
            f"{asked} ?",
            answer,
            "anything to eat ?",
            f"{cake} please",
            "one moment" if dull else f"so {drink} and {cake}",
        ]
    )

config = TrainConfig(
    hidden_size=64, steps=600, least_steps=600, batch_rows=600, warmup=20, learning_rate=0.01, averaging=0.9, threads=1
)
model = Translator(tokens="word", merges=0.0, smoothing=0.0, embedding=32, turns=5, config=config).fit(dialogues)

for drink, cake in (("tea", "cheesecake"), ("coffee", "a muffin")):
    asked, answer = drinks[drink]
    turns = [f"a {drink} please", f"{asked} ?", answer, "anything to eat ?", f"{cake} please"]
    likeliest = model.translate([turns])[0]
    own = model.reply([turns], mutual=Mutual(weight=0.8, candidates=32, sampling=Sampling()))[0]
    print(f"{' / '.join(turns)}\n  likeliest: {likeliest}\n  about this: {own}")
