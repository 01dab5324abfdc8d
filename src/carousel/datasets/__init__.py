"""Generators of the classic tasks of memory, seeded and without end, and small real sets from installed packages."""

from carousel.datasets.digits import digits
from carousel.datasets.examples import Examples, Task
from carousel.datasets.lags import Adding, Copy, Distractors, Multiplication, NoisyLag, TemporalOrder
from carousel.datasets.languages import Counting, CycleNavigation, EmbeddedReber, EvenPairs, ModularArithmetic, Parity
from carousel.datasets.moving import digit_images, digit_order, moving_digits

__all__ = [
    "Adding",
    "Copy",
    "Counting",
    "CycleNavigation",
    "Distractors",
    "EmbeddedReber",
    "EvenPairs",
    "Examples",
    "ModularArithmetic",
    "Multiplication",
    "NoisyLag",
    "Parity",
    "Task",
    "TemporalOrder",
    "digit_images",
    "digit_order",
    "digits",
    "moving_digits",
]
