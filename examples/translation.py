"""A translator from German to English on sentences that a small grammar makes: word order, agreement, unseen pairs."""

import itertools
import random

from carousel import TrainConfig, Translator
from carousel.evaluate_texts import evaluate_pairs
from carousel.heads.search import Beam

who = {"der Hund": "the dog", "die Katze": "the cat", "das Pferd": "the horse", "der Bär": "the bear"}
whom = {"den Ball": "the ball", "die Tür": "the door", "das Haus": "the house", "den Apfel": "the apple"}
does = {"sieht": ("sees", "seen"), "sucht": ("seeks", "sought"), "findet": ("finds", "found")}
when = {"heute": "today", "gestern": "yesterday", "im Garten": "in the garden", "": ""}

pairs = set()
for (a, b), (c, d), (e, (f, g)), (h, i) in itertools.product(who.items(), whom.items(), does.items(), when.items()):
    once = e.replace("sieht", "gesehen").replace("sucht", "gesucht").replace("findet", "gefunden")
    pairs |= {(f"{a} {e} {c} {h}.", f"{b} {f} {d} {i}."), (f"{a} hat {c} {h} {once}.", f"{b} has {g} {d} {i}.")}
pairs = sorted((" ".join(a.split()).replace(" .", "."), " ".join(b.split()).replace(" .", ".")) for a, b in pairs)
random.Random(0).shuffle(pairs)
train, test = pairs[:320], pairs[320:]

config = TrainConfig(
    hidden_size=64, steps=700, least_steps=700, batch_rows=400, warmup=20, learning_rate=0.01, averaging=0.9, threads=1
)
model = Translator(vocabulary=400, embedding=48, config=config).fit(*zip(*train, strict=True))
found = evaluate_pairs(
    model, *zip(*test, strict=True), train=train and [a for a, _ in train], train_y=[b for _, b in train]
)
print(found.markdown())
for text in ("der Bär hat die Tür gestern gefunden.", "das Pferd sucht den Apfel."):
    print(text, "->", model.translate([text], beam=Beam(5, length_penalty=1.0))[0])
