"""Images held out: training images that are not trained on, the same ones every time."""

from __future__ import annotations

import pytest
import torch

from rclib.data.held_out import held_out
from rclib.data.images import Dataset, load


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(300, 100)


def test_images_held_out_are_training_images_that_are_not_trained_on(data: Dataset) -> None:
    apart = held_out(data, 60)
    assert (len(apart.x_train), len(apart.x_test)) == (240, 60)
    together = torch.cat([apart.x_train, apart.x_test])
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, data.x_train.tolist()))
    labels = {
        tuple(x): y for x, y in zip(data.x_train.tolist(), data.y_train.tolist(), strict=True)
    }
    for x, y in ((apart.x_train, apart.y_train), (apart.x_test, apart.y_test)):
        assert [labels[tuple(one)] for one in x.tolist()] == y.tolist()
    assert torch.equal(apart.x_test, held_out(data, 60).x_test)
    sums = {held_out(data, n).checksum for n in (59, 60)} | {data.checksum}
    assert len(sums) == 3
    for n in (0, 300):
        with pytest.raises(ValueError, match=f"n must lie in 1 to 299, got {n}"):
            held_out(data, n)
