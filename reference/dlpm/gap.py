"""The largest service gap over *every* interval, in one pass [DLPM Thm 4.1, Thm 4.2].

Thm 4.1 bounds ``|W_f(t1, t2) - W_g(t1, t2)|`` for every interval in which f and g are continuously backlogged: not
only from time 0, and not only for the whole of their backlog. How to find the largest without looking at all intervals:

* Fix f and g and let ``D = W_g - W_f``, service since the run began: ``W_g(t1, t2) - W_f(t1, t2) = D(t2) - D(t1)``.
  Over all ``t1 <= t2`` of one period it is largest where D stands highest above the lowest value it had before: one
  running minimum for each ordered pair is enough. When a period begins, its minimum starts anew.
* A minimum or maximum of D lies where its slope changes. Between two admissions or departures of its requests, a
  client gains the same service in every forward step, so D is a straight line in forward steps: its extremes are at the
  *breakpoints* of f or g (it is served at once, its number of running requests changes, or it joins or leaves the
  backlog), and nothing has to be done in the forward steps between.

So a forward step costs O(1), however many clients decode, and a breakpoint of one client O(backlogged clients): in
total O(admissions and departures * backlogged clients), with O(clients * backlogged clients) of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.request import ClientId


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest gap found: ``ahead`` received ``amount`` more service (weighted tokens) than ``behind``.

    In the interval from ``start`` to ``end``, both counted in forward steps completed; admissions after
    that forward and before the next one may lie inside.
    """

    amount: int
    ahead: ClientId
    behind: ClientId
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Gaps:
    """The largest service gaps over every interval; ``None`` where no client ever got ahead of another.

    ``between_backlogged`` is the left side of [DLPM Thm 4.1], both clients backlogged throughout; ``over_backlogged``
    that of [DLPM Thm 4.2], only the one behind need be. The second is never smaller.
    """

    between_backlogged: Gap | None
    over_backlogged: Gap | None


class _Account:
    """Service of one client as a line: ``base`` at forward step ``since``, then ``rate`` more in each."""

    __slots__ = ("ahead", "backlogged", "base", "behind", "client", "rate", "since")

    def __init__(self, client: ClientId, now: int) -> None:
        """No service yet, no pairs."""
        self.client = client
        self.base = 0
        self.rate = 0
        self.since = now
        self.backlogged = False
        self.behind: dict[ClientId, _Pair] = {}
        self.ahead: dict[ClientId, _Pair] = {}

    def service(self, now: int) -> int:
        """Service received until forward step ``now``. O(1)."""
        return self.base + self.rate * (now - self.since)


class _Pair:
    """An ordered pair of clients: the lowest value of ``D = W_ahead - W_behind`` in the period so far, and when."""

    __slots__ = ("ahead", "at", "behind", "lowest")

    def __init__(self, ahead: _Account, behind: _Account, now: int) -> None:
        """A period of which only this moment is known."""
        self.ahead = ahead
        self.behind = behind
        self.lowest = ahead.service(now) - behind.service(now)
        self.at = now
        behind.behind[ahead.client] = self
        ahead.ahead[behind.client] = self


class BackloggedGap:
    """The largest service gap over every interval, fed with what happens in order.

    By default the gap of [DLPM Thm 4.1]: both clients backlogged throughout the interval. With ``against_any`` the gap
    of [DLPM Thm 4.2]: the client left behind is backlogged throughout, the one ahead need not be.

    Service comes in two forms: at once (`serve`: the extend tokens of an admission), and with each forward step
    (`rate`, then `step`: the output tokens, which all clients receive at the same moment, so that no order among
    them can be mistaken for a gap). Times are forward steps completed.

    Cost: `step` O(1); `serve`, `rate`, `backlogged`, `idle` O(backlogged clients), or O(all clients) with
    ``against_any``; `max_gap` O(clients * backlogged clients).
    """

    def __init__(self, *, against_any: bool = False) -> None:
        """No clients, no service."""
        self._against_any = against_any
        self._accounts: dict[ClientId, _Account] = {}
        self._now = 0
        self._best: Gap | None = None
        self._largest = 0

    def backlogged(self, client: ClientId) -> None:
        """``client`` is backlogged from now on: a new period begins for it. Nothing happens if it already is."""
        account = self._account(client)
        if account.backlogged:
            return
        account.backlogged = True
        for other in self._accounts.values():
            if other is not account and (self._against_any or other.backlogged):
                _Pair(other, account, self._now)
                if not self._against_any:
                    _Pair(account, other, self._now)

    def idle(self, client: ClientId) -> None:
        """``client`` is not backlogged from now on: its period ends here. Nothing happens if it was not."""
        account = self._accounts.get(client)
        if account is None or not account.backlogged:
            return
        self._observe(account, 0)
        account.backlogged = False
        for pair in account.behind.values():
            del pair.ahead.ahead[client]
        account.behind.clear()
        if not self._against_any:
            for pair in account.ahead.values():
                del pair.behind.behind[client]
            account.ahead.clear()

    def serve(self, client: ClientId, amount: int) -> None:
        """``client`` receives ``amount`` >= 0 of service at once."""
        account = self._account(client)
        self._observe(account, amount)
        account.base += amount

    def rate(self, client: ClientId, amount: int) -> None:
        """In every forward step from now on, ``client`` receives ``amount`` >= 0 of service."""
        account = self._account(client)
        if account.rate != amount:
            self._observe(account, 0)
            account.base = account.service(self._now)
            account.since = self._now
            account.rate = amount

    def step(self) -> None:
        """One forward step: every client receives its rate, all at the same moment. O(1)."""
        self._now += 1

    @property
    def max_gap(self) -> Gap | None:
        """The largest gap so far, the first of equals; ``None`` if no client ever got ahead of another."""
        for account in self._accounts.values():
            self._observe(account, 0)
        return self._best

    def _account(self, client: ClientId) -> _Account:
        """The account of ``client``, opened at 0 if it is new."""
        account = self._accounts.get(client)
        if account is None:
            account = _Account(client, self._now)
            if self._against_any:
                for other in self._accounts.values():
                    if other.backlogged:
                        # The new client had no service while the other may have had some: D is lowest now.
                        _Pair(account, other, self._now)
            self._accounts[client] = account
        return account

    def _observe(self, account: _Account, gain: int) -> None:
        """``account`` is about to be served ``gain`` at once: look at D of every pair that it is in.

        Where it is the one behind, D jumps down: compare first, for D may be lowest afterwards. Where it is the one
        ahead, D jumps up: the other way round.
        """
        now = self._now
        service = account.service(now)
        for pair in account.behind.values():
            other = pair.ahead
            difference = other.base + other.rate * (now - other.since) - service
            if difference - pair.lowest > self._largest:
                self._found(pair, difference)
            if difference - gain < pair.lowest:
                pair.lowest = difference - gain
                pair.at = now
        for pair in account.ahead.values():
            other = pair.behind
            difference = service - other.base - other.rate * (now - other.since)
            if difference < pair.lowest:
                pair.lowest = difference
                pair.at = now
            if difference + gain - pair.lowest > self._largest:
                self._found(pair, difference + gain)

    def _found(self, pair: _Pair, difference: int) -> None:
        """D of ``pair`` stands higher above its lowest value than any before."""
        self._largest = difference - pair.lowest
        self._best = Gap(self._largest, pair.ahead.client, pair.behind.client, pair.at, self._now)


class BothGaps:
    """The gaps of [DLPM Thm 4.1] and of [DLPM Thm 4.2] under one notion of backlogged, fed together.

    The methods are those of `BackloggedGap`, at their cost.
    """

    def __init__(self) -> None:
        """No clients, no service."""
        self._between = BackloggedGap()
        self._over = BackloggedGap(against_any=True)

    def backlogged(self, client: ClientId) -> None:
        """``client`` is backlogged from now on."""
        self._between.backlogged(client)
        self._over.backlogged(client)

    def idle(self, client: ClientId) -> None:
        """``client`` is not backlogged from now on."""
        self._between.idle(client)
        self._over.idle(client)

    def serve(self, client: ClientId, amount: int) -> None:
        """``client`` receives ``amount`` >= 0 of service at once."""
        self._between.serve(client, amount)
        self._over.serve(client, amount)

    def rate(self, client: ClientId, amount: int) -> None:
        """In every forward step from now on, ``client`` receives ``amount`` >= 0 of service."""
        self._between.rate(client, amount)
        self._over.rate(client, amount)

    def step(self) -> None:
        """One forward step."""
        self._between.step()
        self._over.step()

    def gaps(self) -> Gaps:
        """Both results so far."""
        return Gaps(self._between.max_gap, self._over.max_gap)
