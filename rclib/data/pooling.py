"""Smaller images: squares of pixels averaged."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d

from rclib.checks.arguments import count
from rclib.data.images import Dataset

__all__ = ["pooled_inputs"]


def pooled_inputs(data: Dataset, pool: int) -> tuple[Tensor, Tensor]:
    """Training and test images (n, 3 (side / pool)²), float32; `pool` 1 leaves them as they are.

    pool : side of the squares of colour images that are averaged; both sets are then divided by the
        standard deviation of the training set, since averages vary less than pixels.

    Raises ValueError for a pool below one, and above one for images that are not square and in
    three colours, or whose side it does not divide.
    """
    pool = count("pool", pool)
    if pool == 1:
        return data.x_train.float(), data.x_test.float()
    side = round((data.x_train.shape[1] / 3) ** 0.5)
    if 3 * side**2 != data.x_train.shape[1] or side % pool:
        raise ValueError(
            f"pool must divide the side of square colour images, got {pool} for "
            f"{data.x_train.shape[1]} inputs"
        )
    x, x_test = (
        avg_pool2d(part.float().view(len(part), 3, side, side), pool).flatten(1)
        for part in (data.x_train, data.x_test)
    )
    return x / x.std(), x_test / x.std()
