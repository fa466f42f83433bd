"""How much memory this process may still take, so that too large a thing is refused by name.

Linux grants memory that it does not have and ends the process when it is used; asking first is
the only way to say which matrix was too large.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["available_memory"]

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def available_memory() -> int:
    """Bytes that can still be taken: of the machine, its control group and `ulimit -v`.

    The largest number that there is where the system does not tell.
    """
    return max(0, min(_machine(), _control_group(), _limit()))


def _machine() -> int:
    return _field("/proc/meminfo", "MemAvailable:") * 1024 or sys.maxsize


def _control_group() -> int:
    for limit, used, stat in _CGROUPS:
        most, now = _number(limit), _number(used)
        if most is not None and now is not None:
            # What the cache of files holds is given back when it is needed.
            return (
                most - now + max(_field(stat, "inactive_file"), _field(stat, "total_inactive_file"))
            )
    return sys.maxsize


def _limit() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    return soft - _field("/proc/self/status", "VmSize:") * 1024


def _field(path: str, name: str) -> int:
    """The number behind a name in one of the system's tables, 0 if it is not there."""
    try:
        lines = Path(path).read_text("ascii", errors="replace").splitlines()
    except OSError:
        return 0
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return 0


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdecimal() else None
