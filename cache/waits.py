"""Waits for the network that end early when they have become pointless: the person went offline, or the kernel is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Waits:
    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._ended = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around a wait. One that is ended is left at the end of the `with`."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if self._ended:
                    scope.cancel()
                yield
            finally:
                self._scopes.discard(scope)

    def end(self) -> None:
        """End those that wait at this moment."""
        for scope in self._scopes:
            scope.cancel()

    def end_for_good(self) -> None:
        """And those that will."""
        self._ended = True
        self.end()
