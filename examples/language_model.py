"""A language model of Unicode's names of characters, letter by letter: how surprising names are, and new ones."""

import math
import random
import unicodedata

from carousel import Generator, TrainConfig
from carousel.generator import stream_of
from carousel.heads.search import Sampling
from carousel.ngrams import KneserNey

names = sorted({unicodedata.name(chr(code), "").lower() for code in range(0x00A0, 0x2FFF)} - {""})
random.seed(0)
random.shuffle(names)
train, valid, test = names[:3000], names[3000:3100], names[3100:3300]

config = TrainConfig(
    hidden_size=128, steps=900, least_steps=900, batch_size=16, batch_rows=16 * 40, learning_rate=1e-2, threads=1
)
model = Generator(tokens="char", embedding=32, dropout=0.0, config=config).fit(train, valid=valid)

words, letters = model.config_.input.words, sum(len(name) for name in test)
grams = KneserNey(stream_of(words, train), size=words.size, order=5)
counted = grams.nats(stream_of(words, test)).sum() / letters / math.log(2)
bits = model.perplexity(test).nats_per_character / math.log(2)
print(f"bits a letter of {len(test)} unseen names: LSTM {bits:.2f}, 5-grams {counted:.2f}")

for k, beginning in enumerate(("greek capital ", "musical symbol ", "box drawings ")):
    made = model.sample([beginning], samples=3, length=30, sampling=Sampling(temperature=0.7), seed=k)[0]
    print(f"{beginning}{', '.join(text for text, _ in made)}")
