"""data.pooling: averages by hand, and what cannot be averaged."""

from __future__ import annotations

import pytest
import torch

from rclib.data.images import Dataset
from rclib.data.pooling import grey_images, pooled_inputs


def small(inputs: int) -> Dataset:
    x = torch.arange(2.0 * inputs).reshape(2, inputs)
    return Dataset("x", "x", x, torch.tensor([0, 1]), x[:1], torch.tensor([0]), 2, "0" * 64)


def test_squares_of_pixels_are_averaged_and_scaled() -> None:
    data = small(48)
    x, x_test = pooled_inputs(data, 2)
    pixels = data.x_train.view(2, 3, 4, 4)
    by_hand = torch.stack([
        pixels[:, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
        for c in range(3) for i in range(2) for j in range(2)
    ], 1)  # fmt: skip
    assert torch.allclose(x, by_hand / by_hand.std())
    assert torch.allclose(x_test, x[:1])
    assert torch.equal(pooled_inputs(data, 1)[0], data.x_train)


@pytest.mark.parametrize(("inputs", "pool"), [(48, 3), (64, 2), (48, 0)])
def test_what_cannot_be_averaged_is_refused(inputs: int, pool: int) -> None:
    with pytest.raises(ValueError, match="pool must"):
        pooled_inputs(small(inputs), pool)


def test_grey_images_are_means_over_colours_and_squares() -> None:
    data = small(48)
    found = grey_images(data, 2)
    pixels = data.x_train.view(2, 3, 4, 4)
    by_hand = torch.stack([
        pixels[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2, 3))
        for i in range(2) for j in range(2)
    ], 1)  # fmt: skip
    expected = (by_hand - by_hand.mean()) / by_hand.std(correction=0)
    torch.testing.assert_close(found.x_train, expected)
    torch.testing.assert_close(found.x_test, expected[:1])
    assert found.checksum != data.checksum
    assert found.description == "x, grey, 2 pixels a side"
    assert grey_images(small(16), 2).x_train.shape == (2, 16)
    with pytest.raises(ValueError, match="pool must"):
        grey_images(data, 3)
