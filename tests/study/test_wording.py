"""rclib.study.wording: errors of the system in words."""

from __future__ import annotations

import pytest

from rclib.study.wording import plain_note

CACHE = "none of model.safetensors, pytorch_model.bin is in the cache, and https://a.b cannot be "


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("", ""),
        ("five repeats each", "five repeats each"),
        ("largest |z| (error) of [0, 1]; standard error: 3", None),
        ("jackknife over runs, 5 and 4 seeds", None),
        (
            f"x/y: {CACHE}reached: '[Errno -2] Name or service not known'",
            "x/y is not in the cache of this machine, and https://a.b could not be reached",
        ),
        ("a: HTTPSConnectionPool(host='h', port=443): Max retries exceeded", "a: no network"),
        ("<urlopen error [Errno 111] Connection refused>", "no network"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("FileNotFoundError: [Errno 2] No such file: 'x'; next", "the file is not there; next"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", "not enough memory"),
        ("requests.exceptions.ReadTimeout: HTTPSConnectionPool(1)", None),
        ("z: KeyError: 'w'", "z: an error of the system"),
        (
            "Traceback (most recent call last):\n  File 'x', line 1\nMemoryError: Unable",
            "not enough memory",
        ),
    ],
)
def test_errors_become_words(raw: str, said: str | None) -> None:
    if raw.startswith("requests."):
        assert "Pool" not in plain_note(raw)
    else:
        assert plain_note(raw) == (raw if said is None else said)
    assert plain_note(plain_note(raw)) == plain_note(raw)
