"""The life of requests at one worker: the rules that hold under every policy.

Each method takes one parsed line, looks at all it needs before it changes anything, and raises `OddLineError` (or lets
`KeyError`, `TypeError` or `AttributeError` out) where the line is not what it should be; the strict reader then says
what is wrong with it.

After a violation the log is believed: a request about which it has contradicted itself becomes a stray, and what is
said about it is taken as it is until it finishes. So one fault gives one report.
"""

from __future__ import annotations

from dlpm.fields import MAX_INTEGER, MAX_TOKENS
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.odd import OddLineError
from dlpm_engine.conformance.state import GONE, QUEUED, ClientState, RequestState
from dlpm_engine.conformance.worker_state import WorkerState

_ONE_TYPE = {int}
_ABSENT = 1 << 200
"""Stands for a field that is not there: no field of a log is that large."""


class Lifecycle:
    """Arrivals, admissions, finishes and preemptions of one worker."""

    def __init__(self, state: WorkerState, batch: Batch, discipline: Discipline) -> None:
        """Hold the worker to the rules for all and to those of ``discipline``."""
        self._state = state
        self._batch = batch
        self._discipline = discipline
        self._limits = state.header.limits
        self._quanta = state.header.quanta
        self._quantum = state.header.default_quantum or 0
        self._arrivals = 0

    def arrive(self, event: Line) -> None:
        """A request joins the queue. O(1) beside what the policy's rules cost."""
        name = event["request"]
        client_name = event["client"]
        tokens = event["input"]
        max_output = event["max_output"]
        arrived_us = event.get("arrived_us", 0)
        if not (
            type(name) is str
            and type(client_name) is str
            and name
            and client_name
            and type(tokens) is int
            and type(max_output) is int
            and type(arrived_us) is int
            and 0 < tokens <= MAX_TOKENS
            and 0 < max_output <= MAX_TOKENS
            and 0 <= arrived_us <= MAX_INTEGER
        ):
            raise OddLineError
        state = self._state
        client = state.clients.get(client_name)
        if client is None:
            quantum = self._quanta.get(client_name, self._quantum)
            client = state.clients[client_name] = ClientState(client_name, quantum)
        if name in state.queued or name in state.running:
            where = "queued" if name in state.queued else "running"
            state.violation(
                "arrive-once", expected="a new name", found=f"{name!r}, which is {where}", client=client, request=name
            )
            return
        state.strays.pop(name, None)
        self._arrivals += 1
        request = RequestState(name, client, tokens, max_output, self._arrivals)
        client.recent.append((state.findings.line, state.findings.raw))
        self._check_limits(request)
        self._discipline.arrives(request)
        state.enqueue(request)

    def takes_over(self, request: RequestState) -> None:
        """A request that arrived at another worker joins the queue here, as its last. O(1)."""
        self._arrivals += 1
        request.rank = self._arrivals
        self._state.enqueue(request)

    def _check_limits(self, request: RequestState) -> None:
        """A request keeps to the limits in the header, and could ever fit into memory."""
        limits = self._limits
        together = request.input + request.max_output
        for what, found, limit in (
            ("input", request.input, limits.max_input),
            ("max_output", request.max_output, limits.max_output),
            ("input + max_output", together, limits.kv_tokens),
        ):
            if limit is not None and found > limit:
                self._state.violation(
                    "arrive-in-limits",
                    expected=f"{what} of at most {limit} tokens",
                    found=f"{found}",
                    client=request.client,
                    request=request.id,
                )
                return

    def order(self, event: Line) -> None:
        """The order in which this step considers the queue. O(queue)."""
        requests = event["requests"]
        matched = event["matched"]
        free = event.get("free", _ABSENT)
        if (
            type(requests) is not list
            or type(matched) is not list
            or len(matched) != len(requests)
            or len(set(requests)) != len(requests)
            or type(free) is not int
            or not (free is _ABSENT or -MAX_INTEGER <= free <= MAX_INTEGER)
            or (
                matched
                and (set(map(type, matched)) != _ONE_TYPE or not 0 <= min(matched) <= max(matched) <= MAX_TOKENS)
            )
        ):
            raise OddLineError
        self._discipline.considers(requests, matched, free if free is not _ABSENT else None)

    def refill(self, event: Line) -> None:
        """A check-refill has fired. O(clients)."""
        deficits = event["deficits"]
        if type(deficits) is not dict or (deficits and set(map(type, deficits.values())) != _ONE_TYPE):
            raise OddLineError
        self._discipline.refills(deficits)

    def admit(self, event: Line) -> None:
        """A queued request joins the running batch. O(1) beside what the policy's rules cost."""
        name = event["request"]
        matched = event["matched"]
        extend = event["extend"]
        deficit: int | None = event.get("deficit", _ABSENT)
        free: int | None = event.get("free", _ABSENT)
        if not (
            type(matched) is int
            and type(extend) is int
            and matched >= 0
            and extend >= 0
            and type(deficit) is int
            and type(free) is int
            and (free is _ABSENT or -MAX_INTEGER <= free <= MAX_INTEGER)
        ):
            raise OddLineError
        if deficit is _ABSENT:
            deficit = None
        if free is _ABSENT:
            free = None
        state = self._state
        request = state.queued.get(name)
        if request is None:
            self._admit_stray(name, deficit)
            return
        client = request.client
        resident = request.input + request.generated
        if extend < 1:
            state.violation("extend-positive", expected="extend >= 1", found=f"{extend}", client=client, request=name)
        elif matched + extend != resident:
            state.violation(
                "resident",
                expected=f"matched + extend = {resident} ({request.input} input, {request.generated} generated before)",
                found=f"{matched} + {extend} = {matched + extend}",
                client=client,
                request=name,
            )
        self._discipline.admits(request, extend, deficit, free)
        client.recent.append((state.findings.line, state.findings.raw))
        self._batch.join(request, extend, free)

    def _admit_stray(self, name: str, deficit: int | None) -> None:
        """An admission of a request that is not in the queue."""
        state = self._state
        if name in state.strays:
            client = state.strays[name]
        else:
            running = state.running.get(name)
            client = running.client if running is not None else None
            state.violation(
                "admit-queued",
                expected="a request in the waiting queue",
                found=f"{name!r}, which is running" if running is not None else f"{name!r}, which is not there",
                client=client,
                request=name,
            )
            if running is None:
                state.strays[name] = None
        if client is not None:
            self._discipline.adopts(client, deficit)

    def finish(self, event: Line) -> None:
        """A request leaves the batch with all its output. O(1)."""
        name = event["request"]
        state = self._state
        request = state.running.get(name)
        if request is None:
            self._leave_stray(name, "finish-running")
            return
        client = request.client
        if request.joined == state.forwards:
            state.violation(
                "finish-with-output",
                expected="output since its admission",
                found="none",
                client=client,
                request=name,
            )
        client.recent.append((state.findings.line, state.findings.raw))
        self._batch.leave(request)
        request.status = GONE
        self._discipline.finished(request)

    def preempt(self, event: Line) -> None:
        """A request leaves the batch unfinished and is back in the queue. O(1) beside what the policy's rules cost."""
        name = event["request"]
        deficit: int | None = event.get("deficit", _ABSENT)
        if event["kind"] not in ("recompute", "swap") or type(deficit) is not int:
            raise OddLineError
        if deficit is _ABSENT:
            deficit = None
        state = self._state
        request = state.running.get(name)
        if request is None:
            self._leave_stray(name, "preempt-running")
            return
        client = request.client
        client.recent.append((state.findings.line, state.findings.raw))
        self._batch.leave(request)
        request.status = QUEUED
        request.preempted_in = state.step
        request.reported = False
        self._discipline.preempts(request, deficit)
        state.enqueue(request)

    def _leave_stray(self, name: str, rule: str) -> None:
        """A request that is not running leaves the batch, says the log."""
        state = self._state
        if name in state.strays:
            del state.strays[name]
            return
        queued = state.queued.get(name)
        state.violation(
            rule,
            expected="a running request",
            found=f"{name!r}, which is queued" if queued is not None else f"{name!r}, which is not there",
            client=queued.client if queued is not None else None,
            request=name,
        )

    def evict(self, event: Line) -> None:
        """Cached prefixes are given up: nothing that can be checked depends on it."""
        tokens = event.get("tokens")
        if type(tokens) is not int or not 0 <= tokens <= MAX_INTEGER or "blocks" in event:
            self._state.findings.strictly_parsed()

    def advance(self, step: int) -> None:
        """The worker's step changes to ``step``: a step in which requests waited or ran has had its forward. O(1)."""
        if step > MAX_INTEGER:
            raise OddLineError
        state = self._state
        if step < state.step:
            state.violation("step-order", expected=f"a step of at least {state.step}", found=f"{step}")
        elif (state.queued or state.running) and self._discipline.conserves_work():
            missed = state.step if state.forward_step != state.step else state.step + 1
            if missed < step:
                for client in state.active:
                    client.doubtful = True
                state.violation(
                    "work-conserving",
                    expected=f"a forward in step {missed}: {len(state.queued)} requests wait, {len(state.running)} run",
                    found=f"step {step} without one",
                )
        state.step = step
