"""The life of requests at one worker: the rules that hold under every policy.

Each method takes one parsed line, looks at all it needs before it changes anything, and raises `OddLineError` (or lets
`KeyError`, `TypeError` or `AttributeError` out) where the line is not what it should be; the strict reader then says
what is wrong with it.

After a violation the log is believed: a request about which it has contradicted itself becomes a stray, and what is
said about it is taken as it is until it finishes. So one fault gives one report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlpm.fields import MAX_TOKENS
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.findings import names
from dlpm_engine.conformance.memory_rules import MemoryRules
from dlpm_engine.conformance.state import GONE, QUEUED, RUNNING, ClientState, RequestState
from dlpm_engine.conformance.worker_state import WorkerState

_ONE_TYPE = {int}

_Line = dict[str, Any]


class OddLineError(Exception):
    """A line that the fast reader does not take; the strict reader decides."""


class Lifecycle:
    """Arrivals, admissions, outputs, finishes and preemptions of one worker."""

    def __init__(self, state: WorkerState, discipline: Discipline) -> None:
        """Hold the worker to the rules for all and to those of ``discipline``."""
        self._state = state
        self._discipline = discipline
        self._memory = MemoryRules(state)
        self._limits = state.header.limits
        self._quanta = state.header.quanta
        self._quantum = state.header.default_quantum or 0
        self._arrivals = 0
        self._due: dict[int, set[RequestState]] = {}

    def arrive(self, event: _Line) -> None:
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
            and arrived_us >= 0
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

    def order(self, event: _Line) -> None:
        """The order in which this step considers the queue. O(queue)."""
        requests = event["requests"]
        matched = event["matched"]
        free = event.get("free")
        if (
            type(requests) is not list
            or type(matched) is not list
            or len(matched) != len(requests)
            or len(set(requests)) != len(requests)
            or (free is not None and type(free) is not int)
            or (matched and (set(map(type, matched)) != _ONE_TYPE or min(matched) < 0))
        ):
            raise OddLineError
        self._discipline.considers(requests, matched, free)

    def refill(self, event: _Line) -> None:
        """A check-refill has fired. O(clients)."""
        deficits = event["deficits"]
        if type(deficits) is not dict or (deficits and set(map(type, deficits.values())) != _ONE_TYPE):
            raise OddLineError
        self._discipline.refills(deficits)

    def admit(self, event: _Line) -> None:
        """A queued request joins the running batch. O(1) beside what the policy's rules cost."""
        name = event["request"]
        matched = event["matched"]
        extend = event["extend"]
        deficit = event.get("deficit")
        free = event.get("free")
        if not (
            type(matched) is int
            and type(extend) is int
            and matched >= 0
            and extend >= 0
            and (deficit is None or type(deficit) is int)
            and (free is None or type(free) is int)
        ):
            raise OddLineError
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
        state.dequeue(request)
        request.status = RUNNING
        request.extend = extend
        request.joined = state.forwards
        request.due = state.forwards + request.max_output - request.generated
        self._due.setdefault(request.due, set()).add(request)
        state.start_running(request)
        self._discipline.admitted(request)
        self._memory.admitted(request, free)

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

    def output(self, event: _Line) -> None:
        """One forward step. O(clients in the batch), and a few machine operations for each running request."""
        tokens = event["tokens"]
        deficits = event.get("deficits", {})
        if type(tokens) is not dict or type(deficits) is not dict:
            raise OddLineError
        counts = list(tokens.values())
        if counts and (set(map(type, counts)) != _ONE_TYPE or min(counts) < 0):
            raise OddLineError
        state = self._state
        if not tokens and not state.running:
            state.violation("idle-forward", expected="a request in the batch", found="a forward step without one")
        elif state.forward_step == state.step:
            state.violation("forward-once", expected=f"one forward in step {state.step}", found="another")
        self._discipline.forwards()
        if tokens.keys() == state.running.keys() and counts.count(1) == len(counts):
            served: dict[ClientState, int] | None = None
            sound = True
        else:
            sound = self._check_tokens(tokens)
            served = self._served(tokens)
        state.forwards += 1
        state.forward_step = state.step
        self._check_outputs_in_limit()
        if sound:
            self._discipline.outputs(deficits, served)
        else:
            self._discipline.adopts_outputs(deficits)
        self._memory.forwarded()
        state.recent_outputs.append((state.findings.line, state.findings.raw))

    def _check_tokens(self, tokens: Mapping[str, int]) -> bool:
        """Output goes to those who run, and to all of them; whether it does. O(running requests)."""
        state = self._state
        idle = [request for name, request in state.running.items() if not tokens.get(name)]
        wrong = [name for name in tokens if name not in state.running and name not in state.strays]
        if wrong:
            request = state.queued.get(wrong[0])
            state.violation(
                "output-running",
                expected="output of running requests only",
                found=f"output of {names(wrong)}, not running",
                client=request.client if request is not None else None,
                request=wrong[0],
            )
            for name in wrong:
                queued = state.queued.get(name)
                if queued is not None:
                    self._discard(queued)
                state.strays[name] = queued.client if queued is not None else None
        if idle:
            state.violation(
                "output-complete",
                expected=f"output of all {len(state.running)} running requests",
                found=f"none of {names(request.id for request in idle)}",
                client=idle[0].client,
                request=idle[0].id,
            )
            for request in idle:
                self._discard(request)
                state.strays[request.id] = request.client
        return not wrong and not idle

    def _served(self, tokens: Mapping[str, int]) -> dict[ClientState, int]:
        """Tokens of each client; requests that got more than one are brought up to date. O(running requests)."""
        state = self._state
        served: dict[ClientState, int] = {}
        for name, count in tokens.items():
            request = state.running.get(name)
            client = request.client if request is not None else state.strays.get(name)
            if client is not None and count:
                served[client] = served.get(client, 0) + count
            if request is not None and count != 1:
                request.generated += count - 1
                self._move_due(request, request.due - count + 1)
        return served

    def _move_due(self, request: RequestState, due: int) -> None:
        """The forward step after which ``request`` has its maximum output comes earlier."""
        self._forget_due(request)
        request.due = max(due, self._state.forwards)
        self._due.setdefault(request.due, set()).add(request)

    def _forget_due(self, request: RequestState) -> None:
        """``request`` needs no watching."""
        waiting = self._due.get(request.due)
        if waiting is not None:
            waiting.discard(request)
            if not waiting:
                del self._due[request.due]

    def _check_outputs_in_limit(self) -> None:
        """Who had its maximum output before this forward step should not have run in it. O(1) where all is well."""
        state = self._state
        late = self._due.pop(state.forwards - 1, None)
        if late is not None:
            first = min(late, key=lambda request: request.rank)
            state.violation(
                "output-in-limit",
                expected=f"at most {first.max_output} output tokens of {first.id!r}",
                found=f"{first.generated + state.forwards - first.joined}",
                client=first.client,
                request=first.id,
            )

    def finish(self, event: _Line) -> None:
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
        self._leave_batch(request)
        request.status = GONE
        self._discipline.finished(request)

    def preempt(self, event: _Line) -> None:
        """A request leaves the batch unfinished and is back in the queue. O(1) beside what the policy's rules cost."""
        name = event["request"]
        deficit = event.get("deficit")
        if event["kind"] not in ("recompute", "swap") or (deficit is not None and type(deficit) is not int):
            raise OddLineError
        state = self._state
        request = state.running.get(name)
        if request is None:
            self._leave_stray(name, "preempt-running")
            return
        client = request.client
        client.recent.append((state.findings.line, state.findings.raw))
        self._leave_batch(request)
        request.status = QUEUED
        request.preempted_in = state.step
        request.reported = False
        self._discipline.preempts(request, deficit)
        state.enqueue(request)

    def _leave_batch(self, request: RequestState) -> None:
        """A running request leaves the batch."""
        state = self._state
        state.stop_running(request)
        self._memory.released(request)
        self._forget_due(request)
        request.generated += state.forwards - request.joined

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
        if queued is not None and rule == "finish-running":
            self._discard(queued)

    def _discard(self, request: RequestState) -> None:
        """Forget a request that the log has contradicted itself on."""
        if request.status == RUNNING:
            self._leave_batch(request)
            self._discipline.finished(request)
        else:
            self._state.dequeue(request)
            self._discipline.withdrawn(request)
        request.status = GONE

    def evict(self, event: _Line) -> None:
        """Cached prefixes are given up: nothing that can be checked depends on it."""
        tokens = event.get("tokens")
        if type(tokens) is not int or tokens < 0 or "blocks" in event:
            self._state.findings.strictly_parsed()

    def advance(self, step: int) -> None:
        """The worker's step changes to ``step``: a step in which requests waited or ran has had its forward. O(1)."""
        state = self._state
        if step < state.step:
            state.violation("step-order", expected=f"a step of at least {state.step}", found=f"{step}")
        elif (state.queued or state.running) and self._discipline.conserves_work:
            missed = state.step if state.forward_step != state.step else state.step + 1
            if missed < step:
                state.violation(
                    "work-conserving",
                    expected=f"a forward in step {missed}: {len(state.queued)} requests wait, {len(state.running)} run",
                    found=f"step {step} without one",
                )
        state.step = step
