"""How much information a task needs, exactly and by the estimator that is used for it.

Boopathy, Yue, Hwang, Iyer and Fiete (arXiv 2406.15941): I(ε) = -ln P(e <= ε) over hypotheses that
fit the training data. Looked at are the exact value in the space of a Gaussian process
(`inductive_bias_theory`), how it moves with the dimension for teachers in and outside of that
space, the fitted χ² that stands in for it, and networks on images. The runs are those of
`inductive_bias_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.dynamics.inductive_bias_runs import (
    components_law,
    digits_bias,
    likelihood_fits,
    posterior,
    refits,
)
from rclib.experiments.dynamics.inductive_bias_theory import Quadratic, fitted, information
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.stats.slopes import slope

__all__ = [
    "bias_left",
    "component_frame",
    "component_rise",
    "digits_frame",
    "dimension_frame",
    "dimension_gain",
    "fit_frame",
    "length_frame",
    "likelihood_frame",
    "refit_frame",
    "refit_slopes",
    "settings_frame",
    "shown_law",
    "spike_correlation",
]


def _law(run: Arrays, place: int) -> Quadratic:
    return Quadratic.of(run["weights"][place], 1.0, run["shift"][place])


def _posteriors(
    seeds: Sequence[int], teachers: Sequence[str], **shared: Any
) -> list[tuple[str, int, Arrays]]:
    configs = [{"seed": s, "teacher": teacher, **shared} for teacher in teachers for s in seeds]
    runs = sweep.run(posterior, configs, description="posteriors")
    return [(str(c["teacher"]), int(c["seed"]), run) for c, run in zip(configs, runs, strict=True)]


def dimension_frame(
    seeds: Sequence[int],
    teachers: Sequence[str],
    *,
    dimensions: Sequence[int],
    share: float,
    **shared: Any,
) -> pd.DataFrame:
    """Information at the error `share` times the variance of the test labels: teacher, seed, d,
    error, information. The kernel's length is √d."""
    lengths = [float(np.sqrt(d)) for d in dimensions]
    runs = _posteriors(seeds, teachers, dimensions=list(dimensions), lengths=lengths, **shared)
    rows = [
        (teacher, seed, d, at, information(_law(run, k), at))
        for teacher, seed, run in runs
        for k, d in enumerate(dimensions)
        for at in [share * float(run["variance"][k])]
    ]
    return pd.DataFrame(rows, columns=["teacher", "seed", "d", "error", "information"])


def dimension_gain(frame: pd.DataFrame, teacher: str, to: int, start: int) -> pd.Series:
    """Information at one dimension minus that at another, by seed."""
    chosen = frame[frame.teacher == teacher]
    table = chosen.pivot_table(index="seed", columns="d", values="information")
    return (table[to] - table[start]).rename("gain")


def length_frame(
    seeds: Sequence[int], *, d: int, lengths: Sequence[float], share: float, **shared: Any
) -> pd.DataFrame:
    """Random labels: seed, length, information at the error `share`."""
    runs = _posteriors(
        seeds, ["noise"], dimensions=[d] * len(lengths), lengths=list(lengths), **shared
    )
    rows = [
        (seed, length, information(_law(run, k), share))
        for _, seed, run in runs
        for k, length in enumerate(lengths)
    ]
    return pd.DataFrame(rows, columns=["seed", "length", "information"])


def fit_frame(
    seeds: Sequence[int],
    *,
    dimensions: Sequence[int],
    shares: Sequence[float],
    samples: int,
    quantile: float,
    **shared: Any,
) -> pd.DataFrame:
    """The fitted against the exact information, teachers "kernel": seed, d, what ("quantile",
    "mean" for the mean of the law, or the share of the variance), exact, found. At the quantile
    the exact value is that of `samples` draws, -ln of the quantile."""
    lengths = [float(np.sqrt(d)) for d in dimensions]
    rows = []
    for _, seed, run in _posteriors(
        seeds, ["kernel"], dimensions=list(dimensions), lengths=lengths, **shared
    ):
        for k, d in enumerate(dimensions):
            random = np.random.default_rng([seed, d, 7])
            law = _law(run, k)
            errors = law.sample(random, samples)
            fit = fitted(errors)
            at = float(np.quantile(law.sample(random, samples), quantile))
            rows.append((seed, d, "quantile", -np.log(quantile), information(fit, at)))
            mean = law.cumulant(1)
            rows.append((seed, d, "mean", information(law, mean), information(fit, mean)))
            for share in shares:
                at = share * float(run["variance"][k])
                rows.append((seed, d, f"{share:g}", information(law, at), information(fit, at)))
    return pd.DataFrame(rows, columns=["seed", "d", "what", "exact", "found"])


def refit_frame(seeds: Sequence[int], *, sizes: Sequence[int], **shared: Any) -> pd.DataFrame:
    """Refits over fresh samples: seed, size, mean, spread (of the fitted information), exact."""
    configs = [{"seed": seed, "sizes": list(sizes), **shared} for seed in seeds]
    rows = [
        (c["seed"], size, found.mean(), found.std(ddof=1), float(run["exact"]))
        for c, run in zip(configs, sweep.run(refits, configs, description="refits"), strict=True)
        for size, found in zip(sizes, run["found"], strict=True)
    ]
    return pd.DataFrame(rows, columns=["seed", "size", "mean", "spread", "exact"])


def refit_slopes(frame: pd.DataFrame) -> pd.Series:
    """Log-log slope of the spread against the number of samples, by seed."""
    found = {seed: slope(list(g["size"]), list(g.spread)) for seed, g in frame.groupby("seed")}
    return pd.Series(found, name="slope").rename_axis("seed")


def bias_left(frame: pd.DataFrame) -> pd.Series:
    """|mean fitted - exact| at the largest number of samples, by seed."""
    last = frame[frame["size"] == frame["size"].max()].set_index("seed")
    return (last["mean"] - last.exact).abs().rename("bias")


def digits_frame(data: Dataset, seeds: Sequence[int], **shared: Any) -> pd.DataFrame:
    """Images: seed, linear (the error asked for), kernel, short (kernel of length one) and network
    (information for it in these spaces), error (mean of the networks), train, spikes (mean),
    correlation (Spearman, of spikes and error over the networks of a split)."""
    configs = [{"seed": seed, **shared} for seed in seeds]
    runs = sweep.run(digits_bias, configs, data=data, description="networks")
    rows = []
    for config, run in zip(configs, runs, strict=True):
        at = float(run["linear"])
        law = Quadratic.of(run["weights"], float(data.n_classes), run["shift"])
        short = Quadratic.of(run["short_weights"], float(data.n_classes), run["short_shift"])
        networks = pd.Series(run["networks"].astype(float))
        rows.append(
            {
                "seed": config["seed"],
                "linear": at,
                "kernel": information(law, at),
                "short": information(short, at),
                "network": information(fitted(networks), at),
                "error": float(networks.mean()),
                "train": float(run["train"].mean()),
                "spikes": float(run["spikes"].mean()),
                "correlation": spike_correlation(run),
            }
        )
    return pd.DataFrame(rows)


def settings_frame(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Mapping[str, Any]], **shared: Any
) -> pd.DataFrame:
    """`digits_frame` in several settings, means over seeds, one row a name. settings : name ->
    what it has in place of `shared`."""
    frames = [
        digits_frame(data, seeds, **{**shared, **own}).assign(setting=name)
        for name, own in settings.items()
    ]
    table = pd.concat(frames).drop(columns="seed")
    return table.groupby("setting", sort=False).mean().reset_index()


def component_frame(
    data: Dataset, seeds: Sequence[int], *, components: Sequence[int], share: float, **shared: Any
) -> pd.DataFrame:
    """Images in their leading principal components: seed, components, information at the error
    `share` times the variance of the test labels, and left, the error of the posterior's mean
    over that variance."""
    configs = [{"seed": seed, "components": list(components), **shared} for seed in seeds]
    runs = sweep.run(components_law, configs, data=data, description="components")
    rows = []
    for config, run in zip(configs, runs, strict=True):
        for k, count in enumerate(components):
            law = Quadratic.of(run["weights"][k], float(data.n_classes), run["shift"][k])
            variance = float(run["variance"])
            rows.append(
                (
                    config["seed"], count, information(law, share * variance),
                    float(run["shift"][k].sum()) / variance,
                )
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["seed", "components", "information", "left"])


def component_rise(frame: pd.DataFrame) -> pd.Series:
    """ln of the information with the most components over that with the fewest, by seed."""
    table = frame.pivot_table(index="seed", columns="components", values="information")
    return np.log(table[max(table.columns)] / table[min(table.columns)]).rename("rise")


def likelihood_frame(
    seeds: Sequence[int], *, dimensions: Sequence[int], shares: Sequence[float], **shared: Any
) -> pd.DataFrame:
    """The estimate as the authors' code makes it: seed, d, share, exact, moments (fit by
    cumulants), likelihood and fallback."""
    configs = [
        {"seed": seed, "d": d, "shares": list(shares), **shared}
        for d in dimensions
        for seed in seeds
    ]
    runs = sweep.run(likelihood_fits, configs, description="likelihood fits")
    return pd.concat(
        [
            pd.DataFrame({"seed": c["seed"], "d": c["d"], "share": c["shares"], **run})
            for c, run in zip(configs, runs, strict=True)
        ],
        ignore_index=True,
    )


def spike_correlation(run: Mapping[str, Any]) -> float:
    """Spearman correlation over networks of the number of spikes and the error; zero where all
    have as many."""
    if len(np.unique(run["spikes"])) == 1:
        return 0.0
    found = pd.Series(run["spikes"]).corr(pd.Series(run["networks"]), method="spearman")
    return float(found)


def shown_law(seed: int, *, d: int, share: float, samples: int, **shared: Any) -> pd.DataFrame:
    """One posterior for a figure: what ("samples", "fitted", "exact", "asked"), error, and value,
    the ln of the share of samples below the error, or of its probability."""
    ((_, _, run),) = _posteriors(
        [seed], ["kernel"], dimensions=[d], lengths=[float(np.sqrt(d))], **shared
    )
    law = _law(run, 0)
    errors = np.sort(law.sample(np.random.default_rng([seed, d, 8]), samples))
    fit, asked = fitted(errors), share * float(run["variance"][0])
    at = np.linspace(0.8 * min(asked, errors[0]), errors[-1], 60)
    frames = [
        pd.DataFrame({
            "what": "samples", "error": errors,
            "value": np.log(np.arange(1, samples + 1) / samples),
        }).iloc[:: max(1, samples // 100)],
        pd.DataFrame({"what": "fitted", "error": at, "value": [fit.log_cdf(a) for a in at]}),
        pd.DataFrame({"what": "exact", "error": at, "value": [law.log_cdf(a) for a in at]}),
        pd.DataFrame({"what": ["asked"], "error": [asked], "value": [law.log_cdf(asked)]}),
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)
