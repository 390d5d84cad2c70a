"""The service gap over every interval, in one pass [DLPM Thm 4.1, 4.2].

Fix a backlogged client f (the one that may be left behind) and any other client g. Let ``W`` be service since the log
began. In the backlog of f up to now, the largest lead that g gained over f in an interval that ends now is

    lead(f, g) = max over t1 of [W_g(now) - W_g(t1)] - [W_f(now) - W_f(t1)]  =  peak(f, g) - (W_f(now) - W_g(now))

with ``peak(f, g)`` the largest value that ``W_f - W_g`` had in this backlog. So one running maximum for each ordered
pair covers every interval. Thm 4.2 says that no lead exceeds 2(U+Q); Thm 4.1 is the same for pairs in which g is
backlogged as well (each of the two is f once), so one structure serves both.

A peak need not be looked at in every event. ``W_f - W_g`` falls only when g is served, so its new peaks lie just before
that; and in forward steps in which every client's number of running requests stays the same, it is a straight
line, with its peak at one of its ends. So peaks of g are taken

* before g is charged for an admission (`jump`), and
* before the next forward step, for each backlogged f whose number of running requests has changed (`before_forward`).

Nor need leads be looked at in every event. Let ``total`` be the sum, over all events, of the largest charge of one
client in it: no lead grows by more than ``total`` does. A row whose largest lead was ``l`` is looked at again when
``total`` has grown by more than bound - l.

Cost: `jump` O(backlogged clients), once for a run of admissions of one client; `bend` O(1), and O(clients served in the
backlog) once before the next forward step; a forward step O(1); looking at a row O(clients), once for each (bound - l)
of total service. Memory O(backlogged clients * clients served).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dlpm_engine.conformance.state import ClientState

_NEVER = 1 << 200


@dataclass(frozen=True, slots=True)
class Lead:
    """``ahead`` got ``amount`` more service than the backlogged ``behind`` since just before line ``since``."""

    behind: ClientState
    ahead: ClientState
    amount: int
    since: int


class GapTracker:
    """The leads over backlogged clients among clients with one quantum, against one ``bound``.

    Attributes:
        bound: the largest lead that is allowed; it may grow.
        total: no lead has grown by more than this did.
        alarm: no lead is above the bound while ``total`` is at most this.
    """

    def __init__(self, bound: int) -> None:
        """No client is backlogged."""
        self.bound = bound
        self._backlogged: dict[ClientState, None] = {}
        self._bent: dict[ClientState, None] = {}
        self.total = 0
        self.alarm = _NEVER
        self._last_jump: ClientState | None = None

    def begin(self, client: ClientState, active: Iterable[ClientState], line: int) -> None:
        """``client`` is backlogged from ``line`` on, while ``active`` clients have running requests. O(active)."""
        client.backlog_line = line
        self._restart(client, active, line)
        self._backlogged[client] = None
        self._last_jump = None

    def end(self, client: ClientState) -> None:
        """``client`` is no longer backlogged. O(1)."""
        client.backlog_line = 0
        self._backlogged.pop(client, None)
        self._bent.pop(client, None)
        client.peaks = {}
        client.peak_lines = {}

    def jump(self, client: ClientState, charge: int, line: int) -> None:
        """``client`` is charged ``charge`` at once, by the event in ``line``."""
        if self._last_jump is not client:
            self._last_jump = client
            service = client.service
            for behind in self._backlogged:
                difference = behind.service - service
                peaks = behind.peaks
                if behind is not client and (client not in peaks or difference > peaks[client]):
                    peaks[client] = difference
                    behind.peak_lines[client] = line
        client.service += charge
        self.total += charge
        if client in self._backlogged:
            self._bent[client] = None

    def bend(self, client: ClientState) -> None:
        """The number of running requests of ``client`` has changed. O(1)."""
        if client in self._backlogged:
            self._bent[client] = None

    def settle(self, served: Iterable[ClientState], line: int) -> None:
        """The event in ``line`` is about to serve clients other than one token for each running request.

        Its forward step is on no straight line with those before and after. O(backlogged clients * served clients).
        """
        for client in served:
            self.jump(client, 0, line)
        self._bent.update(self._backlogged)

    def before_forward(self, line: int) -> None:
        """The event in ``line`` is about to charge a forward step, to all clients at the same moment."""
        for behind in self._bent:
            service = behind.service
            peaks = behind.peaks
            for ahead, peak in peaks.items():
                difference = service - ahead.service
                if difference > peak:
                    peaks[ahead] = difference
                    behind.peak_lines[ahead] = line
        self._bent.clear()
        self._last_jump = None

    def after_forward(self, largest_charge: int) -> None:
        """The forward step has been charged; no client was charged more than ``largest_charge``. O(1)."""
        self.total += largest_charge

    def leads_above_bound(self, active: Iterable[ClientState], line: int) -> list[Lead]:
        """The largest lead over each backlogged client that exceeds the bound now; its intervals start anew.

        To be asked when ``total`` is above ``alarm``; before that there is none. O(clients) for each row that is due.
        """
        found = []
        for behind in self._backlogged:
            if self.total > behind.alarm:
                lead = self._largest_lead(behind)
                if lead is not None and self._room(lead) < 0:
                    found.append(lead)
                    self._restart(behind, active, line)
                else:
                    behind.alarm = self.total + self._room_of_all(behind, lead)
        self.alarm = min((client.alarm for client in self._backlogged), default=_NEVER)
        return found

    def _room(self, lead: Lead) -> int:
        """By how much a lead may still grow; below 0 if it is above its bound."""
        return self.bound - lead.amount

    def _room_of_all(self, behind: ClientState, lead: Lead | None) -> int:
        """By how much all leads over ``behind`` may still grow, ``lead`` being the largest of them.

        Who is not in the row has not been served since, so its lead is at most 0.
        """
        return min(self.bound, self._room(lead)) if lead is not None else self.bound

    def _largest_lead(self, behind: ClientState) -> Lead | None:
        """The largest lead of any client over ``behind`` in an interval that ends now. O(clients in its row)."""
        largest = None
        service = behind.service
        for ahead, peak in behind.peaks.items():
            amount = peak - (service - ahead.service)
            if largest is None or amount > largest.amount:
                largest = Lead(behind, ahead, amount, behind.peak_lines[ahead])
        return largest

    def _restart(self, client: ClientState, active: Iterable[ClientState], line: int) -> None:
        """Let the intervals of ``client`` begin here. Who does not run now gets a peak when next charged."""
        client.peaks = {other: client.service - other.service for other in active if other is not client}
        client.peak_lines = dict.fromkeys(client.peaks, line)
        client.alarm = self.total + self._room_of_all(client, None)
        self.alarm = min(self.alarm, client.alarm)
