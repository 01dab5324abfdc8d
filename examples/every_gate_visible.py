"""A drop-in for torch.nn.LSTM on sequences of different lengths: train a variant, then look at its gates."""

import torch

import carousel

torch.manual_seed(0)
lstm = carousel.LSTM(2, 24, peephole=True, forget_bias=1.0)
readout = torch.nn.Linear(24, 1)
optimizer = torch.optim.Adam([*lstm.parameters(), *readout.parameters()], 1e-2)


def batch(size: int) -> tuple[carousel.Ragged, torch.Tensor]:
    """The adding problem (Hochreiter & Schmidhuber 1997): sum the two marked numbers of each sequence."""
    sequences, sums = [], []
    for length in torch.randint(8, 25, (size,)).tolist():
        numbers, marks = torch.rand(length), torch.zeros(length)
        marks[torch.randperm(length)[:2]] = 1
        sequences.append(torch.stack([numbers, marks], 1))
        sums.append((numbers * marks).sum())
    return carousel.Ragged.from_list(sequences), torch.stack(sums)


for step in range(600):
    x, wanted = batch(64)
    _, (h, _) = lstm(x)  # the last state of each sequence, whatever its length
    loss = (readout(h[0])[:, 0] - wanted).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 200 == 199:
        print(f"step {step + 1}: mean squared error {loss.item():.4f} (always answering 1 gives 0.167)")

x, _ = batch(1)
_, _, trace = lstm(x, trace=True)
marked = x.values[:, 1] > 0
at, elsewhere = trace.i[0, 0, marked].mean(), trace.i[0, 0, ~marked].mean()
print(f"input gates are open {at:.2f} at marked numbers and {elsewhere:.2f} elsewhere")
