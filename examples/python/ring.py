"""The hash ring: which node owns a key. All nodes and clients of a network compute the same."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from hashlib import md5

LABELS = 30  # of each node
SHIFTS = (0, 4, 8, 12)  # of the points of a label


def point(key: bytes) -> int:
    """A key's place on the ring: the first four bytes of its md5. 32 hexadecimal digits count as
    an md5 already."""
    if re.fullmatch(rb"[0-9a-fA-F]{32}", key):
        return int(key[:8], 16)
    return int.from_bytes(md5(key, usedforsecurity=False).digest()[:4], "big")


class Ring:
    """An immutable ring of nodes, each named `address:port`."""

    def __init__(self, names: Iterable[str]) -> None:
        owners: dict[int, str] = {}
        # A point that two nodes have belongs to the smaller name, which comes last.
        for name in sorted(names, reverse=True):
            for label in range(LABELS):
                head = point(f"{name}-{label}".encode())
                owners.update((head << shift, name) for shift in SHIFTS)
        self._points = sorted(owners)
        self._names = [owners[point] for point in self._points]

    def owner(self, key: bytes) -> str | None:
        """The node of the first point greater than the key's, or of the first point. None on an
        empty ring."""
        if not self._points:
            return None
        return self._names[bisect_right(self._points, point(key)) % len(self._points)]
