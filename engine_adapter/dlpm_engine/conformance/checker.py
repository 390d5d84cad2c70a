"""Check an event log: read it once, line by line, and hold it to the rules.

Independent of what wrote the log: nothing here imports the worker, the policies, the ledger, the cache or the memory of
the reference. It shares with them the cost of a token, the bounds and the log's format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from dlpm.engine_profile import EngineProfile
from dlpm.errors import InputError
from dlpm.event_codec import decode_header
from dlpm.events import SCHEMA, Header
from dlpm.fields import MAX_INTEGER, MAX_TOKENS
from dlpm.jsonl import parse_object
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.extensions.mode import Mode
from dlpm_engine.conformance.extensions.registry import mode_of
from dlpm_engine.conformance.fcfs_rules import FcfsRules
from dlpm_engine.conformance.findings import Findings, StopCheckingError, undecodable
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.lpm_rules import LpmRules
from dlpm_engine.conformance.odd import OddLineError
from dlpm_engine.conformance.parts import Handler, plain_parts
from dlpm_engine.conformance.profiles import with_profile
from dlpm_engine.conformance.report import NotChecked, Report
from dlpm_engine.conformance.router_rules import RouterRules
from dlpm_engine.conformance.rules import rules_for
from dlpm_engine.conformance.vtc_rules import VtcRules
from dlpm_engine.conformance.worker_state import WorkerState

_DISCIPLINES: dict[str, type[Discipline]] = {"vtc": VtcRules, "lpm": LpmRules, "fcfs": FcfsRules}

_OUTPUT = b'{"event":"output",'
# Handles an output event whose tokens are as foretold; no line of a log can name it.
_EVEN_OUTPUT = object()


class _WorkerCheck:
    """The rules of one worker, by kind of event."""

    __slots__ = ("advance", "discipline", "forward", "handlers", "state")

    def __init__(
        self, header: Header, mode: Mode, findings: Findings, index: int | None, router: RouterRules | None
    ) -> None:
        self.state = WorkerState(header, findings, index)
        parts = (
            mode.parts(self.state)
            if header.policy == "dlpm"
            else plain_parts(self.state, _DISCIPLINES.get(header.policy, Unruled)(self.state))
        )
        self.discipline = parts.discipline
        self.forward = parts.forward
        lifecycle = parts.lifecycle
        self.advance = lifecycle.advance
        self.handlers: dict[object, Handler] = {
            "arrive": lifecycle.arrive,
            "order": lifecycle.order,
            "refill": lifecycle.refill,
            "admit": lifecycle.admit,
            "output": self.forward.output,
            "finish": lifecycle.finish,
            "preempt": lifecycle.preempt,
            "evict": lifecycle.evict,
            _EVEN_OUTPUT: self.forward.even_output,
        }
        for kind, handler in parts.handlers.items():
            self.handlers[kind] = handler
        if router is not None:
            finish = self.handlers["finish"]
            self.handlers["finish"] = lambda event: self._finish(finish, router, event)

    def _finish(self, finish: Handler, router: RouterRules, event: Line) -> None:
        """A request finishes in a cluster: its router hears of it, and of its output. O(1)."""
        request = self.state.running.get(event["request"])
        finish(event)
        if request is not None:
            router.finished(request.id, request.generated)


class Unruled(Discipline):
    """What an unknown policy is held to: the rules for any policy alone."""

    def conserves_work(self) -> bool:
        """It may leave requests waiting."""
        return False


class Checker:
    """One pass over one log.

    Memory: the live requests and the clients (with, for each backlogged client, one number for each client served
    meanwhile); nothing grows with the log's length.
    """

    def __init__(self, source: str, header: Header, *, header_line: int = 1, all_violations: bool) -> None:
        """Ready for the first event of a log with this header, which is its line ``header_line``.

        Raises:
            InputError: the header lacks what its policy's rules need, states extensions without rules, or more memory
                than bounds can be computed for.
        """
        if header.policy == "dlpm" and header.default_quantum is None:
            raise InputError(
                "expected a quantum: policy dlpm has one", source=source, line=header_line, field="quantum"
            )
        kv_tokens = header.limits.kv_tokens
        if kv_tokens is not None and kv_tokens > MAX_TOKENS:
            # A bound under optimistic memory is a sum of O(sqrt(M)) terms.
            raise InputError(
                f"expected at most {MAX_TOKENS} tokens, for which bounds can be computed, found {kv_tokens}",
                source=source,
                line=header_line,
                field="limits.kv_tokens",
            )
        self._source = source
        self._header = header
        self._mode = mode_of(header, source, header_line)
        self._findings = Findings(source, keep_all=all_violations)
        self._router = RouterRules(header, self._findings, header_line) if "dispatch" in header.extra else None
        self._cluster = self._mode.cluster(self._findings)
        self._workers: dict[int | None, _WorkerCheck] = {
            None: _WorkerCheck(header, self._mode, self._findings, None, self._router)
        }
        # Where the router sent what has not arrived yet; None as long as there is no sign of a router.
        self._sent: dict[str, int] | None = None
        self._time_us = 0
        self._events = 0

    def run(self, lines: Iterable[bytes], first_line: int) -> None:
        """Check events, the first of which is line ``first_line``; stops at the first violation if that is enough.

        Raises:
            InputError: a line is no event.
        """
        findings = self._findings
        worker = self._workers[None]
        line = first_line - 1
        for raw in lines:
            line += 1
            findings.line = line
            findings.raw = raw
            try:
                event, kind = self._parsed(raw, worker)
                step = event["step"]
                if type(step) is not int or step < 0:
                    raise OddLineError
                if "worker" in event or worker.state.index is not None:
                    worker = self._routed_to(event, kind)
                if "time_us" in event:
                    time_us = event["time_us"]
                    if type(time_us) is not int or time_us != self._time_us:
                        self._check_time(time_us, worker.state)
                if kind == "dispatch":
                    self._dispatch(event)
                else:
                    if step != worker.state.step:
                        worker.advance(step)
                    worker.handlers[kind](event)
                self._events += 1
            except StopCheckingError:
                self._events += 1
                return
            except InputError:
                raise
            except (OddLineError, KeyError, TypeError, AttributeError, ValueError):
                if not raw.isspace():
                    self._check_kind(findings.strictly_parsed()["event"], worker)
                    raise

    def _check_kind(self, kind: object, worker: _WorkerCheck) -> None:
        """The log may have events of this kind.

        Raises:
            InputError: only logs of an extension may, which this one does not state.
        """
        if kind != "dispatch" and kind not in worker.handlers:
            raise InputError(
                f"expected a header that states the extension with {kind} events",
                source=self._source,
                line=self._findings.line,
                field="event",
            )

    @staticmethod
    def _parsed(raw: bytes, worker: _WorkerCheck) -> tuple[Line, object]:
        """A line as an object, and what handles it: its kind, or `_EVEN_OUTPUT` if its tokens are as foretold."""
        if raw.startswith(_OUTPUT):
            short = worker.forward.shortened(raw)
            if short is not None:
                event: Line = orjson.loads(short)
                if event["tokens"] is None and event.get("worker") == worker.state.index:
                    return event, _EVEN_OUTPUT
        event = orjson.loads(raw)
        return event, event["event"]

    def _routed_to(self, event: Line, kind: object) -> _WorkerCheck:
        """The worker that an event in a cluster is about; a request arrives where it was sent."""
        index = event.get("worker")
        if index is None and "worker" in event:
            raise OddLineError
        worker = self._worker(index)
        if kind == "arrive" and self._sent is not None:
            sent = self._sent.pop(event["request"], None)
            if sent != worker.state.index:
                worker.state.violation(
                    "dispatch-first",
                    expected=f"an arrival at worker {sent}" if sent is not None else "a dispatch before the arrival",
                    found=f"an arrival at worker {worker.state.index}",
                    request=event["request"],
                )
            if self._router is not None:
                self._router.arrived(event)
        return worker

    def _worker(self, index: object) -> _WorkerCheck:
        """The rules of one worker of a cluster."""
        if index is not None and (type(index) is not int or not 0 <= index <= MAX_TOKENS):
            raise OddLineError
        worker = self._workers.get(index)
        if worker is None:
            worker = self._workers[index] = _WorkerCheck(self._header, self._mode, self._findings, index, self._router)
        return worker

    def _check_time(self, time_us: object, state: WorkerState) -> None:
        """Time never goes back in a log."""
        if type(time_us) is not int or not 0 <= time_us <= MAX_INTEGER:
            raise OddLineError
        if time_us < self._time_us:
            state.violation("time-order", expected=f"a time of at least {self._time_us}", found=f"{time_us}")
        self._time_us = time_us

    def _dispatch(self, event: Line) -> None:
        """A router's decision: the request has to arrive at that worker."""
        self._findings.strictly_parsed()
        if self._sent is None:
            self._sent = {}
        moved = False
        if self._cluster is not None:
            self._worker(event["worker"])
            moved = self._cluster.dispatched(event)
        if not moved:
            self._sent[event["request"]] = event["worker"]
        if self._router is not None:
            self._router.dispatch(event, moved=moved)

    def report(self) -> Report:
        """What was found.

        Raises:
            InputError: the log had no event.
        """
        if not self._events:
            raise InputError("expected at least one event after the header", source=self._source, line=2)
        policy = self._header.policy
        applied = [rule.id for rule in rules_for(policy, self._router.router if self._router is not None else None)]
        applied += self._mode.rules
        reasons: dict[str, str] = {}
        for worker in self._workers.values():
            reasons.update(worker.discipline.not_checked())
        if self._cluster is not None:
            reasons.update(self._cluster.not_checked())
        by_reason: dict[str, list[str]] = {}
        for rule, reason in reasons.items():
            if rule in applied:
                by_reason.setdefault(reason, []).append(rule)
        return Report(
            source=self._source,
            header=self._header,
            events=self._events,
            rules=tuple(rule for rule in applied if rule not in reasons),
            not_checked=tuple(NotChecked(tuple(rules), reason) for reason, rules in by_reason.items()),
            violations=tuple(self._findings.violations),
            omitted=self._findings.omitted,
        )


def check_log(
    lines: Iterable[bytes],
    *,
    source: str = "log",
    all_violations: bool = False,
    profile: EngineProfile | None = None,
) -> Report:
    """Check the log in ``lines`` (with or without line ends), which errors call ``source``.

    Without ``all_violations`` the check ends at the first violation; with it, the checker goes on with what the log
    says, so that one fault gives one report. ``profile`` supplies what the header does not state. O(length of the log).

    Raises:
        InputError: the lines are no event log, or one without events, or its header contradicts the profile.
    """
    iterator = iter(lines)
    number, header = _header(iterator, source)
    if profile is not None:
        header = with_profile(header, profile, source, number)
    checker = Checker(source, header, header_line=number, all_violations=all_violations)
    checker.run(iterator, number + 1)
    return checker.report()


def _header(lines: Iterator[bytes], source: str) -> tuple[int, Header]:
    """The header, the first line that is not blank, and its number."""
    number = 0
    for number, raw in enumerate(lines, start=1):
        if not raw.isspace():
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise undecodable(error, source, number) from error
            return number, decode_header(parse_object(text, source=source, line=number), source, number)
    raise InputError(f"expected a header with schema {SCHEMA!r}, found an empty log", source=source, line=number or 1)
