"""The thresholds of the gateway's cache-aware router, at their edges."""

from __future__ import annotations

from fractions import Fraction

from dlpm.dispatch.cache_aware import CacheAware, Thresholds
from tests.reference.scene import request

TEN = tuple(range(10))


def sent(router: CacheAware, prompt: tuple[int, ...]) -> int:
    """Where a prompt goes."""
    return router.dispatch(request("a", prompt), prompt).worker


def test_exactly_the_share_that_is_asked_for_is_not_enough_to_follow_a_prefix() -> None:
    thresholds = Thresholds(match=Fraction(3, 10))
    for length, expected in ((3, 1), (4, 0)):
        router = CacheAware(2, thresholds)
        assert sent(router, TEN) == 0
        assert sent(router, TEN[:length] + tuple(range(100, 110 - length))) == expected


def test_queues_are_unbalanced_only_beyond_both_thresholds() -> None:
    for absolute, relative, follows in ((2, Fraction(3, 2), True), (2, Fraction(4, 3), False), (3, Fraction(1), True)):
        router = CacheAware(2, Thresholds(absolute=absolute, relative=relative))
        router.dispatch(request("a", TEN), TEN)
        for worker in [0] * 8 + [1] * 6:
            router._queues.dispatched(worker)
        assert sent(router, TEN) == (0 if follows else 1)
