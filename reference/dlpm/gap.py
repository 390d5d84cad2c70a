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

    __slots__ = ("base", "client", "rate", "since")

    def __init__(self, client: ClientId) -> None:
        """No service yet."""
        self.client = client
        self.base = 0
        self.rate = 0
        self.since = 0


class _Lowest:
    """The lowest value that ``W_ahead - W_behind`` had in the period so far, and when."""

    __slots__ = ("ahead", "at", "value")

    def __init__(self, ahead: _Account, value: int, at: int) -> None:
        """A period of which only this moment is known."""
        self.ahead = ahead
        self.value = value
        self.at = at


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
        self._behind: dict[ClientId, dict[ClientId, _Lowest]] = {}
        self._now = 0
        self._best: Gap | None = None

    def backlogged(self, client: ClientId) -> None:
        """``client`` is backlogged from now on: a new period begins for it. Nothing happens if it already is."""
        if client in self._behind:
            return
        account = self._account(client)
        rivals = self._accounts if self._against_any else self._behind
        service = self._service(account)
        self._behind[client] = {}
        for rival in rivals:
            if rival != client:
                other = self._accounts[rival]
                self._behind[client][rival] = _Lowest(other, self._service(other) - service, self._now)
                if not self._against_any:
                    self._behind[rival][client] = _Lowest(account, service - self._service(other), self._now)

    def idle(self, client: ClientId) -> None:
        """``client`` is not backlogged from now on: its period ends here. Nothing happens if it was not."""
        if client not in self._behind:
            return
        account = self._accounts[client]
        self._observe(account, self._service(account), 0)
        del self._behind[client]
        if not self._against_any:
            for row in self._behind.values():
                del row[client]

    def serve(self, client: ClientId, amount: int) -> None:
        """``client`` receives ``amount`` >= 0 of service at once."""
        account = self._account(client)
        before = self._settle(account)
        self._observe(account, before, amount)
        account.base += amount

    def rate(self, client: ClientId, amount: int) -> None:
        """In every forward step from now on, ``client`` receives ``amount`` >= 0 of service."""
        account = self._account(client)
        if account.rate != amount:
            self._observe(account, self._settle(account), 0)
            account.rate = amount

    def step(self) -> None:
        """One forward step: every client receives its rate, all at the same moment. O(1)."""
        self._now += 1

    @property
    def max_gap(self) -> Gap | None:
        """The largest gap so far, the first of equals; ``None`` if no client ever got ahead of another."""
        for client in self._behind:
            account = self._accounts[client]
            self._observe(account, self._service(account), 0)
        return self._best

    def _account(self, client: ClientId) -> _Account:
        """The account of ``client``, opened at 0 if it is new."""
        account = self._accounts.get(client)
        if account is None:
            account = self._accounts[client] = _Account(client)
            account.since = self._now
            if self._against_any:
                for backlogged, row in self._behind.items():
                    # It had no service while the backlogged client may have had some: the difference is lowest now.
                    behind = self._service(self._accounts[backlogged])
                    row[client] = _Lowest(account, -behind, self._now)
        return account

    def _service(self, account: _Account) -> int:
        """Service that a client has received so far. O(1)."""
        return account.base + account.rate * (self._now - account.since)

    def _settle(self, account: _Account) -> int:
        """Start the line of a client anew from here, and return its service."""
        account.base = self._service(account)
        account.since = self._now
        return account.base

    def _observe(self, account: _Account, service: int, gain: int) -> None:
        """``account`` stands at ``service`` and is about to jump by ``gain``: look at D of every pair that it is in.

        Of a pair's two differences one jumps down (its client is the one behind): that one is compared
        first and may reach a new lowest value afterwards. The other jumps up: the other way round.
        """
        now = self._now
        row = self._behind.get(account.client)
        if row is not None:
            for lowest in row.values():
                ahead = lowest.ahead
                difference = ahead.base + ahead.rate * (now - ahead.since) - service
                self._compare(difference, lowest, account.client)
                if difference - gain < lowest.value:
                    lowest.value = difference - gain
                    lowest.at = now
        for client, others in self._behind.items():
            found = others.get(account.client)
            if found is not None:
                behind = self._accounts[client]
                difference = service - behind.base - behind.rate * (now - behind.since)
                if difference < found.value:
                    found.value = difference
                    found.at = now
                self._compare(difference + gain, found, client)

    def _compare(self, difference: int, lowest: _Lowest, behind: ClientId) -> None:
        """Keep the gap from the lowest value to ``difference`` if it is the largest so far."""
        amount = difference - lowest.value
        if amount > (self._best.amount if self._best is not None else 0):
            self._best = Gap(amount, lowest.ahead.client, behind, lowest.at, self._now)


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
