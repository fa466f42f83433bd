"""Tables of notebook 70: what is drawn and stored beside its claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rclib.experiments.features.bandlimited import best

__all__ = ["excess_frame", "joined", "lowest", "shown", "tables"]


def lowest(frame: pd.DataFrame) -> pd.DataFrame:
    """frequency, lam, error: the band with the least error, geometric mean over seeds."""
    means = np.exp(np.log(frame.error).groupby([frame.frequency, frame.lam]).mean()).reset_index()
    return best(means.assign(seed=0)).drop(columns="seed")


def excess_frame(
    widths: Sequence[pd.DataFrame], learned: pd.DataFrame, *, lams: Sequence[float],
    frequency: float, penalty: float,
) -> pd.DataFrame:  # fmt: skip
    """Excess risk over the oracle against the number of features: arm, features, seed, excess.

    Labels are without noise, so the oracle's risk is zero and the excess the squared relative
    error. Arms: "frozen, λ = ..." and "trained".
    """
    own = pd.concat(widths, ignore_index=True)
    own = own[(own.frequency == frequency) & (own.penalty == penalty)]
    frozen = own[own.lam.isin(lams)]
    arms = [f"frozen, λ = {lam:g}" for lam in frozen.lam]
    after = learned[learned.frequency == frequency]
    both = [
        pd.DataFrame({"arm": arm, "features": part.features, "seed": part.seed,
                      "excess": part.error**2})
        for arm, part in ((arms, frozen), ("trained", after))
    ]  # fmt: skip
    return pd.concat(both, ignore_index=True)


def tables(
    minima: pd.DataFrame, wide: pd.DataFrame, learned: pd.DataFrame, fits: pd.DataFrame,
    excess: pd.DataFrame, *, widest: int,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """What is stored beside the claims: medians over seeds, means for the spectra."""
    own = wide[wide.features == widest]
    return {
        "best": minima,
        "penalties": _medians(own, ["frequency", "lam", "penalty"], ["error", "norm"]),
        "training": _medians(learned, ["frequency", "features"], list(learned.columns[3:])),
        "spectra": fits.groupby("lam")[["rank", "geometric", "power"]].mean().reset_index(),
        "excess": _medians(excess, ["arm", "features"], ["excess"]),
    }


def _medians(frame: pd.DataFrame, keys: list[str], what: list[str]) -> pd.DataFrame:
    return frame.groupby(keys, sort=False)[what].median().reset_index()


def shown(
    grid: pd.DataFrame, wide: pd.DataFrame, farther: pd.DataFrame, spectra: pd.DataFrame, *,
    frequency: float, widest: int, most: int = 10,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """What the panels of the first figure show: errors of the waves by band; of one frequency by
    number of features at the largest penalty, and along the penalties; the first seed's spectra.

    most : of how many seeds, the first ones, so that what is stored beside the figure stays small.
    """
    drawn = grid.seed.drop_duplicates().iloc[:most]
    grid = grid[grid.seed.isin(drawn)]
    both = pd.concat([wide, farther], ignore_index=True)
    both = both[(both.frequency == frequency) & both.seed.isin(drawn)]
    widening = both[both.penalty == both.penalty.max()]
    paths = both[both.features == widest]
    return (
        grid.loc[grid.frequency > 0, ["seed", "lam", "frequency", "error"]],
        widening[["seed", "lam", "features", "error"]],
        paths[["seed", "lam", "penalty", "norm", "error"]],
        spectra[spectra.seed == spectra.seed.iloc[0]],
    )


def joined(panels: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Frames below each other, with a column panel."""
    return pd.concat([frame.assign(panel=name) for name, frame in panels.items()])
