"""Smaller images: squares of pixels averaged, colours too."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import avg_pool2d

from rclib.checks.arguments import count
from rclib.data.cifar10 import sha256_json
from rclib.data.images import Dataset

__all__ = ["grey_images", "pooled_inputs"]


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


def grey_images(data: Dataset, pool: int) -> Dataset:
    """The same set with images (n, (side / pool)²) of one grey: means over the three standardised
    colours and over squares of `pool` pixels, shifted and scaled by the training set's mean and
    standard deviation. Images of one colour are left as they are, whatever the pool.

    Raises ValueError as `pooled_inputs` does.
    """
    side = round(data.x_train.shape[1] ** 0.5)
    if side**2 == data.x_train.shape[1]:
        return data
    x, x_test = (
        part.unflatten(1, (3, -1)).mean(1)  # type: ignore[no-untyped-call]
        for part in pooled_inputs(data, pool)
    )
    mean, std = x.mean(), x.std(correction=0)
    return replace(
        data,
        description=f"{data.description}, grey, {round(x.shape[1] ** 0.5)} pixels a side",
        x_train=(x - mean) / std,
        x_test=(x_test - mean) / std,
        checksum=sha256_json([data.checksum, "grey", pool]),
    )
