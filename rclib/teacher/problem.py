"""Paper B's setting: a teacher, a two-layer student, its gradient, and the refit of its top.

    teacher   y = softplus(<β, x>) + ρ ξ,        x ~ N(0, I_d), ξ ~ N(0, 1), ‖β‖ = 1
    student   f(x) = h^(-1/2) a^T tanh(W x / √d), entries of W(0) and a N(0, 1), a frozen
    loss      (1/n) Σ (f(x_i) - y_i)²
    gradient  G = D^T X · 2 / (n √(h d)),  D_ij = (f(x_i) - y_i) a_j (1 - tanh²(·)_ij)
    refit     on a fresh sample, Z = tanh(X W^T / √d) / √h:
              â = (Z^T Z + (λ n / h) I)^(-1) Z^T y

Only W is trained, so a step costs two matrix products and no autograd. The evaluation of a
student is in `rclib.teacher.evaluation`, the recording of a run in `rclib.teacher.record`. Source:
paper B, "Setting".

What the paper leaves open, chosen here: one fresh sample and one test sample serve all steps
and rates of a repeat; test labels carry the noise as all others (`test_loss`), and the error
against the noiseless teacher is given beside it (`test_loss_clean`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from rclib.checks.arguments import brief, count, number

__all__ = [
    "Problem",
    "RidgeFit",
    "check_arrays",
    "features",
    "loss_and_gradient",
    "make_problem",
    "ridge_refit",
    "student",
    "teacher",
]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Problem:
    """One repeat: all that is random, shared by every rate and optimiser. Arrays are read-only.

    beta: (d,), of length one. a: (h,). W0: (h, d).
    X, y: training batch, (n, d) and (n,).
    X_fresh, y_fresh: sample for the refit, (n, d) and (n,).
    X_test, y_test, clean_test: (n_test, d), (n_test,) with noise, (n_test,) without.
    """

    beta: Array
    a: Array
    W0: Array
    X: Array
    y: Array
    X_fresh: Array
    y_fresh: Array
    X_test: Array
    y_test: Array
    clean_test: Array

    @cached_property
    def first_step(self) -> tuple[float, Array]:
        """Loss and gradient at W0, the same for every rate and optimiser."""
        loss, gradient = self.loss_and_gradient(self.W0)
        gradient.setflags(write=False)
        return loss, gradient

    def loss_and_gradient(self, W: Array) -> tuple[float, Array]:
        """`loss_and_gradient` of the training set at W (h, d), of the dtype of X."""
        room = self.room(0, len(self.X), len(self.a))
        return _loss_and_gradient(W, self.a, self.X, self.y, room)

    @cached_property
    def start(self) -> dict[Any, Any]:
        """What was measured at W0 already; filled by `rclib.teacher.record`."""
        return {}

    @cached_property
    def _rooms(self) -> dict[tuple[int, ...], Array]:
        return {}

    def room(self, place: int, rows: int, columns: int) -> Array:
        """Memory for a passing matrix, the same one for each `place` as long as the sizes are.

        A fresh one costs more than what is done in it: the system hands it out page by page.
        """
        key = (place, rows, columns)
        if key not in self._rooms:
            self._rooms[key] = np.empty((rows, columns), self.X.dtype)
        return self._rooms[key]


def check_arrays(**arrays: tuple[Any, tuple[str, ...]]) -> None:
    """Each argument must be an array of float32 or float64 with the axes named; axes of one name
    have one length, which is not zero.

    Raises TypeError for what is no array, ValueError for another dtype or shape.
    """
    sizes: dict[str, tuple[str, int]] = {}
    for name, (array, axes) in arrays.items():
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
        if array.dtype not in (np.float32, np.float64):
            raise ValueError(f"{name} must be float32 or float64, got {array.dtype}")
        if array.ndim != len(axes) or 0 in array.shape:
            raise ValueError(f"{name} must have shape ({', '.join(axes)}), got {array.shape}")
        for axis, size in zip(axes, array.shape, strict=True):
            first, known = sizes.setdefault(axis, (name, size))
            if size != known:
                raise ValueError(f"{name} must have {axis} = {known}, as {first}, got {size}")


def teacher(X: Array, beta: Array) -> Array:
    """softplus(<β, x>) for each row of X (n, d): (n,), without noise.

    Raises ValueError for other shapes and types than float32 or float64, TypeError for what is
    no NumPy array.
    """
    check_arrays(X=(X, ("n", "d")), beta=(beta, ("d",)))
    return np.asarray(np.logaddexp(X.dtype.type(0), X @ beta))


def make_problem(
    seed: int,
    *,
    d: int = 1000,
    h: int = 1500,
    n: int = 2000,
    n_test: int = 200,
    noise: float = 0.3,
    dtype: DTypeLike = np.float32,
) -> Problem:
    """Teacher, start and samples of a repeat, from its seed alone.

    Every array has its own random stream: at equal d, runs with another n, noise or h share
    the teacher, and a larger sample begins with the smaller one (labels up to rounding).
    Raises ValueError for sizes that are not positive integers, a negative or non-finite noise
    or a negative seed.
    """
    d, h, n, n_test = (
        count(name, value) for name, value in (("d", d), ("h", h), ("n", n), ("n_test", n_test))
    )
    noise = number("noise", noise)
    if not 0 <= noise < 1e30:  # beyond, labels would be infinite in float32
        raise ValueError(f"noise must be finite and not negative, got {noise}")
    seed = count("seed", seed, 0)
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError):
        raise ValueError(f"dtype must be float32 or float64, got {brief(dtype)}") from None
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {kind}")
    real = np.float32 if kind == np.dtype(np.float32) else np.float64

    def normal(stream: int, *shape: int) -> Array:
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
        return generator.standard_normal(shape, dtype=real)

    beta = normal(0, d)
    beta /= np.linalg.norm(beta)

    def sample(stream: int, size: int) -> tuple[Array, Array, Array]:
        X = normal(stream, size, d)
        clean = teacher(X, beta)
        return X, clean + real(noise) * normal(stream + 1, size), clean

    X, y, _ = sample(3, n)
    X_fresh, y_fresh, _ = sample(5, n)
    X_test, y_test, clean_test = sample(7, n_test)
    arrays = {
        "beta": beta,
        "W0": normal(1, h, d),
        "a": normal(2, h),
        "X": X,
        "y": y,
        "X_fresh": X_fresh,
        "y_fresh": y_fresh,
        "X_test": X_test,
        "y_test": y_test,
        "clean_test": clean_test,
    }
    for array in arrays.values():
        array.setflags(write=False)
    return Problem(**arrays)


def _hidden(W: Array, X: Array, room: Array | None = None) -> Array:
    """tanh(X W^T / √d), (n, h), in `room` if there is one."""
    H = np.matmul(X, W.T, out=room)
    H *= H.dtype.type(1 / np.sqrt(W.shape[1]))
    return np.asarray(np.tanh(H, out=H))


def features(W: Array, X: Array) -> Array:
    """Z = tanh(X W^T / √d) / √h for W (h, d) and X (n, d): (n, h). Raises as `teacher`."""
    check_arrays(W=(W, ("h", "d")), X=(X, ("n", "d")))
    Z = _hidden(W, X)
    Z *= Z.dtype.type(1 / np.sqrt(W.shape[0]))
    return Z


def student(W: Array, a: Array, X: Array) -> Array:
    """f(x) = h^(-1/2) a^T tanh(W x / √d) for each row of X (n, d): (n,). Raises as `teacher`."""
    check_arrays(W=(W, ("h", "d")), a=(a, ("h",)), X=(X, ("n", "d")))
    return np.asarray(features(W, X) @ a)


def loss_and_gradient(W: Array, a: Array, X: Array, y: Array) -> tuple[float, Array]:
    """Mean squared error of the batch and its gradient with respect to W, (h, d). Raises as
    `teacher`."""
    check_arrays(W=(W, ("h", "d")), a=(a, ("h",)), X=(X, ("n", "d")), y=(y, ("n",)))
    return _loss_and_gradient(W, a, X, y, None)


def _loss_and_gradient(
    W: Array, a: Array, X: Array, y: Array, room: Array | None
) -> tuple[float, Array]:
    n, (h, d) = X.shape[0], W.shape
    H = _hidden(W, X, room)
    real = H.dtype.type
    residual = H @ a
    residual *= real(1 / np.sqrt(h))
    residual -= y
    loss = float(np.mean(residual.astype(np.float64) ** 2))
    H *= H
    np.subtract(real(1), H, out=H)
    H *= a
    residual *= real(2 / (n * np.sqrt(h * d)))
    H *= residual[:, None]  # D · 2 / (n √(h d))
    return loss, H.T @ X


@dataclass(frozen=True)
class RidgeFit:
    """The refitted last layer.

    coefficients: â, (h,).
    correlation: Z^T y, (h,).
    gram_norm: ‖Z^T Z‖ = ‖Z Z^T‖, Frobenius.
    """

    coefficients: Array
    correlation: Array
    gram_norm: float


def ridge_refit(Z: Array, y: Array, *, ridge: float = 0.01) -> RidgeFit:
    """â = (Z^T Z + (λ n / h) I)^(-1) Z^T y for Z (n, h), y (n,), λ = ridge.

    Solved by one Cholesky factorisation of the smaller of the h x h system and the n x n one,
    â = Z^T (Z Z^T + (λ n / h) I)^(-1) y, and one step of iterative refinement, which brings
    losses in float32 to about 1e-7 (relative) of those in float64.
    Raises ValueError for a ridge that is not positive and finite or too small for the dtype, or
    shapes that do not fit; FloatingPointError if Z is not finite.
    """
    ridge = number("ridge", ridge)
    if not 0 < ridge < 1e30:
        raise ValueError(f"ridge must be positive and finite, got {ridge}")
    check_arrays(Z=(Z, ("n", "h")), y=(y, ("n",)))
    n, h = Z.shape
    primal = h <= n
    shift = Z.dtype.type(ridge * n / h)
    system = Z.T @ Z if primal else Z @ Z.T
    norm = float(np.sqrt(np.einsum("ij,ij->", system, system, dtype=np.float64)))
    if not np.isfinite(norm):
        raise FloatingPointError("the features Z are not finite")
    system[np.diag_indices_from(system)] += shift
    # The transpose is the same matrix in the memory order LAPACK wants.
    try:
        factor = cho_factor(system.T, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        raise ValueError(f"ridge must be larger for Z of {Z.dtype}, got {ridge}") from None
    correlation = Z.T @ y
    if primal:
        a = cho_solve(factor, correlation, check_finite=False)
        a += cho_solve(factor, Z.T @ (y - Z @ a) - shift * a, check_finite=False)
    else:
        dual = cho_solve(factor, y, check_finite=False)
        dual += cho_solve(factor, y - Z @ (Z.T @ dual) - shift * dual, check_finite=False)
        a = Z.T @ dual
    return RidgeFit(a, correlation, norm)
