"""The student with its last layer refitted, evaluated in two ways from the same samples.

    equations   Z = tanh(X W^T / √d) / √h      as the paper writes it, and as training has it
    released    Z = tanh(X W^T / d) / √h       what the authors' released code computes

In the released code the forward hook keeps the storage of the hidden layer's output, the student
divides it in place by √d, and trainer and tracker divide what the hook kept once more: so losses
after the refit and the kernel target alignment are those of W / √d, while training, labels,
spectra and the alignment with β follow the equations. `released` is `equations` at W / √d.

Source: paper B, "Setting"; kvignesh1420/single-index-ht at 901ee634e80f: `_probe_affine_features`
and `forward` in src/models.py, `eval_with_regression` in src/trainer.py, `probe_features` in
src/tracker.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rclib.teacher.problem import Array, Problem, RidgeFit, check_arrays, ridge_refit

__all__ = ["EVALUATIONS", "Evaluation", "evaluate_both", "evaluate_student"]

EVALUATIONS = ("equations", "released")
_CHUNK = 512  # test points at a time: 3 MB of hidden units at h = 1500, whatever their number


@dataclass(frozen=True)
class Evaluation:
    """The refitted student on the fresh and the test sample.

    train_loss: MSE of Z â on the fresh sample that â was fitted to.
    test_loss: MSE on the test points, labels with noise.
    test_loss_clean: MSE on the test points against the teacher without noise.
    kta: kernel target alignment on the fresh sample.
    """

    train_loss: float
    test_loss: float
    test_loss_clean: float
    kta: float


def evaluate_student(problem: Problem, W: Array, *, ridge: float = 0.01) -> Evaluation:
    """Refit the last layer on the fresh sample and measure, as in the equations.

    The kernel target alignment shares the Gram matrix of the refit.
    Raises FloatingPointError if the features of W are not finite, else as `ridge_refit`;
    TypeError for a problem that is none.
    """
    return _evaluate(problem, W, ridge, EVALUATIONS[:1])["equations"]


def evaluate_both(problem: Problem, W: Array, *, ridge: float = 0.01) -> dict[str, Evaluation]:
    """`Evaluation` by each of `EVALUATIONS`, on the same samples; X W^T is computed once.

    Raises as `evaluate_student`.
    """
    return _evaluate(problem, W, ridge, EVALUATIONS)


def _evaluate(
    problem: Problem, W: Array, ridge: float, ways: tuple[str, ...]
) -> dict[str, Evaluation]:
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be of type Problem, got {type(problem).__name__}")
    check_arrays(W=(W, ("h", "d")), X_fresh=(problem.X_fresh, ("n", "d")))
    h, d = W.shape
    real = W.dtype.type
    scales = {"equations": real(1 / np.sqrt(d)), "released": real(1 / d)}
    root = real(1 / np.sqrt(h))
    n = len(problem.X_fresh)
    fresh, Z = problem.room(0, n, h), problem.room(1, n, h)
    np.matmul(problem.X_fresh, W.T, out=fresh)
    fits: dict[str, RidgeFit] = {}
    train: dict[str, float] = {}
    for way in ways:
        np.multiply(fresh, scales[way], out=Z)
        np.tanh(Z, out=Z)
        Z *= root
        fits[way] = ridge_refit(Z, problem.y_fresh, ridge=ridge)
        train[way] = _mse(Z @ fits[way].coefficients, problem.y_fresh)
    predictions = {way: np.empty_like(problem.y_test) for way in ways}
    for begin in range(0, problem.y_test.size, _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        n = len(problem.X_test[rows])
        test, Z = problem.room(0, n, h), problem.room(1, n, h)
        np.matmul(problem.X_test[rows], W.T, out=test)
        for way in ways:
            np.multiply(test, scales[way], out=Z)
            np.tanh(Z, out=Z)
            predictions[way][rows] = Z @ (fits[way].coefficients * root)
    return {
        way: Evaluation(
            train_loss=train[way],
            test_loss=_mse(predictions[way], problem.y_test),
            test_loss_clean=_mse(predictions[way], problem.clean_test),
            kta=_alignment(fits[way], problem.y_fresh),
        )
        for way in ways
    }


def _alignment(fit: RidgeFit, y: Array) -> float:
    """<K, y y^T> / (‖K‖ ‖y y^T‖) with K = Z Z^T: ‖Z^T y‖² / (‖Z^T Z‖ ‖y‖²)."""
    along, size = fit.correlation.astype(np.float64), y.astype(np.float64)
    return float(along @ along) / (fit.gram_norm * float(size @ size))


def _mse(prediction: Array, y: Array) -> float:
    return float(np.mean((prediction.astype(np.float64) - y) ** 2))
