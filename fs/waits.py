"""Handlers that wait for the network, so that they can be ended when nobody waits for their answers any more."""

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
        """Around a wait. What is within is cancelled, and left at its end, once `end` was called."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if self._ended:
                    scope.cancel()
                yield
            finally:
                self._scopes.discard(scope)

    def end(self) -> None:
        self._ended = True
        for scope in self._scopes:
            scope.cancel()
