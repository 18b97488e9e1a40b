"""What a service tells Prometheus: requests, bytes, the store's failures, who waits, and what keeping house has left to do.

Served on a bind of its own (`metrics_port`), never to devices. No label grows with users: routes are patterns, not paths.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from remote.protocol import Link
from remote.server.database import metrics as rows
from remote.server.database.engine import Database
from remote.server.objects.store import Checked, LinkBase, Listed, ObjectStore, Stored, StoreUnavailable

log = logging.getLogger(__name__)

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60)
SECOND_NS = 10**9


class Metrics:
    """Of one process. Counted from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "aloft_requests", "Requests that were answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "aloft_request_seconds", "From a request to the end of its answer; long polls wait by intent.", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._bytes = Counter(
            "aloft_body_bytes", "Bytes of bodies, by the service's eyes.", ["direction"], registry=self.registry
        )
        self._received = self._bytes.labels("received")
        self._sent = self._bytes.labels("sent")
        self._store_errors = Counter(
            "aloft_store_errors",
            "Requests that the object store did not answer, or refused.",
            ["operation"],
            registry=self.registry,
        )

        self._feed_lag = Histogram(
            "aloft_feed_lag_seconds", "From hearing of a change to answering a device that waited for it.", buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip

    def fed(self, woken: float) -> None:
        """A device that waited gets its news; it was woken then (`time.perf_counter`)."""
        self._feed_lag.observe(time.perf_counter() - woken)

    def answered(self, method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """`status` 0: the caller went away first."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._received.inc(received)
        self._sent.inc(sent)

    def store_failed(self, operation: str) -> None:
        self._store_errors.labels(operation).inc()

    def watch(self, database: Database, waiting: Callable[[], int], clock: Callable[[], int]) -> None:
        """Ask these when somebody reads the metrics."""
        self.registry.register(_State(database, waiting, clock))

    def serve(self, host: str, port: int) -> WSGIServer:
        """In a thread of its own, until its `shutdown`. `OSError`."""
        server, _ = start_http_server(port, addr=host, registry=self.registry)
        log.info("metrics are on http://%s:%d/metrics", host, server.server_port)
        return server


class _State(Collector):
    """What is read from the database when it is asked for. A database that is away leaves it out."""

    def __init__(self, database: Database, waiting: Callable[[], int], clock: Callable[[], int]) -> None:
        self._database = database
        self._waiting = waiting
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("aloft_waiting", "Long polls that wait at this process.", value=self._waiting())
        try:
            with self._database.read() as connection:
                state = rows.state(connection)
        except SQLAlchemyError as error:
            log.warning("the metrics lack what the database knows: %s", error)
            return
        yield GaugeMetricFamily("aloft_accounts", "Accounts that are not closed.", value=state.accounts)
        yield GaugeMetricFamily("aloft_devices", "Devices that are logged in.", value=state.devices)
        yield GaugeMetricFamily("aloft_used_bytes", "What all accounts store.", value=state.used_bytes)
        yield GaugeMetricFamily(
            "aloft_dead_objects", "Copies in the store that wait for their deletion.", value=state.dead_objects
        )
        yield GaugeMetricFamily(
            "aloft_damaged_objects", "Objects that the scrubber found damaged or missing.", value=state.damaged_objects
        )
        done = GaugeMetricFamily("aloft_job_age_seconds", "Since a job was last done to its end.", labels=["job"])
        for job, done_ns in state.jobs.items():
            done.add_metric([job], (self._clock() - done_ns) / SECOND_NS)
        yield done


class CountedStore:
    """An object store whose failures are counted."""

    def __init__(self, store: ObjectStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self.needs_md5 = store.needs_md5

    def sign_put(
        self, base: LinkBase, key: str, object_id: bytes, length: int, expires_in: int, md5: bytes | None = None
    ) -> Link:
        return self._store.sign_put(base, key, object_id, length, expires_in, md5)

    def sign_get(self, base: LinkBase, key: str, object_id: bytes, expires_in: int) -> Link:
        return self._store.sign_get(base, key, object_id, expires_in)

    def stat(self, keys: Sequence[str]) -> Mapping[str, Stored]:
        try:
            return self._store.stat(keys)
        except StoreUnavailable:
            self._metrics.store_failed("stat")
            raise

    def read(self, key: str, length: int) -> bytes:
        try:
            return self._store.read(key, length)
        except StoreUnavailable:
            self._metrics.store_failed("read")
            raise

    def write(self, key: str, object_id: bytes, body: bytes) -> None:
        try:
            self._store.write(key, object_id, body)
        except StoreUnavailable:
            self._metrics.store_failed("write")
            raise

    def delete(self, keys: Sequence[str]) -> None:
        try:
            self._store.delete(keys)
        except StoreUnavailable:
            self._metrics.store_failed("delete")
            raise

    def listing(self, after: str = "", limit: int = 1000) -> Sequence[Listed]:
        try:
            return self._store.listing(after, limit)
        except StoreUnavailable:
            self._metrics.store_failed("listing")
            raise

    def check(self, key: str, object_id: bytes, length: int, *, mend: bool) -> Checked:
        try:
            return self._store.check(key, object_id, length, mend=mend)
        except StoreUnavailable:
            self._metrics.store_failed("check")
            raise

    def replicas(self, keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        try:
            return self._store.replicas(keys)
        except StoreUnavailable:
            self._metrics.store_failed("replicas")
            raise

    def close(self) -> None:
        self._store.close()
