"""Six tasks of series 7 in small, with the risk that an oracle has.

    line         sin(4 π x) on [-1, 1]: sigmoids from a band                        (notebook 70)
    attention    mean over keys of ⟨β, key⟩²: one layer of attention                (notebook 71)
    permutation  bits of a binary input in another order                            (notebook 72)
    patches      the sign of a signal in one of many noisy patches                  (notebook 73)
    images       classes of images                                                  (notebook 74)
    colour       a shape, where a colour tells more, in the world of another colour (notebook 75)

Each is asked as a regression on its outputs. Risks are mean square errors ("line", "attention") or
shares of wrong answers, by sign or by the largest output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from rclib.checks.arguments import choice, count
from rclib.checks.arrays import Floats
from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.experiments.features.attention_runs import direction, sphere, target
from rclib.experiments.features.rich_data import coloured

__all__ = ["ERRORS", "TASKS", "Task", "risk", "task_of"]

TASKS = ("line", "attention", "permutation", "patches", "images", "colour")
ERRORS = {
    "line": "square", "attention": "square", "permutation": "sign", "patches": "sign",
    "images": "largest", "colour": "sign",
}  # fmt: skip
KEYS, KEY_SIZE = 8, 8  # of "attention": N and d
BITS = 12
PATCHES, SIGNAL, NOISE = 8, 12, 0.3  # of "patches": k, d and σ
NOISY_LABELS = 0.25  # of "colour"


@dataclass(frozen=True, eq=False)
class Task:
    """x, fresh : inputs (n, ...) and (n', ...). y, wanted : outputs (n, T), (n', T), centred by no
    one. error : "square", "sign" or "largest". oracle, constant : risks of who knows the rule, and
    of who has no features."""

    name: str
    x: Floats
    y: Floats
    fresh: Floats
    wanted: Floats
    error: str
    oracle: float
    constant: float


def risk(output: Floats, wanted: Floats, error: str) -> float:
    """Mean square error; share of wrong signs; or share of samples with another largest output.

    output, wanted : (n, T). Raises ValueError for another error.
    """
    if choice("error", error, ("square", "sign", "largest")) == "square":
        return float(np.square(output - wanted).mean())
    if error == "sign":
        return float((np.sign(output) != np.sign(wanted)).mean())
    return float((output.argmax(1) != wanted.argmax(1)).mean())


def task_of(name: str, seed: int, n: int, n_test: int, data: Dataset | None = None) -> Task:
    """A task with n samples and n_test fresh ones, drawn by the seed.

    data : images, for "images" alone, averaged over squares of pixels where they have colours; all
    test images where there are fewer than n_test.
    Raises ValueError for another name, and for "images" without data or with more samples than it
    has.
    """
    n, n_test = count("n", n), count("n_test", n_test)
    make = {
        "line": _line, "attention": _attention, "permutation": _permutation,
        "patches": _patches, "colour": _colour,
    }  # fmt: skip
    if choice("name", name, TASKS) == "images":
        x, y, fresh, wanted, oracle = _images(seed, n, n_test, data)
    else:
        x, y, fresh, wanted, oracle = make[name](seed, n, n_test)
    error = ERRORS[name]
    constant = {"square": float(wanted.var()), "sign": 0.5}.get(error, 1 - 1 / y.shape[1])
    return Task(name, x, y, fresh, wanted, error, oracle, constant)


Parts = tuple[Floats, Floats, Floats, Floats, float]


def _generator(seed: int, place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(76, place)))


def _line(seed: int, n: int, n_test: int) -> Parts:
    generator = _generator(seed, 0)
    x, fresh = (generator.uniform(-1, 1, (m, 1)) for m in (n, n_test))
    return x, np.sin(4 * np.pi * x), fresh, np.sin(4 * np.pi * fresh), 0.0


def _attention(seed: int, n: int, n_test: int) -> Parts:
    beta, rotation = direction(seed, KEY_SIZE)
    both = [sphere(seed, 10 + k, m, KEYS, KEY_SIZE) for k, m in enumerate((n, n_test))]
    y, wanted = (target("T1_2", x, beta, rotation)[:, None] for x in both)
    mean, scale = wanted.mean(), wanted.std()
    return both[0], (y - mean) / scale, both[1], (wanted - mean) / scale, 0.0


def _permutation(seed: int, n: int, n_test: int) -> Parts:
    """Bits -1 and 1, half of them each on average; the outputs are the bits in another order."""
    generator = _generator(seed, 2)
    order = generator.permutation(BITS)
    x, fresh = (generator.choice([-1.0, 1.0], (m, BITS)) for m in (n, n_test))
    return x, x[:, order], fresh, fresh[:, order], 0.0


def _patches(seed: int, n: int, n_test: int) -> Parts:
    """A unit vector times the label in one patch, drawn for each sample, and noise in all. The
    oracle knows the vector and compares the two labels' likelihoods."""
    generator = _generator(seed, 3)
    signal = generator.standard_normal(SIGNAL)
    signal /= np.linalg.norm(signal)
    parts = []
    for m in (n, n_test):
        y = generator.choice([-1.0, 1.0], m)
        x = NOISE * generator.standard_normal((m, PATCHES, SIGNAL))
        x[np.arange(m), generator.integers(PATCHES, size=m)] += y[:, None] * signal
        parts.append((x, y[:, None]))
    (x, y), (fresh, wanted) = parts
    evidence = fresh @ signal / NOISE**2
    odds = logsumexp(evidence, axis=1) - logsumexp(-evidence, axis=1)
    return x, y, fresh, wanted, risk(odds[:, None], wanted, "sign")


def _colour(seed: int, n: int, n_test: int) -> Parts:
    """Two environments in which a colour is wrong for 10 and 20 percent, and a test where it is for
    90. Of the labels a quarter is flipped: the oracle's risk, who goes by the shape."""
    source = {"kind": "prototypes", "count": 8, "d": 12}
    found = coloured(
        None, source, seed=seed, noise=NOISY_LABELS, flips=[0.1, 0.2], tests=[0.9],
        n=n // 2, n_test=n_test,
    )  # fmt: skip
    x, fresh = (part.flatten(0, 1).double().numpy() for part in (found.x, found.test_x))
    y, wanted = (part.reshape(-1, 1).double().numpy() for part in (found.y, found.test_y))
    order = _generator(seed, 6).permutation(len(x))  # environments mixed: some samples are held out
    x, y = x[order].reshape(len(x), 2, -1), y[order]
    return x, 2 * y - 1, fresh.reshape(len(fresh), 2, -1), 2 * wanted - 1, NOISY_LABELS


def _images(seed: int, n: int, n_test: int, data: Dataset | None) -> Parts:
    """The oracle, whose risk no one knows, is taken to make no errors."""
    if data is None or n > len(data.y_train):
        raise ValueError(f"data must hold the {n} images that are asked for")
    pool = 4 if data.name == "cifar10" else 1
    images, others = (part.double().numpy() for part in pooled_inputs(data, pool))
    one = _generator(seed, 4).permutation(len(images))[:n]
    other = _generator(seed, 5).permutation(len(others))[:n_test]
    eye = np.eye(int(data.y_train.max()) + 1)
    x, fresh = images[one], others[other]
    mean, scale = x.mean(0), x.std()
    y, wanted = (eye[part] for part in (data.y_train.numpy()[one], data.y_test.numpy()[other]))
    return (x - mean) / scale, y, (fresh - mean) / scale, wanted, 0.0
