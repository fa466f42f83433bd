"""Data sets as standardised tensors: scikit-learn's digits and CIFAR-10.

Images are flattened, and each colour channel c is shifted and scaled with the training set's
statistics over all its images and pixels, x ← (x - mean_c) / std_c (population std). The
papers train on CIFAR-10; digits is the small set that needs no file.

CIFAR-10 comes from `$RCLIB_DATA` (default `data/` in the project); `rclib.data.cifar10` says in
which forms and how they are checked. Text for language models is in `rclib.data.text`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from rclib.data.cifar10 import Arrays, DataError, arrays_checksum, read_cifar10, sha256_json
from rclib.paths import FolderError, data_dir, expanded

__all__ = ["DATASETS", "DataError", "Dataset", "load"]

DATASETS = ("cifar10", "digits")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification set. Unpacks as x_train, y_train, x_test, y_test.

    x_train : (n_train, d) float32, standardised per channel with the training set's mean and
        std, channel-major; y_train : (n_train,) int64; x_test, y_test : the same for the test
        set, with the training set's statistics. Images may be sorted by class: shuffle them.
    description : what a caption prints. checksum : sha256 (hex) of the decoded images and
        labels, a property of the data and not of the file they came from.
    """

    name: str
    description: str
    x_train: Tensor = field(repr=False)
    y_train: Tensor = field(repr=False)
    x_test: Tensor = field(repr=False)
    y_test: Tensor = field(repr=False)
    n_classes: int
    checksum: str

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x_train, self.y_train, self.x_test, self.y_test))

    def subset(self, n_train: int, n_test: int | None = None, *, seed: int = 0) -> Dataset:
        """The first `n_train` and `n_test` images of a seeded permutation.

        Smaller subsets of one seed are contained in larger ones. `n_test=None` keeps the test
        set as it is. The standardisation stays that of the whole training set. Raises
        ValueError if a number is not between 1 and the images there are.
        """
        train = self._first("n_train", n_train, len(self.y_train), seed)
        if n_test is None:
            test = torch.arange(len(self.y_test), device=self.y_test.device)
        else:
            test = self._first("n_test", n_test, len(self.y_test), seed)
        kept = f"{len(train):,} + {len(test):,} images"
        return replace(
            self,
            description=f"{self.description}, subset of {kept}",
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_test=self.x_test[test],
            y_test=self.y_test[test],
            checksum=sha256_json([self.checksum, "subset", n_train, n_test, seed]),
        )

    def _first(self, argument: str, n: int, available: int, seed: int) -> Tensor:
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= available:
            raise ValueError(
                f"{argument} must be an integer from 1 to {available} "
                f"(the images of {self.name!r}), got {n!r}"
            )
        # RandomState's streams never change between versions of numpy; others may.
        order = np.random.RandomState(seed).permutation(available)[:n]
        return torch.from_numpy(order).to(self.y_train.device)

    def to(self, device: str | torch.device) -> Dataset:
        """The same set on `device`."""
        x_train, y_train, x_test, y_test = (t.to(device) for t in self)
        return replace(self, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)

    def share_memory(self) -> Self:
        """Move the tensors into shared memory, so that worker processes get no copy of them."""
        for tensor in self:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        return self


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    device: str | torch.device = "cpu",
) -> Dataset:
    """Load `digits` (8 x 8, 1,437 + 360 images) or `cifar10` (3 x 32 x 32, 50,000 + 10,000).

    `root` (only for cifar10) defaults to `$RCLIB_DATA`, then to `data/` in the project.
    `download=False` or `RCLIB_OFFLINE=1` in the environment forbids downloading. Raises
    ValueError for an unknown name and DataError for a missing, damaged or refused data file.
    """
    if name not in DATASETS:
        raise ValueError(f"name must be one of {', '.join(DATASETS)}, got {name!r}")
    if name == "digits":
        description, arrays = "scikit-learn digits", _digits()
        checksum = arrays_checksum(arrays)
    else:
        try:
            folder = expanded(str(root), "root") if root else data_dir()
        except FolderError as error:
            raise DataError(str(error)) from None
        description, arrays, checksum = read_cifar10(folder, download)
    return _standardised(name, description, arrays, checksum).to(device)


def _standardised(name: str, description: str, arrays: Arrays, checksum: str) -> Dataset:
    channels, values = arrays["x_train"].shape[1], torch.arange(256)
    mean, std = torch.empty(channels, 1), torch.empty(channels, 1)
    for c in range(channels):
        # Exact integers from the histogram: no rounding in a sum over 50 million pixels.
        counts = torch.bincount(arrays["x_train"][:, c].flatten(), minlength=256)
        n = int(counts.sum())
        first, second = int((counts * values).sum()), int((counts * values**2).sum())
        mean[c] = first / n
        std[c] = ((second * n - first**2) / n**2) ** 0.5 or 1.0  # a constant channel gives 0
    x_train, x_test = (
        arrays[key].flatten(2).float().sub_(mean).div_(std).flatten(1)
        for key in ("x_train", "x_test")
    )
    y_train, y_test = arrays["y_train"].long(), arrays["y_test"].long()
    return Dataset(name, description, x_train, y_train, x_test, y_test, 10, checksum)


def _digits() -> Arrays:
    """Stratified split: 360 test images shared out over the classes by largest remainder."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels, n_test = bunch.target, 360
    share = np.bincount(labels, minlength=10) * n_test / len(labels)
    take = np.floor(share).astype(int)
    take[np.argsort(take - share, kind="stable")[: n_test - take.sum()]] += 1
    random = np.random.RandomState(0)  # its streams never change between versions of numpy
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        test[random.permutation(np.flatnonzero(labels == label))[: take[label]]] = True
    images = torch.from_numpy(bunch.images.astype(np.uint8)).unsqueeze(1)
    targets, held = torch.from_numpy(labels.astype(np.uint8)), torch.from_numpy(test)
    return {
        "x_train": images[~held],
        "y_train": targets[~held],
        "x_test": images[held],
        "y_test": targets[held],
    }
