"""Every public function of the core modules, given everything that can be given to it.

Two questions. Is an argument that makes no sense refused, by a ValueError or TypeError that names
it, and never by another exception, a warning, a NaN or a changed input? And do all kinds of
arrays that make sense (dtypes, memory layouts, gradients, NumPy) give what plain float64 gives?
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rclib.nets import init, parametrization
from rclib.nets import mlp as models
from rclib.resizing import mlp
from rclib.rowcolumn import axes, measure, transfer
from rclib.spectral import exchangeable, power_law, random_matrix, spectra
from rclib.study import claims, interval
from rclib.teacher import evaluation
from rclib.teacher import problem as teacher
from rclib.training import descent

MODULES: tuple[ModuleType, ...] = (
    *(axes, claims, descent, evaluation, exchangeable, init, interval, measure, mlp, models),
    *(parametrization, power_law, random_matrix, spectra, teacher, transfer),
)
few = settings(max_examples=40, derandomize=True, deadline=None, database=None)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


# --- what is called ------------------------------------------------------------------------

TABLE = {"W": ("o", "i"), "b": ("o",)}
TENSORS = {"W": noise(5, 4), "b": noise(5)}
MAPS = {("W", 0): torch.tensor([0, 1, 4]), ("b", 0): torch.tensor([0, 1, 4])}
VECTORS = {"o": {"a": noise(6), "b": noise(6, seed=1)}, "i": {"c": noise(6, seed=2)}}
MATRIX, SQUARE = noise(5, 4).numpy(), noise(4, 4).numpy()
VALUES = np.sort(np.abs(noise(15).numpy())) + 0.1
MODEL = models.MLP(3, 4, 2)
PROBLEM = teacher.make_problem(0, d=3, h=4, n=5, n_test=2)
X, Y = np.asarray(noise(5, 3)), np.asarray(noise(5))
W, A = np.asarray(noise(4, 3, seed=1)), np.asarray(noise(4))
LAW = random_matrix.marchenko_pastur(0.5)
CRITERION = claims.above(0.5)


def declared() -> claims.Claims:
    found = claims.Claims()
    found.declare("k", paper="A", statement="s", quantity="q", criterion=CRITERION)
    return found


# name -> (function, arguments that are right). Every argument is replaced in turn.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "axes.gamma_sets": (axes.gamma_sets, {"axes": TABLE}),
    "axes.index_sizes": (axes.index_sizes, {"axes": TABLE, "tensors": TENSORS}),
    "axes.mlp_axes": (axes.mlp_axes, {"depth": 3, "bias": True}),
    "claims.Criterion": (claims.Criterion, {"low": 0.0, "high": 1.0}),
    "claims.Criterion.verdict": (
        CRITERION.verdict,
        {"low": 0.0, "high": 1.0, "unit": "seed", "repeats": 3},
    ),
    "claims.above": (claims.above, {"low": 1.0}),
    "claims.below": (claims.below, {"high": 1.0}),
    "claims.between": (claims.between, {"low": 0.0, "high": 1.0}),
    "interval.interval_of": (interval.interval_of, {"values": [1.0, 2.0, 4.0]}),
    "claims.Claims.declare": (
        lambda **given: claims.Claims().declare(**given),
        {
            "key": "k",
            "paper": "A",
            "statement": "s",
            "quantity": "q",
            "item": "Figure 1",
            "criterion": CRITERION,
            "seeds": [3, 4, 5],
            "unit": "seed",
            "control": True,
            "blind": False,
            "seen_on": [1, 2],
        },
    ),
    "claims.Claims.measure": (
        lambda **given: declared().measure(**given),
        {"key": "k", "values": [1.0, 2.0], "interval": (1.0, 2.0), "repeats": 4, "note": ""},
    ),
    "claims.Claims.not_testable": (
        lambda **given: declared().not_testable(**given),
        {"key": "k", "reason": "why"},
    ),
    "descent.Adam": (descent.Adam, {"b1": 0.9, "b2": 0.99, "eps": 1e-8}),
    "descent.Adam.update": (
        lambda **given: descent.Adam().update(**given),
        {"gradient": MATRIX, "rate": 0.1},
    ),
    "descent.GradientDescent.update": (
        descent.GradientDescent().update,
        {"gradient": MATRIX, "rate": 0.1},
    ),
    "descent.make_descent": (descent.make_descent, {"name": "gd"}),
    "descent.step_rates": (
        descent.step_rates,
        {"rate": 0.1, "steps": 3, "gamma": 0.5, "every": 1},
    ),
    "measure.chance_level": (measure.chance_level, {"n": 10, "pairs": 3, "level": 0.9}),
    "measure.correlations": (measure.correlations, {"vectors": VECTORS, "n": 6}),
    "measure.heat_map": (
        measure.heat_map,
        {"w": noise(3, 4), "rows": torch.tensor([2, 0, 1]), "columns": torch.tensor([3, 1, 0, 2])},
    ),
    "measure.largest_correlation": (
        measure.largest_correlation,
        {"c": measure.correlations(VECTORS), "within": True},
    ),
    "measure.leading_share": (measure.leading_share, {"w": noise(5, 4), "k": 2}),
    "measure.leading_shares": (measure.leading_shares, {"w": noise(5, 4)}),
    "measure.mean_vectors": (measure.mean_vectors, {"tensors": TENSORS, "axes": TABLE}),
    "measure.row_column_share": (measure.row_column_share, {"w": noise(5, 4)}),
    "init.Init": (init.Init, {"kind": "uniform", "mean": 0.0, "scale": 1.0}),
    "init.Init.sample": (
        lambda shape, generator: init.Init().sample(shape, generator),
        {"shape": (2, 3), "generator": seeded()},
    ),
    "mlp.MLP": (
        models.MLP,
        {
            "d": 3,
            "width": 4,
            "classes": 2,
            "depth": 3,
            "parametrization": "MF",
            "seed": 0,
            "activation": "tanh",
            "init": init.Init(),
            "bias": "random",
            "bias_init": init.Init(),
        },
    ),
    "mlp.MLP.forward": (MODEL.forward, {"x": torch.ones(2, 3)}),
    "mlp.MLP.forward_all": (MODEL.forward_all, {"x": torch.ones(2, 3)}),
    "mlp.MLP.layer_type": (MODEL.layer_type, {"name": "W1"}),
    "mlp.MLP.like": (MODEL.like, {"width": 4, "state": MODEL.state_dict()}),
    "mlp.MLP.lr_factors": (MODEL.lr_factors, {"optimizer": "sgd"}),
    "mlp.MLP.multiplier": (MODEL.multiplier, {"layer": 1}),
    "parametrization.Parametrization.__getitem__": (
        lambda **given: parametrization.PARAMETRIZATIONS["MF"][given["layer_type"]],
        {"layer_type": "hidden"},
    ),
    "parametrization.Parametrization.exponents": (
        parametrization.PARAMETRIZATIONS["MF"].exponents,
        {"layer_type": "hidden"},
    ),
    "parametrization.Power": (
        parametrization.Power,
        {"fan_in_exponent": 1.0, "fan_out_exponent": 0.5},
    ),
    "parametrization.Power.__call__": (
        parametrization.Power(-0.5, 1.0).__call__,
        {"fan_in": 3, "fan_out": 4},
    ),
    "parametrization.Scaling.lr": (parametrization.Scaling().lr, {"optimizer": "sgd"}),
    "parametrization.first_step_exponents": (
        parametrization.first_step_exponents,
        {"name": "MF", "depth": 3, "optimizer": "sgd"},
    ),
    "parametrization.parametrization": (parametrization.parametrization, {"name": "MF"}),
    "power_law.bootstrap_alpha": (
        power_law.bootstrap_alpha,
        {"eigenvalues": VALUES, "method": "hill", "draws": 2, "seed": 0},
    ),
    "power_law.power_law": (power_law.power_law, {"eigenvalues": VALUES, "method": "ks"}),
    "random_matrix.MarchenkoPastur.cdf": (LAW.cdf, {"x": VALUES}),
    "random_matrix.MarchenkoPastur.density": (LAW.density, {"x": VALUES}),
    "random_matrix.MarchenkoPastur.log10_density": (LAW.log10_density, {"x": VALUES}),
    "random_matrix.marchenko_pastur": (
        random_matrix.marchenko_pastur,
        {"aspect": 0.5, "variance": 1.0},
    ),
    "random_matrix.outliers": (
        random_matrix.outliers,
        {"eigenvalues": VALUES, "rows": 20, "variance": 1.0, "deviations": 2.0},
    ),
    "random_matrix.spike": (
        random_matrix.spike,
        {"strength": 9.0, "rows": 3, "columns": 4, "variance": 1.0},
    ),
    "random_matrix.spike_strength": (
        random_matrix.spike_strength,
        {"eigenvalue": 40.0, "rows": 5, "columns": 4, "variance": 1.0},
    ),
    "exchangeable.decompose": (exchangeable.decompose, {"X": MATRIX}),
    "exchangeable.four_cycle_excess": (
        exchangeable.four_cycle_excess,
        {"residual": MATRIX, "removed": 1, "centred": True, "permutations": 2, "seed": 0},
    ),
    "exchangeable.given_start": (
        exchangeable.given_start,
        {"X": MATRIX, "start": MATRIX + 1.0, "own": 0.1},
    ),
    "exchangeable.kernel_values": (
        exchangeable.kernel_values,
        {"W": MATRIX, "multiplier": 0.25, "top": 2},
    ),
    "exchangeable.own_start": (
        exchangeable.own_start,
        {"change": MATRIX, "start": noise(5, 4, seed=7).numpy(), "products": 1},
    ),
    "spectra.alignment": (spectra.alignment, {"W": MATRIX, "beta": np.ones(4)}),
    "spectra.effective_rank": (spectra.effective_rank, {"W": MATRIX}),
    "spectra.esd": (spectra.esd, {"W": MATRIX}),
    "spectra.kernel_target_alignment": (
        spectra.kernel_target_alignment,
        {"Z": MATRIX, "y": np.ones(5)},
    ),
    "spectra.overlaps": (spectra.overlaps, {"W": SQUARE, "M": SQUARE + 1.0, "top": 2}),
    "spectra.singular_vectors": (spectra.singular_vectors, {"W": MATRIX, "top": 2}),
    "spectra.spectrum": (spectra.spectrum, {"W": MATRIX}),
    "spectra.stable_rank": (spectra.stable_rank, {"W": MATRIX}),
    "spectra.top_direction": (spectra.top_direction, {"W": MATRIX}),
    "spectra.vector_alignment": (
        spectra.vector_alignment,
        {"v": np.full(4, 0.5), "beta": np.arange(4.0)},
    ),
    "spectra.vector_overlaps": (
        spectra.vector_overlaps,
        {"first": (np.eye(3), np.eye(4)), "second": (np.eye(3), np.eye(4))},
    ),
    "evaluation.evaluate_both": (
        evaluation.evaluate_both,
        {"problem": PROBLEM, "W": PROBLEM.W0, "ridge": 0.1},
    ),
    "evaluation.evaluate_student": (
        evaluation.evaluate_student,
        {"problem": PROBLEM, "W": PROBLEM.W0, "ridge": 0.1},
    ),
    "problem.features": (teacher.features, {"W": W, "X": X}),
    "problem.loss_and_gradient": (teacher.loss_and_gradient, {"W": W, "a": A, "X": X, "y": Y}),
    "problem.make_problem": (
        teacher.make_problem,
        {"seed": 0, "d": 3, "h": 4, "n": 5, "n_test": 2, "noise": 0.1, "dtype": np.float32},
    ),
    "problem.ridge_refit": (teacher.ridge_refit, {"Z": MATRIX, "y": Y, "ridge": 0.1}),
    "problem.student": (teacher.student, {"W": W, "a": A, "X": X}),
    "problem.teacher": (teacher.teacher, {"X": X, "beta": np.ones(3)}),
    "transfer.draw_index_maps": (
        transfer.draw_index_maps,
        {
            "axes": TABLE,
            "source": {"o": 5, "i": 4},
            "target": {"o": 3},
            "random_rate": 0.5,
            "replacement": True,
            "generator": seeded(),
        },
    ),
    "transfer.gather": (
        transfer.gather,
        {
            "tensors": TENSORS,
            "axes": TABLE,
            "maps": MAPS,
            "norm_rate": 2.0,
            "fan_in_exponents": {"W": 1.0},
        },
    ),
    "mlp.resize": (
        mlp.resize,
        {
            "model": MODEL,
            "width": 3,
            "random_rate": 0.5,
            "norm_rate": 2.0,
            "replacement": False,
            "seed": 0,
        },
    ),
    "mlp.resize_maps": (
        mlp.resize_maps,
        {"model": MODEL, "width": 3, "random_rate": 0.5, "replacement": False, "seed": 0},
    ),
    "transfer.transfer": (
        transfer.transfer,
        {
            "tensors": TENSORS,
            "axes": TABLE,
            "target": {"o": 3},
            "random_rate": 0.5,
            "norm_rate": 2.0,
            "fan_in_exponents": {"W": 1.0},
            "inputs": {"W": [1]},
            "replacement": True,
            "generator": seeded(),
        },
    ),
}
# Records of results, which nobody but the library makes, and names of types and values.
NO_CALLS = {
    *(
        "axes.Axes",
        "claims.Claim",
        "claims.VERDICTS",
        "claims.UNITS",
        "claims.MIN_REPEATS",
        "descent.Optimizer",
        "descent.OPTIMIZERS",
    ),
    *("measure.Correlations", "measure.LargestCorrelation", "measure.Share"),
    *(
        "init.ACTIVATIONS",
        "init.BIASES",
        "parametrization.LAYER_TYPES",
        "parametrization.PARAMETRIZATIONS",
    ),
    *("parametrization.Parametrization", "parametrization.Scaling"),
    *("power_law.METHODS", "power_law.MIN_EIGENVALUES", "power_law.PowerLaw"),
    *("random_matrix.MarchenkoPastur", "random_matrix.Outliers", "random_matrix.Spike"),
    *("spectra.Overlaps", "spectra.Spectrum"),
    *("exchangeable.Decomposition", "exchangeable.Excess", "exchangeable.VarianceShares"),
    *("evaluation.EVALUATIONS", "evaluation.Evaluation"),
    *("problem.Problem", "problem.check_arrays", "problem.RidgeFit", "transfer.IndexMaps"),
    *("claims.Claims", "descent.GradientDescent"),  # made without arguments
}


def test_every_public_name_is_fuzzed_or_said_to_be_no_function() -> None:
    homes = {f"rclib.spectral.{name}" for name in ("power_law", "random_matrix")}
    public = {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in MODULES
        for name in module.__all__
        # spectra exports those two modules' names as well; they are fuzzed at home.
        if not (module is spectra and getattr(getattr(module, name), "__module__", "") in homes)
    }
    assert public == {".".join(name.split(".")[:2]) for name in CALLS} | NO_CALLS - {
        name for name in NO_CALLS if name not in public
    }
    assert public >= NO_CALLS


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_the_table_are_all_there_are_and_right(name: str) -> None:
    function, arguments = CALLS[name]
    assert finite(function(**arguments)) or name in INFINITE
    if name.split(".")[-1] not in ("__getitem__", "sample") and "Claims" not in name:
        known = [p for p in inspect.signature(function).parameters if p not in ("self", "given")]
        assert known == [] or set(known) == set(arguments)


# --- what is given -------------------------------------------------------------------------


class Strange:
    """An object of no use."""

    def __repr__(self) -> str:
        return "<strange>" * 1000


def odd_values() -> Iterator[tuple[str, Any]]:
    """Values of every kind that somebody may give in the place of another."""
    numbers: list[Any] = [-1, 0, 1, 2, 3, 10**400, -(10**400), 0.5, -0.5, 1e308, -1e308, 1e-320]
    numbers += [math.nan, math.inf, -math.inf, True, 1j, Fraction(1, 2), Decimal("0.5")]
    numbers += [np.int64(3), np.float32(0.5), np.float64(math.nan), np.bool_(True), np.str_("x")]
    others: list[Any] = [None, "", "3", "x", b"3", (), [], {}, set(), [1.0], (1, 2), {"a": 1}]
    others += [[[1.0], [1.0, 2.0]], ["a"], {"W": math.nan}, {"W": None}, {1: 2}]
    others += [Strange(), Strange, len, range(3), {"o": -1}, {"o": 0}, {"o": 2.5}, {"o": "x"}]
    for value in numbers + others:
        yield repr(value)[:30], value


def odd_arrays() -> Iterator[tuple[str, Any]]:
    """Arrays and tensors of every kind and shape."""
    for shape in [(), (0,), (1,), (3,), (4,), (0, 0), (1, 1), (0, 3), (3, 3), (5, 4), (2, 3, 4)]:
        base = noise(*shape)
        kinds: dict[str, Any] = {
            "float64": base,
            "float32": base.float(),
            "float16": base.half(),
            "bfloat16": base.bfloat16(),
            "float8": base.to(torch.float8_e4m3fn),
            "int64": (10 * base).long(),
            "uint8": (10 * base.abs()).byte(),
            "bool": base > 0,
            "complex": base.to(torch.complex64),
            "meta": base.to("meta"),
            "gradient": base.clone().requires_grad_(),
            "nan": base * math.nan,
            "inf": base + math.inf,
            "zero": base * 0.0,
            "constant": torch.full_like(base, 0.1),
            "huge": base * 1e200,
            "tiny": base * 1e-200,
            "sparse": base.to_sparse() if shape else base,
            "negated": torch._neg_view(base),
            "expanded": torch.ones(()).expand(shape),
            "numpy": base.numpy(),
            "numpy float32": base.float().numpy(),
            "numpy float16": base.half().numpy(),
            "numpy big-endian": base.numpy().astype(">f8"),
            "numpy long": base.numpy().astype(np.longdouble),
            "numpy complex": base.numpy() * 1j,
            "numpy objects": base.numpy().astype(object),
            "numpy text": base.numpy().astype(str),
            "numpy dates": (100 * base.numpy()).astype("M8[s]"),
            "numpy nan": base.numpy() * math.nan,
            "masked": np.ma.masked_array(base.numpy(), base.numpy() > 0),
            "list": base.tolist(),
        }
        for kind, value in kinds.items():
            yield f"{kind} {shape}", value


ODD = [*odd_values(), *odd_arrays()]


def given_to(value: Any) -> Iterator[tuple[str, Any]]:
    """What an argument is replaced by: everything odd, and its own entries by everything odd."""
    yield from ODD
    if isinstance(value, dict):
        first = next(iter(value))
        for name, odd in ODD:
            yield f"entry {name}", {**value, first: odd}
    if isinstance(value, (tuple, list)):
        for name, odd in ODD:
            yield f"entry {name}", type(value)([odd, *value[1:]])


def arrays_in(value: Any) -> Iterator[Any]:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from arrays_in(entry)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from arrays_in(entry)
    elif isinstance(value, torch.nn.Module):
        yield from arrays_in(dict(value.state_dict()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from arrays_in([getattr(value, f.name) for f in dataclasses.fields(value)])


def snapshot(value: Any) -> list[bytes]:
    """The bytes of all arrays in a value."""
    found = []
    for array in arrays_in(value):
        if isinstance(array, torch.Tensor):
            dense = array.detach()
            if dense.is_meta or dense.layout != torch.strided:
                continue
            copy = dense.resolve_neg().clone(memory_format=torch.contiguous_format).reshape(-1)
            found.append(copy.view(torch.uint8).numpy().tobytes() if copy.numel() else b"")
        else:
            found.append(array.tobytes())
    return found


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, (float, np.floating)):
        yield float(value)
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from numbers_in(entry)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from numbers_in(entry)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from numbers_in([getattr(value, f.name) for f in dataclasses.fields(value)])


def finite(value: Any) -> bool:
    for array in arrays_in(value):
        if isinstance(array, torch.Tensor):
            dense = array.detach().to_dense()
            real = dense.abs() if dense.is_complex() else dense.double()
            if not (real.is_meta or bool(torch.isfinite(real).all())):
                return False
        elif array.dtype.kind in "fc" and not np.isfinite(array).all():
            return False
    return all(map(math.isfinite, numbers_in(value)))


# These pass numbers through: a NaN that is given comes out where it belongs, for all to see.
CARRY = {
    *("measure.mean_vectors", "transfer.gather", "transfer.transfer", "mlp.MLP.forward"),
    *("mlp.MLP.forward_all", "mlp.MLP.like", "descent.Adam.update"),
    *("descent.GradientDescent.update", "problem.features", "problem.loss_and_gradient"),
    *("problem.student", "problem.teacher"),
}
# A bound that is infinite is no bound.
INFINITE = {"claims.Criterion", "claims.above", "claims.below", "claims.between"}
# A rate beyond the range of the dtype is a divergence, which the caller looks for.
DIVERGES = ("descent.Adam.update", "descent.GradientDescent.update")
# What a message calls an argument, where that is not its name.
CALLED = {
    "axes": ("axes of 'W'", "axes of 'b'", "index", "'W'", "'b'"),
    "tensors": ("'W'", "'b'", "must be a dense torch tensor"),
    "vectors": ("vector ",),
    "maps": ("map of",),
    "source": ("index 'o'", "source size"),
    "target": ("index",),
    "state": ("state_dict",),
    "name": ("parametrization", "optimizer"),
    "width": ("target size", "size mismatch"),
    "eigenvalues": ("eigenvalues",),
    "low": ("criterion", "interval"),
    "high": ("criterion", "interval"),
    "kind": ("init kind",),
    "W": ("eigenvalues", "top", "features"),
    "key": ("key", "claim"),
    "layer": ("name",),
    "layer_type": ("layer type",),
    "first": ("vectors of",),
    "second": ("vectors of",),
    "w": ("rows", "columns"),
}
# torch's own error, and NumPy's for features that overflow; both documented.
OTHERS: dict[tuple[str, str], type[Exception]] = {
    ("mlp.MLP.like", "state"): RuntimeError,
    ("mlp.MLP.like", "width"): RuntimeError,
    ("evaluation.evaluate_both", "W"): FloatingPointError,
    ("evaluation.evaluate_student", "W"): FloatingPointError,
    ("problem.ridge_refit", "Z"): FloatingPointError,
}


def faults(name: str, argument: str) -> list[str]:
    function, arguments = CALLS[name]
    allowed = (ValueError, TypeError, OTHERS.get((name, argument), ValueError))
    wrong = []
    for label, odd in given_to(arguments[argument]):
        before = snapshot(odd)
        try:
            with warnings.catch_warnings():
                # NumPy warns of some NaN that it is given, and of overflow.
                told = (name in CARRY and not finite(odd)) or (
                    name in DIVERGES and label == "1e+308"
                )
                warnings.simplefilter("ignore" if told else "error")
                result = function(**{**arguments, argument: odd})
        except allowed as error:
            names = (argument, *CALLED.get(argument, ()))
            if not any(part in str(error) for part in names) or len(str(error)) > 2000:
                wrong.append(f"{label}: {type(error).__name__}: {error}")
        except Exception as error:
            wrong.append(f"{label}: {type(error).__name__}: {error}")
        else:
            if not (told or name in INFINITE or finite(result)):
                wrong.append(f"{label}: not finite: {result}")
        if snapshot(odd) != before:
            wrong.append(f"{label}: the input was changed")
    return wrong


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name in CALLS for argument in CALLS[name][1]]
)
def test_odd_argument_is_used_rightly_or_refused_by_name(name: str, argument: str) -> None:
    wrong = faults(name, argument)
    assert not wrong, f"{len(wrong)} wrong\n" + "\n".join(line[:300] for line in wrong[:40])


# --- all kinds of right arrays give what plain float64 gives --------------------------------


def layouts(values: np.ndarray) -> dict[str, torch.Tensor]:
    """The same numbers in every dtype that holds them, in memory in every way."""
    base = torch.tensor(values, dtype=torch.float64)
    wide = torch.full([2 * n for n in base.shape], math.nan, dtype=torch.float64)
    wide[tuple(slice(None, None, 2) for _ in base.shape)] = base
    kinds = {
        "float64": base,
        "strided": wide[tuple(slice(None, None, 2) for _ in base.shape)],
        "transposed": base.permute(*reversed(range(base.ndim)))
        .contiguous()
        .permute(*reversed(range(base.ndim))),
        "gradient": base.clone().requires_grad_(),
        "parameter": torch.nn.Parameter(base.float()),
        "negated": torch._neg_view(-base),
        "offset": torch.cat([base.flatten()[:1], base.flatten()])[1:].reshape(base.shape),
    }
    for kind in (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64):
        kinds[str(kind)] = base.to(kind)
    kinds["torch.int8"], kinds["torch.uint8"] = base.to(torch.int8), base.to(torch.uint8)
    return {
        name: tensor
        for name, tensor in kinds.items()
        if torch.equal(tensor.detach().double(), base)  # exactly the same numbers
    }


def numpy_layouts(values: np.ndarray) -> dict[str, Any]:
    base = np.asarray(values, dtype=np.float64)
    kinds: dict[str, Any] = {
        "float64": base,
        "Fortran": np.asfortranarray(base),
        "reversed": base[::-1].copy()[::-1],
        "read-only": base.copy(),
        "big-endian": base.astype(">f8"),
        "long": base.astype(np.longdouble),
        "float16": base.astype(np.float16),
        "float32": base.astype(np.float32),
        "int64": base.astype(np.int64),
        "int8": base.astype(np.int8),
        "list": base.tolist(),
        "tuple": tuple(map(tuple, base)) if base.ndim == 2 else tuple(base),
    }
    kinds["read-only"].setflags(write=False)
    return {k: v for k, v in kinds.items() if np.array_equal(np.asarray(v, np.float64), base)}


def whole(*shape: int, seed: int = 0, low: int = -4) -> np.ndarray:
    """Whole numbers from `low` to 4, which all dtypes hold; some matrices want only positive."""
    return np.random.default_rng(seed).integers(low, 5, shape).astype(np.float64)


def by_numpy_shares(w: np.ndarray) -> np.ndarray:
    squares = np.linalg.svd(w, compute_uv=False) ** 2
    return np.asarray(np.cumsum(squares) / squares.sum())


def by_numpy_anova(w: np.ndarray) -> float:
    centred = w - w.mean()
    fit = centred.mean(1, keepdims=True) + centred.mean(0, keepdims=True)
    return float((fit**2).sum() / (centred**2).sum())


def by_numpy_effective_rank(sigma: np.ndarray) -> float:
    p = sigma / sigma.sum()
    return math.exp(-sum(x * math.log(x) for x in p))


def by_numpy_kta(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def by_numpy_pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


# Each takes a matrix (5, 4) in any kind and gives an array; beside it plain NumPy.
OF_TENSOR: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = {
    "heat_map": (measure.heat_map, lambda w: (w - w.mean()) / w.std(ddof=1)),
    "row_column_share": (lambda w: measure.row_column_share(w).value, by_numpy_anova),
    "leading_shares": (measure.leading_shares, by_numpy_shares),
    "leading_share": (lambda w: measure.leading_share(w, 2).value, lambda w: by_numpy_shares(w)[1]),
    "mean of rows": (
        lambda w: measure.mean_vectors({"W": w}, {"W": ("o", "i")})["o"]["W.C"],
        lambda w: w.mean(1),
    ),
    "mean of columns": (
        lambda w: measure.mean_vectors({"W": w}, {"W": ("o", "i")})["i"]["W.R"],
        lambda w: w.mean(0),
    ),
    "a vector's mean": (
        lambda w: measure.mean_vectors({"b": w[:, 0]}, {"b": ("o",)})["o"]["b"],
        lambda w: w[:, 0],
    ),
    "correlations": (
        lambda w: measure.correlations({"o": {"a": w[:, 0], "b": w[:, 1]}}).matrix[0, 1],
        lambda w: by_numpy_pearson(w[:, 0], w[:, 1]),
    ),
    "index_sizes": (
        lambda w: list(axes.index_sizes({"W": ("o", "i")}, {"W": w}).values()),
        lambda w: list(w.shape),
    ),
}
OF_ARRAY: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = {
    "esd": (spectra.esd, lambda w: np.linalg.svd(w, compute_uv=False)[::-1] ** 2),
    "spectrum": (
        lambda w: spectra.spectrum(w).eigenvalues,
        lambda w: np.linalg.svd(w, compute_uv=False)[::-1] ** 2,
    ),
    "singular_vectors": (
        lambda w: np.abs(spectra.singular_vectors(w, top=1)[1][:, 0]),
        lambda w: np.abs(np.linalg.svd(w)[2][0]),
    ),
    "stable_rank": (
        spectra.stable_rank,
        lambda w: np.linalg.norm(w) ** 2 / np.linalg.norm(w, 2) ** 2,
    ),
    "effective_rank": (
        spectra.effective_rank,
        lambda w: by_numpy_effective_rank(np.linalg.svd(w, compute_uv=False)),
    ),
    "alignment": (
        lambda w: spectra.alignment(w, np.ones(4)),
        lambda w: abs(np.linalg.svd(w)[2][0].sum()) / 2,
    ),
    "kernel_target_alignment": (
        lambda w: spectra.kernel_target_alignment(w, np.arange(1.0, 6.0)),
        lambda w: by_numpy_kta(w @ w.T, np.outer(range(1, 6), range(1, 6))),
    ),
    "overlaps": (
        lambda w: spectra.overlaps(w, np.asarray(whole(5, 4, seed=9)), top=1).left[0, 0],
        lambda w: (
            float(np.linalg.svd(w)[0][:, 0] @ np.linalg.svd(whole(5, 4, seed=9))[0][:, 0]) ** 2
        ),
    ),
}


@pytest.mark.parametrize("name", OF_TENSOR)
def test_tensors_of_every_kind_give_what_float64_gives(name: str) -> None:
    ours, plain = OF_TENSOR[name]
    expected = plain(whole(5, 4))
    kinds = layouts(whole(5, 4))
    assert len(kinds) >= 10
    for kind, tensor in kinds.items():
        before = snapshot(tensor)
        found = ours(tensor)
        np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=kind)
        if isinstance(found, torch.Tensor):
            assert (found.dtype, found.requires_grad) == (torch.float64, False), kind
            found += 1.0  # the result is nobody else's
        assert snapshot(tensor) == before, kind


@pytest.mark.parametrize("name", OF_ARRAY)
def test_arrays_of_every_kind_give_what_float64_gives(name: str) -> None:
    ours, plain = OF_ARRAY[name]
    expected = plain(whole(5, 4))
    kinds = {**layouts(whole(5, 4)), **numpy_layouts(whole(5, 4))}
    assert len(kinds) >= 18
    for kind, array in kinds.items():
        before = snapshot(array)
        found = ours(array)
        np.testing.assert_allclose(found, expected, atol=1e-10, err_msg=kind)
        if isinstance(found, np.ndarray):
            assert found.dtype == np.float64
            found += 1.0
        assert snapshot(array) == before, kind


def test_eigenvalues_of_every_kind_give_what_float64_gives() -> None:
    values = np.concatenate([np.arange(1.0, 13.0), [0.0, 0.0]])
    fit = power_law.power_law(values)
    # By hand: 12 positive values, cut at 6: 7 ... 12.
    tail = np.log(np.arange(7.0, 13.0) / 7.0)
    assert fit.alpha == pytest.approx(1 + 6 / tail.sum())
    law = random_matrix.marchenko_pastur(0.5, 4.0)
    beyond = random_matrix.outliers(values, rows=28)
    for kind, array in {**layouts(values), **numpy_layouts(values)}.items():
        before = snapshot(array)
        assert power_law.power_law(array) == fit, kind
        assert power_law.power_law(array, "ks") == power_law.power_law(values, "ks"), kind
        np.testing.assert_array_equal(
            power_law.bootstrap_alpha(array, draws=3), power_law.bootstrap_alpha(values, draws=3)
        )
        found = random_matrix.outliers(array, rows=28)
        assert dataclasses.replace(found, values=0) == dataclasses.replace(beyond, values=0), kind
        np.testing.assert_array_equal(found.values, beyond.values)
        for method in ("density", "log10_density", "cdf"):
            np.testing.assert_array_equal(
                getattr(law, method)(array), getattr(law, method)(values), err_msg=kind
            )
        assert spectra.stable_rank(array) == pytest.approx(values.sum() / 12.0)
        assert snapshot(array) == before, kind


def test_transfer_keeps_every_kind_and_gathers_as_numpy_does() -> None:
    values, rows = whole(5, 4), np.array([4, 0, 0])
    maps = {("W", 0): torch.tensor(rows), ("W", 1): torch.tensor([3, 1])}
    for kind, tensor in layouts(values).items():
        before = snapshot(tensor)
        for exponent, factor in ((1.0, 1.0), (0.0, 2.0)):  # the fan-in shrinks from 4 to 2
            if factor != 1.0 and not tensor.is_floating_point():
                with pytest.raises(ValueError, match="'W' must be floating point to be rescaled"):
                    transfer.gather({"W": tensor}, {"W": ("o", "i")}, maps)
                continue
            found = transfer.gather(
                {"W": tensor, "free": tensor},
                {"W": ("o", "i")},
                maps,
                fan_in_exponents={"W": exponent},
            )
            assert found["W"].dtype == tensor.dtype
            assert not found["W"].requires_grad
            expected = factor * values[rows][:, [3, 1]]
            np.testing.assert_array_equal(found["W"].double(), expected, err_msg=kind)
            np.testing.assert_array_equal(found["free"].double(), values)
            found["W"].zero_()
            found["free"].zero_()
        assert snapshot(tensor) == before, kind


def test_maps_of_other_kinds_point_the_same_way_or_are_refused() -> None:
    tensors, table = {"b": torch.arange(5.0)}, {"b": ("o",)}
    for kind, tensor in layouts(np.array([4.0, 0.0, 1.0])).items():
        if tensor.dtype in (torch.int64, torch.int32):
            found = transfer.gather(tensors, table, {("b", 0): tensor})
            assert found["b"].tolist() == [4.0, 0.0, 1.0]
        else:
            with pytest.raises(ValueError, match="map of 'b', axis 0, must hold indices 0"):
                transfer.gather(tensors, table, {("b", 0): tensor})
        order = layouts(np.array([2.0, 0.0, 1.0]))[kind]
        moved = measure.heat_map(noise(3, 4), rows=order)
        assert torch.equal(moved, measure.heat_map(noise(3, 4))[[2, 0, 1]])


def test_weights_that_would_leave_float16_are_refused() -> None:
    tensors, table = {"W": torch.full((2, 8), 30_000.0).half()}, {"W": ("o", "i")}
    with pytest.raises(ValueError, match=r"'W' leaves the range of torch.float16"):
        transfer.transfer(tensors, table, {"i": 2}, generator=seeded())
    wide = {"W": tensors["W"].bfloat16()}
    found = transfer.transfer(wide, table, {"i": 2}, generator=seeded())["W"]
    assert found.dtype == torch.bfloat16
    assert found.unique().item() == pytest.approx(120_000, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_network_in_any_dtype_against_numpy(dtype: torch.dtype) -> None:
    model = models.MLP(3, 4, 2, seed=1).to(dtype)
    x = noise(5, 3).to(dtype)
    found = model(x)
    assert found.dtype == dtype
    state = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    h = x.double().numpy() @ state["W1"].T / math.sqrt(3) + state["B1"]
    h = np.tanh(h) @ state["W2"].T / 4 + state["B2"]
    h = np.tanh(h) @ state["W3"].T / 4 + state["B3"]
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 0.05}[dtype]
    np.testing.assert_allclose(found.detach().double(), h, atol=tolerance)
    moved = model.like(3)
    assert {p.dtype for p in moved.parameters()} == {dtype}
    assert model(x[:0]).shape == (0, 2)
    assert torch.equal(model(x.t().contiguous().t()), found)


def test_meta_device_gives_shapes() -> None:
    model = models.MLP(3, 4, 2).to("meta")
    assert model(torch.ones(5, 3, device="meta")).shape == (5, 2)
    vectors = measure.mean_vectors(model.state_dict(), model.axes)
    assert {v.device.type for group in vectors.values() for v in group.values()} == {"meta"}
    assert mlp.resize(model, 7)(torch.ones(5, 3, device="meta")).shape == (5, 2)
    with pytest.raises(ValueError, match=r"'W1\.C' must hold values, got a tensor on the meta"):
        measure.correlations(vectors)


# --- properties, over sizes and scales -----------------------------------------------------

scales = st.sampled_from([1e-250, 1e-30, 1.0, 1e30, 1e250])
sides = st.integers(2, 7)


@few
@given(m=sides, n=sides, seed=st.integers(0, 10**6), scale=scales, shift=st.booleans())
def test_shares_know_no_scale(m: int, n: int, seed: int, scale: float, shift: bool) -> None:
    w = noise(m, n, seed=seed) + float(shift)
    for measured in (measure.row_column_share, lambda w: measure.leading_share(w, 1)):
        found = measured(scale * w)  # type: ignore[operator]
        assert found.value == pytest.approx(measured(w).value, rel=1e-9)  # type: ignore[operator]
        assert 0.0 <= found.value <= 1.0 + 1e-12
        assert 0.0 < found.chance <= 1.0
    heat = measure.heat_map(scale * w)
    torch.testing.assert_close(heat, measure.heat_map(w), atol=1e-9, rtol=0)
    assert float(heat.std()) == pytest.approx(1.0)


@few
@given(n=st.integers(3, 9), seed=st.integers(0, 10**6), scale=scales, sign=st.sampled_from([1, -1]))
def test_correlations_know_no_scale(n: int, seed: int, scale: float, sign: int) -> None:
    a, b = noise(2, n, seed=seed)
    found = measure.correlations({"o": {"a": a, "b": sign * scale * b, "c": scale * a}}).matrix
    expected = by_numpy_pearson(a.numpy(), b.numpy())
    assert float(found[0, 1]) == pytest.approx(sign * expected, abs=1e-9)
    assert float(found[0, 2]) == pytest.approx(1.0)


@few
@given(value=st.floats(-100, 100), m=sides, n=sides, scale=scales)
def test_what_does_not_vary_is_refused_at_any_scale(
    value: float, m: int, n: int, scale: float
) -> None:
    """Rounding makes the mean of equal entries another number than each of them."""
    w = torch.full((m, n), value, dtype=torch.float64) * scale
    for measured in (measure.heat_map, measure.row_column_share):
        with pytest.raises(ValueError, match="w must vary"):
            measured(w)
    with pytest.raises(ValueError, match="found none"):
        measure.correlations({"o": {"a": w[0], "b": w[1]}})


@few
@given(m=sides, n=sides, seed=st.integers(0, 10**6), rank=st.integers(1, 3))
def test_spectrum_of_low_rank_and_its_transpose(m: int, n: int, seed: int, rank: int) -> None:
    w = (noise(m, rank, seed=seed) @ noise(rank, n, seed=seed + 1)).numpy()
    tall, wide = spectra.esd(w), spectra.esd(w.T)
    assert (tall.size, wide.size) == (n, m)
    true = min(rank, m, n)
    assert np.count_nonzero(tall) == np.count_nonzero(wide) == true
    np.testing.assert_allclose(tall[n - true :], wide[m - true :], rtol=1e-7)
    assert tall.sum() == pytest.approx((w**2).sum())
    assert 1.0 <= spectra.stable_rank(w) <= true * (1 + 1e-9)
    assert 1.0 <= spectra.effective_rank(w) <= true * (1 + 1e-9)
    assert spectra.stable_rank(w) == pytest.approx(spectra.stable_rank(tall))


@few
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([0.0, 0.3, 1.0]),
    replacement=st.booleans(),
)
def test_transfer_takes_entries_of_the_source(
    sizes: list[int], seed: int, rate: float, replacement: bool
) -> None:
    old, new = (sizes * 2)[:2], (sizes * 2)[-2:]
    tensors = {"W": noise(*old, seed=seed), "b": noise(old[0], seed=seed + 1)}
    found = transfer.transfer(
        tensors,
        TABLE,
        {"o": new[0], "i": new[1]},
        random_rate=rate,
        fan_in_exponents={"W": 1.0},
        replacement=replacement,
        generator=seeded(seed),
    )
    assert found["W"].shape == (new[0], new[1])
    assert set(found["W"].flatten().tolist()) <= set(tensors["W"].flatten().tolist())
    assert set(found["b"].tolist()) <= set(tensors["b"].tolist())
    if rate == 0.0:  # W and b share the map of their neurons
        places = [tensors["b"].tolist().index(value) for value in found["b"].tolist()]
        rows = tensors["W"][places]
        for row, source in zip(found["W"], rows, strict=True):
            assert set(row.tolist()) <= set(source.tolist())
