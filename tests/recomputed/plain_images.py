"""Images for the scripts of this folder, read without `rclib`.

CIFAR-10 comes from `$RCLIB_DATA` or data/: an archive cifar10*.zip of train/<class>/*.jpg and
test/<class>/*.jpg, or else torchvision's. Digits are scikit-learn's.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchvision.datasets import CIFAR10

Split = tuple[Tensor, Tensor, Tensor, Tensor]


def cifar(n_train: int, n_test: int, seed: int = 0, pool: int = 1) -> Split:
    """x_train (n, 3, 32 / pool, 32 / pool), y_train, x_test, y_test: random images, averaged over
    squares of `pool` pixels after each channel of the whole pictures was standardised."""
    root = Path(os.environ.get("RCLIB_DATA", "data"))
    rng = np.random.default_rng(seed)
    found = []
    archives = sorted(root.glob("cifar10*.zip"))
    for part, n in (("train", n_train), ("test", n_test)):
        if archives:
            with zipfile.ZipFile(archives[0]) as archive:
                names = sorted(name for name in archive.namelist() if name.startswith(f"{part}/"))
                classes = sorted({name.split("/")[1] for name in names})
                chosen = [names[i] for i in rng.permutation(len(names))[:n]]
                pictures = [np.asarray(Image.open(archive.open(name))) for name in chosen]
                labels = [classes.index(name.split("/")[1]) for name in chosen]
        else:
            own = CIFAR10(str(root), train=part == "train")
            order = rng.permutation(len(own.targets))[:n]
            pictures, labels = list(own.data[order]), [own.targets[i] for i in order]
        found.append((torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), labels))
    (x_train, y_train), (x_test, y_test) = found
    some = x_train[:10_000].float()
    mean, std = some.mean((0, 2, 3), keepdim=True), some.std((0, 2, 3), keepdim=True)
    train, test = (avg_pool2d((x.float() - mean) / std, pool) for x in (x_train, x_test))
    return train, torch.tensor(y_train), test, torch.tensor(y_test)


def digits(seed: int = 0) -> Split:
    """x_train (1437, 64), y_train, x_test (360, 64), y_test: a stratified split, standardised."""
    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x, y, test_size=360, stratify=y, random_state=seed)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part) for part in parts)
    mean, std = x_train.mean(), x_train.std()
    return ((x_train - mean) / std).float(), y_train, ((x_test - mean) / std).float(), y_test
