"""Sequence to sequence: dates as people write them, into ISO 8601; learned from examples alone."""

import random
from datetime import date, timedelta

from carousel import TrainConfig, Translator
from carousel.heads.search import Beam

FORMS = ("{d}. {long} {y}", "{long} {d}, {y}", "{d} {short} {y}", "the {d} of {long} {y}")
random.seed(0)


def written() -> tuple[str, str]:
    day = date(1950, 1, 1) + timedelta(random.randrange(40_000))
    parts = {"d": day.day, "long": f"{day:%B}", "short": f"{day:%b}".lower(), "y": day.year}
    return random.choice(FORMS).format(**parts), day.isoformat()


pairs = [written() for _ in range(4000)]
config = TrainConfig(hidden_size=96, steps=700, least_steps=700, batch_size=64, learning_rate=8e-3, threads=1)
model = Translator(tokens="char", merges=0.0, embedding=64, smoothing=0.0, config=config)
model.fit([text for text, _ in pairs], [iso for _, iso in pairs])

asked = ["3. May 1998", "the 24 of December 2031", "9 feb 1977", "July 4, 1976"]
for text, made in zip(asked, model.translate(asked, beam=Beam(3)), strict=True):
    print(f"{text:26} {made}")

fresh = [written() for _ in range(200)]
made = model.translate([text for text, _ in fresh], beam=Beam(1))
right = sum(a == iso for a, (_, iso) in zip(made, fresh, strict=True)) / len(fresh)
print(f"{right:.0%} of 200 fresh dates are right")
