"""Real learning curves: perceptrons that read digits, each with parameters of its own."""

from __future__ import annotations

import math
import random
import warnings
from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from bench.curves import Course

CLASSES = range(10)
TRAINED_ON = 1000
"""Images; the other 797 tell how good it is."""


@cache
def _images() -> tuple[Any, Any]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order] / 16, labels[order]


def learning_curve(number: int, epochs: int) -> Course:
    """Validation loss after each epoch of a training whose parameters are drawn from a number.

    An epoch counts 1 + width / 64 seconds: about as the arithmetic does, and the same on each
    machine.
    """
    dice = random.Random(f"perceptron/{number}")
    width = round(4 * 2 ** dice.uniform(0, 4))
    model = MLPClassifier(
        (width,),
        solver=dice.choice(["sgd", "adam"]),
        learning_rate_init=10 ** dice.uniform(-5, 0),
        alpha=10 ** dice.uniform(-7, 0),
        batch_size=dice.choice([16, 32, 64, 128]),
        momentum=dice.uniform(0.0, 0.99),
        random_state=number,
    )
    values: list[float] = []
    for _ in range(epochs):
        value = _epoch(model)
        if math.isnan(value):
            break
        values.append(value)
    diverged = len(values) < epochs
    missing = [math.nan] * (epochs - len(values))
    fails_at = len(values) + 1 if diverged else None
    return Course([*values, *missing], seconds=1 + width / 64, fails_at=fails_at)


def _epoch(model: MLPClassifier) -> float:
    """Train for an epoch; the validation loss, or NaN where the weights are no numbers."""
    images, labels = _images()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            model.partial_fit(images[:TRAINED_ON], labels[:TRAINED_ON], classes=CLASSES)
            foretold = model.predict_proba(images[TRAINED_ON:])
        except ValueError:  # it has diverged
            return math.nan
    if not np.isfinite(foretold).all():
        return math.nan
    return float(log_loss(labels[TRAINED_ON:], foretold, labels=CLASSES))
