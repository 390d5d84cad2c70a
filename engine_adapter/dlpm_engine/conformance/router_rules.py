"""The rules of a cluster's router: who was sent where, on whose credit, and whether the choice was right.

They need an object ``dispatch`` in the header: ``router``, ``workers``, and for `d2lpm` ``worker_quantum`` (with
``worker_quanta`` of single clients, where they differ). A router's log order is the order in which it saw things:
dispatches, and finished requests.

There is no rule for the bound over all workers. In the form that is true, for clients backlogged on every worker, it is
the sum of the bounds of the workers, and each worker is held to its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import Header
from dlpm.fields import MAX_INTEGER, Fields
from dlpm_engine.conformance.findings import Findings
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.report import Violation
from dlpm_engine.conformance.rule import D2LPM

MOST_WORKERS = 65_536


class _Sent:
    """A request that was dispatched and has not finished."""

    __slots__ = ("client", "input", "worker")

    def __init__(self, worker: int, client: str | None, tokens: int | None) -> None:
        self.worker = worker
        self.client = client
        self.input = tokens


class RouterRules:
    """What one router may do. Memory: requests in flight, and a counter for each client and worker."""

    def __init__(self, header: Header, findings: Findings, header_line: int = 1) -> None:
        """A router without history; the header is line ``header_line``.

        Raises:
            InputError: what the header says of the router is not what it must be.
        """
        described = header.extra.get("dispatch")
        if not isinstance(described, dict):
            raise InputError("expected an object", source=findings.source, line=header_line, field="dispatch")
        fields = Fields(described, findings.source, header_line, "dispatch.")
        self.router = fields.text("router")
        self._workers = fields.integer("workers", 1, MOST_WORKERS)
        self._quantum = fields.integer("worker_quantum", 1, MAX_INTEGER) if self.router in D2LPM else 0
        self._quanta = _quanta(fields)
        self._cost = CostModel(header.extend_weight, header.output_weight)
        self._findings = findings
        self._queued = [0] * self._workers
        self._known = [False] * self._workers
        self._credit: dict[str, list[int]] = {}
        self._turns: dict[str | None, int] = {}
        self._in_flight: dict[str, _Sent] = {}
        choices: Mapping[str, Callable[[_Sent, Sequence[int], int | None], None]] = {
            "d2lpm": self._d2lpm,
            "d2lpm-moving": self._d2lpm,
            "round-robin": self._round_robin,
            "per-client-round-robin": self._round_robin,
            "least-loaded": self._least_loaded,
        }
        self._event: Line = {}
        self._check_choice = choices.get(self.router, _anything)

    def dispatch(self, event: Line, *, moved: bool = False) -> None:
        """A decision; or a request that waited at one worker has ``moved`` to another. O(workers).

        Raises:
            InputError: the event lacks what the router's rules need.
        """
        request, worker = event["request"], event["worker"]
        sent = _Sent(worker, event.get("client"), event.get("input"))
        matched, counter = event["matched_workers"], event.get("counter")
        if request in self._in_flight and not moved:
            self._violation(
                "dispatch-once", "a request that is not in flight", f"{request!r}, which is", event, sent.client
            )
            return
        if worker >= self._workers:
            self._violation("dispatch-known-worker", f"a worker below {self._workers}", f"{worker}", event, sent.client)
            return
        if moved and request in self._in_flight:
            self._move(self._in_flight[request], event)
            return
        odd = [other for other in matched if other >= self._workers or not self._known[other]]
        if odd or list(matched) != sorted(set(matched)):
            self._violation(
                "dispatch-matched",
                "workers in order, each sent something before",
                f"{matched}" if not odd else f"{odd[0]}, which was sent nothing",
                event,
                sent.client,
            )
        else:
            self._event = event
            self._check_choice(sent, matched, counter)
        self._in_flight[request] = sent
        self._known[worker] = True
        self._queued[worker] += 1

    def _move(self, sent: _Sent, event: Line) -> None:
        """A waiting request changes workers: its charge and its place go with it. O(1)."""
        source, target = sent.worker, event["worker"]
        self._queued[source] -= 1
        self._queued[target] += 1
        self._known[target] = True
        sent.worker = target
        credit = self._credit.get(sent.client) if sent.client is not None else None
        if credit is None or sent.input is None:
            return
        charge = self._cost.extend(sent.input)
        credit[source] += charge
        expected, found = credit[target] - charge, event.get("counter")
        if found != expected:
            self._event = event
            expectation = f"a counter of {expected}: {credit[target]} less {charge} that moved from worker {source}"
            self._wrong("router-charge", expectation, f"{found}", sent)
        credit[target] = found if found is not None else expected

    def arrived(self, event: Line) -> None:
        """A request arrives at its worker: it is the one that was dispatched. O(1)."""
        sent = self._in_flight.get(event["request"])
        if sent is None:
            return
        said, found = (sent.client, sent.input), (event["client"], event["input"])
        if sent.client is not None and sent.input is not None and said != found:
            self._violation(
                "dispatch-same-request",
                f"client {sent.client!r} and {sent.input} input tokens, as dispatched",
                f"{event['client']!r} and {event['input']}",
                event,
                event["client"],
            )

    def finished(self, request: str, output_tokens: int) -> None:
        """A request has finished at its worker [DLPM Alg. 2 ll. 21-23]. O(1)."""
        sent = self._in_flight.pop(request, None)
        if sent is not None:
            self._queued[sent.worker] -= 1
            credit = self._credit.get(sent.client) if sent.client is not None else None
            if credit is not None:
                credit[sent.worker] -= self._cost.output(output_tokens)

    # -- routers -------------------------------------------------------------------------------------------------------

    def _d2lpm(self, sent: _Sent, matched: Sequence[int], counter: int | None) -> None:
        """Algorithm 2: the charge, then the credit, then the choice [DLPM Alg. 2 ll. 3-8, 14-16]."""
        if sent.client is None or sent.input is None or counter is None:
            raise InputError(
                "expected client, input and counter: router d2lpm charges by them",
                source=self._findings.source,
                line=self._findings.line,
            )
        quantum = self._quanta.get(sent.client, self._quantum)
        credit = self._credit.setdefault(sent.client, [0] * self._workers)
        most = max(credit)
        if most <= 0:
            refills = -most // quantum + 1
            credit[:] = [value + refills * quantum for value in credit]
        before = credit[sent.worker]
        after = before - self._cost.extend(sent.input)
        available = [worker for worker, value in enumerate(credit) if value > 0]
        credit[sent.worker] = counter
        if counter != after:
            whole = (counter - after) % quantum == 0
            self._wrong(
                "router-refill" if whole else "router-charge",
                f"a counter of {after}: {before} less {self._cost.extend(sent.input)} for {sent.input} input tokens",
                f"{counter}",
                sent,
            )
        elif before <= 0:
            self._wrong("router-credit", f"one of the workers {available}, which have credit", f"{sent.worker}", sent)
        else:
            holders = [worker for worker in matched if worker in available]
            if holders and sent.worker not in holders:
                self._wrong(
                    "router-locality", f"one of {holders}, with the prefix and with credit", f"{sent.worker}", sent
                )
            else:
                self._fewest_queued(holders or available, sent)

    def _fewest_queued(self, candidates: Sequence[int], sent: _Sent) -> None:
        """The worker with the fewest requests in flight, the lowest index among equals [DLPM Alg. 2 l. 8]."""
        fewest = min(self._queued[worker] for worker in candidates)
        first = next(worker for worker in candidates if self._queued[worker] == fewest)
        if self._queued[sent.worker] != fewest:
            found = f"{sent.worker}, with {self._queued[sent.worker]}"
            self._wrong("router-shortest", f"worker {first}, with {fewest} requests", found, sent)
        elif sent.worker != first:
            self._wrong("router-tie", f"worker {first}, the lowest of those with {fewest}", f"{sent.worker}", sent)

    def _least_loaded(self, sent: _Sent, matched: Sequence[int], counter: int | None) -> None:
        """Fewest requests in flight among all workers."""
        self._fewest_queued(range(self._workers), sent)

    def _round_robin(self, sent: _Sent, matched: Sequence[int], counter: int | None) -> None:
        """The next worker in turn, for everybody together or for each client."""
        turn = sent.client if self.router == "per-client-round-robin" else None
        expected = self._turns.get(turn, 0)
        self._turns[turn] = (sent.worker + 1) % self._workers
        if sent.worker != expected:
            self._wrong("router-turn", f"worker {expected}, whose turn it is", f"{sent.worker}", sent)

    def _wrong(self, rule: str, expected: str, found: str, sent: _Sent) -> None:
        self._violation(rule, expected, found, self._event, sent.client)

    def _violation(self, rule: str, expected: str, found: str, event: Line, client: str | None) -> None:
        """Report the line being checked; with the client's counters at the workers as its ledger."""
        if self._findings.omit():
            return
        credit = self._credit.get(client, []) if client is not None else []
        self._findings.add(
            Violation(
                line=self._findings.line,
                rule=rule,
                expected=expected,
                found=found,
                worker=event["worker"],
                step=event["step"],
                time_us=event.get("time_us"),
                client=client,
                request=event["request"],
                ledger={f"worker {worker}": value for worker, value in enumerate(credit)},
                clients=len(credit),
            )
        )


def _quanta(fields: Fields) -> dict[str, int]:
    """The worker quanta of clients that have their own."""
    values = fields.values.get("worker_quanta", {})
    if not isinstance(values, dict):
        raise fields.mismatch("worker_quanta", "an object")
    inner = Fields(values, fields.source, fields.line, "dispatch.worker_quanta.")
    return {client: inner.integer(client, 1, MAX_INTEGER) for client in values}


def _anything(sent: _Sent, matched: Sequence[int], counter: int | None) -> None:
    """A router without rules of its own may choose what it likes."""
