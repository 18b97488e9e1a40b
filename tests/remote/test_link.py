from __future__ import annotations

import threading

import pytest

from remote.link import Direction, LinkMeter, RateLimit, is_faster_than_zstd, is_slow, parallel_transfers

KIB, MIB = 1024, 1024 * 1024


@pytest.mark.parametrize(
    ("rate", "latency", "maximum", "wanted"),
    [
        (None, None, 8, 4),
        (None, None, 2, 2),
        (100 * KIB, 0.05, 8, 1),
        (512 * KIB, 0.05, 8, 2),
        (2 * MIB, None, 8, 4),
        (2 * MIB, 0.01, 8, 5),
        (20 * MIB, 0.1, 8, 6),
        (100 * MIB, 0.1, 16, 14),
        (100 * MIB, 0.1, 8, 8),
        (1000 * MIB, 0.0, 16, 4),
        (100 * KIB, 0.05, 0, 1),
    ],
)
def test_parallel_transfers(rate, latency, maximum, wanted):
    assert parallel_transfers(rate, latency, maximum) == wanted


@pytest.mark.parametrize(
    ("rate", "slow", "fast"), [(None, False, False), (1000, True, False), (MIB - 1, True, False), (MIB, False, False)]
)
def test_slow_links(rate, slow, fast):
    assert is_slow(rate) is slow
    assert is_faster_than_zstd(rate) is fast


def test_fast_links():
    assert not is_faster_than_zstd(300_000_000)
    assert is_faster_than_zstd(300_000_001)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_transfer_tells_the_rate():
    clock = Clock()
    meter = LinkMeter(clock)
    assert meter.rates().download is None
    transfer = meter.begin(Direction.DOWN)
    clock.now += 2
    meter.end(transfer, 10 * MIB)
    assert meter.rates().download == pytest.approx(5 * MIB)
    assert meter.rates().upload is None


def test_transfers_side_by_side_read_as_the_link_not_as_their_share():
    clock = Clock()
    meter = LinkMeter(clock)
    for _ in range(20):
        transfers = [meter.begin(Direction.UP) for _ in range(4)]
        clock.now += 1
        for transfer in transfers:
            meter.end(transfer, MIB)
    assert meter.rates().upload == pytest.approx(4 * MIB)


def test_transfers_that_overlap_in_part():
    clock = Clock()
    meter = LinkMeter(clock)
    # The link carries 1 MiB/s. The first has it alone for a second, then shares it for two, and so the other way round.
    first = meter.begin(Direction.UP)
    clock.now += 1
    second = meter.begin(Direction.UP)
    clock.now += 2
    meter.end(first, 2 * MIB)
    clock.now += 1
    meter.end(second, 2 * MIB)
    assert meter.rates().upload == pytest.approx(MIB, rel=0.15)


def test_small_and_failed_transfers_say_nothing():
    clock = Clock()
    meter = LinkMeter(clock)
    for carried in (64 * KIB - 1, 0):
        transfer = meter.begin(Direction.UP)
        clock.now += 1
        meter.end(transfer, carried)
    assert meter.rates().upload is None
    transfer = meter.begin(Direction.UP)
    meter.end(transfer, MIB)  # in no time at all
    assert meter.rates().upload is None


def test_the_average_follows_a_change_within_some_transfers():
    clock = Clock()
    meter = LinkMeter(clock)
    for seconds in [1] * 10 + [10] * 12:
        transfer = meter.begin(Direction.UP)
        clock.now += seconds
        meter.end(transfer, 4 * MIB)
    assert is_slow(meter.rates().upload)


def test_latency_is_averaged():
    meter = LinkMeter(Clock())
    meter.answered(0.1)
    assert meter.rates().latency == pytest.approx(0.1)
    meter.answered(0.2)
    assert 0.1 < meter.rates().latency < 0.2


# --------------------------------------------------------------------------------------------------------------- limits


def test_no_limit_never_waits():
    limit = RateLimit()
    limit.wait(10**15, threading.Event())
    assert limit.delay(limit.reserve(10**15)) == 0
    assert limit.piece(1000) == 1000


def test_a_limit_grants_bytes_at_its_rate():
    clock = Clock()
    limit = RateLimit(1000.0, clock)
    ticket = limit.reserve(1000)
    assert limit.delay(ticket) == pytest.approx(1.0)
    clock.now += 0.4
    assert limit.delay(ticket) == pytest.approx(0.6)
    clock.now += 0.6
    assert limit.delay(ticket) == 0


def test_tickets_are_served_in_order():
    clock = Clock()
    limit = RateLimit(1000.0, clock)
    first, second = limit.reserve(500), limit.reserve(500)
    assert (limit.delay(first), limit.delay(second)) == (pytest.approx(0.5), pytest.approx(1.0))


def test_an_idle_link_saves_up_a_quarter_of_a_second():
    clock = Clock()
    limit = RateLimit(1000.0, clock)
    clock.now += 3600
    assert limit.delay(limit.reserve(250)) == 0
    assert limit.delay(limit.reserve(250)) == pytest.approx(0.25)


def test_a_changed_rate_reaches_those_that_wait():
    clock = Clock()
    limit = RateLimit(100.0, clock)
    ticket = limit.reserve(1000)
    clock.now += 5
    limit.set_rate(1000.0)
    assert limit.delay(ticket) == pytest.approx(0.5)
    limit.set_rate(None)
    assert limit.delay(ticket) == 0
    limit.set_rate(1000.0)
    assert limit.delay(ticket) == 0
    assert limit.delay(limit.reserve(100)) == pytest.approx(0.1)


def test_the_lower_of_what_the_person_and_the_service_want_holds():
    limit = RateLimit(1000.0, Clock())
    for ceiling, rate in ((400.0, 400.0), (4000.0, 1000.0), (None, 1000.0)):
        limit.set_ceiling(ceiling)
        assert limit.rate == rate
    limit.set_ceiling(400.0)
    limit.set_rate(None)
    assert limit.rate == 400.0
    limit.set_ceiling(None)
    assert limit.rate is None


@pytest.mark.parametrize(("rate", "piece"), [(100.0, 4096), (400_000.0, 100_000), (1e9, 262_144)])
def test_pieces_are_a_quarter_of_a_second(rate, piece):
    assert RateLimit(rate).piece(262_144) == piece


def test_an_abandoned_wait_ends_at_once():
    abandoned = threading.Event()
    abandoned.set()
    RateLimit(1.0).wait(10**9, abandoned)


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_impossible_limits_are_refused(rate):
    with pytest.raises(ValueError, match="limit"):
        RateLimit(rate)
    with pytest.raises(ValueError, match="limit"):
        RateLimit(10.0).set_rate(rate)
