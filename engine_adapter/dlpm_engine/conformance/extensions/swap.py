"""E4, preemption by swap: a preempted request goes to CPU memory, and comes back uncharged when it has been copied.

What a request holds for certain are the tokens it has generated: prompts may be shared. So the rules about memory use
lower bounds, as `memory_rules` does.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.bounds import longest_recomputation, optimistic_unit
from dlpm.bounds_extensions import outputs_of_one, outputs_with_swap, requests_that_come_back
from dlpm.cost import CostModel
from dlpm.events import Header
from dlpm.fields import MAX_INTEGER, Fields
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.counters import logged_counter
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options, one_of
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.parts import Parts
from dlpm_engine.conformance.promises import PlainPromises, Promises, ProvenUnit, Unproven
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import GONE, RUNNING, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

FIRST, BESIDE = "first", "beside"
PAGE = "docs/extensions/swap.md"

RESUME_SWAPPED = extension_rule("resume-swapped", "Only a request that was swapped out comes back.", PAGE)
CHARGE = extension_rule("swap-charge", "Being swapped out and coming back costs nothing.", PAGE)
RESUME_FIRST = extension_rule("resume-first", "Nobody is admitted while a request is away.", PAGE)
COPY_ORDER = extension_rule("copy-order", "A copy-in begins when the copy-out is done, and ends after it began.", PAGE)
DECODE = extension_rule("decode-after-copy", "No request decodes before its copy-in is done.", PAGE)
COPIED = extension_rule("copied-tokens", "No copy moves more tokens than its request has.", PAGE)
CPU_MEMORY = extension_rule("cpu-memory", "CPU memory holds all that is away.", PAGE)
GPU_MEMORY = extension_rule("copied-memory", "GPU memory is not used again before its copy-out is done.", PAGE)


@dataclass(slots=True)
class _Away:
    """A request in CPU memory, or on its way there until ``copied_us``."""

    request: RequestState
    copied_us: int


class SwapRules(DlpmRules):
    """Algorithm 1 where requests may be away."""

    def __init__(self, state: WorkerState, promises: Promises, *, first: bool) -> None:
        """Nobody is away."""
        super().__init__(state, TheoremRules(state, promises))
        self._first = first
        self.away: dict[str, _Away] = {}
        self.busy_step = -1

    def unchanged(self, request: RequestState, deficit: int | None) -> None:
        """The client's counter is what it was. O(1)."""
        client = request.client
        found = logged_counter(self.state, deficit)
        if found != client.deficit and not client.doubtful and not self.state.blind:
            self.state.violation(
                CHARGE.id, expected=f"{client.deficit}", found=f"{found}", client=client, request=request.id
            )
        client.deficit = found
        client.doubtful = False

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """As ever, and nobody is away who must come first."""
        if self._first and self.away:
            waiting = next(iter(self.away.values())).request
            self.state.violation(
                RESUME_FIRST.id,
                expected=f"no admission while {waiting.id!r} is away",
                found=f"{request.id!r} admitted",
                client=request.client,
                request=request.id,
            )
        super().admits(request, extend, deficit, free)

    def forwards(self) -> None:
        """A step in which a request that comes first is away has no admission phase, and no refill is due in it."""
        if self._first and (self.away or self.busy_step == self.state.step):
            return
        super().forwards()


class SwapBatch(Batch):
    """The running batch, which requests join that are not in the queue."""

    def rejoin(self, request: RequestState) -> None:
        """A request that was away is running again. O(1)."""
        state = self._state
        request.status = RUNNING
        request.extend = 0
        request.joined = state.forwards
        self._watch(request, state.forwards + request.max_output - request.generated)
        state.start_running(request)
        self._memory.admitted(request, None)


class SwapLifecycle(Lifecycle):
    """Requests that go to CPU memory and come back."""

    def __init__(self, state: WorkerState, batch: SwapBatch, rules: SwapRules, forward: SwapForward, cpu: int) -> None:
        """Nobody is away; CPU memory holds ``cpu`` tokens."""
        super().__init__(state, batch, rules)
        self._swap_batch = batch
        self._rules = rules
        self._forward = forward
        self._cpu = cpu
        self._in_cpu = 0

    def preempt(self, event: Line) -> None:
        """As ever for a recomputation; by swap, the request is away and not in the queue. O(1)."""
        name = event["request"]
        state = self._state
        request = state.running.get(name)
        if event["kind"] != "swap" or request is None:
            super().preempt(event)
            return
        state.findings.strictly_parsed()
        copied, copied_us = event["copied"], event["copied_us"]
        request.client.recent.append((state.findings.line, state.findings.raw))
        self._swap_batch.leave(request)
        request.status = GONE
        self._rules.unchanged(request, event.get("deficit"))
        self._rules.finished(request)
        self._check_copied(request, copied)
        self._rules.away[name] = _Away(request, copied_us)
        self._rules.busy_step = state.step
        self._in_cpu += request.generated
        if self._in_cpu > self._cpu:
            state.violation(
                CPU_MEMORY.id,
                expected=f"at most C = {self._cpu} tokens in CPU memory",
                found=f"at least {self._in_cpu}",
                client=request.client,
                request=name,
            )

    def resume(self, event: Line) -> None:
        """A request that was away joins the batch. O(1)."""
        state = self._state
        state.findings.strictly_parsed()
        name = event["request"]
        away = self._rules.away.pop(name, None)
        if away is None:
            if name in state.strays:
                return
            known = state.running.get(name) or state.queued.get(name)
            state.violation(
                RESUME_SWAPPED.id,
                expected="a request that was swapped out",
                found=f"{name!r}, which was not",
                client=known.client if known is not None else None,
                request=name,
            )
            return
        request = away.request
        began, done = event["began_us"], event["copied_us"]
        if not away.copied_us <= began <= done:
            state.violation(
                COPY_ORDER.id,
                expected=f"a copy that begins at {away.copied_us} or later and ends no earlier than it begins",
                found=f"one from {began} to {done}",
                client=request.client,
                request=name,
            )
        self._check_copied(request, event["copied"])
        self._rules.unchanged(request, event.get("deficit"))
        self._rules.busy_step = state.step
        self._in_cpu -= request.generated
        request.client.recent.append((state.findings.line, state.findings.raw))
        self._swap_batch.rejoin(request)
        self._forward.copies_in[name] = done

    def _check_copied(self, request: RequestState, copied: int) -> None:
        """A copy moves what the request has, at most."""
        resident = request.input + request.generated
        if copied > resident:
            self._state.violation(
                COPIED.id,
                expected=f"at most {resident} tokens ({request.input} input, {request.generated} generated)",
                found=f"{copied}",
                client=request.client,
                request=request.id,
            )


class SwapForward(Forward):
    """Forward steps that wait for copies."""

    def __init__(self, state: WorkerState, batch: Batch, discipline: Discipline, rules: SwapRules) -> None:
        """No copy under way. ``copies_in`` are the copies back to the GPU since the latest forward step."""
        super().__init__(state, batch, discipline)
        self._rules = rules
        self.copies_in: dict[str, int] = {}

    def _begin(self, *, empty: bool) -> None:
        """As ever; who is back has been copied, and what is still being copied has its memory. O(running requests)."""
        if self.copies_in or self._rules.away:
            time_us = self._state.findings.time_us()
            if time_us is not None:
                self._check_copies(time_us)
            self.copies_in.clear()
        super()._begin(empty=empty)

    def _check_copies(self, time_us: int) -> None:
        """The forward step ends at ``time_us``: copies that it waited for are done by then."""
        state = self._state
        for name, done in self.copies_in.items():
            request = state.running.get(name)
            if done > time_us and request is not None:
                state.violation(
                    DECODE.id,
                    expected=f"no output of {name!r} before {done}",
                    found=f"output at {time_us}",
                    client=request.client,
                    request=name,
                )
        leaving = [away.request for away in self._rules.away.values() if away.copied_us > time_us]
        memory = state.header.limits.kv_tokens
        if not leaving or memory is None:
            return
        runs = sum(request.generated + state.forwards - request.joined + 1 for request in state.running.values())
        held = runs + sum(request.generated for request in leaving) + 1
        if held > memory:
            state.violation(
                GPU_MEMORY.id,
                expected=f"at most M = {memory} tokens of what runs and of what is copied out, {leaving[0].id!r} first",
                found=f"at least {held}",
                client=leaving[0].client,
                request=leaving[0].id,
            )


class SwapMode(Mode):
    """The rules for logs of engines that swap."""

    def __init__(self, header: Header, cpu_tokens: int, *, first: bool) -> None:
        """``first``: nobody is admitted while a request is away."""
        super().__init__(header)
        self._cpu = cpu_tokens
        self._first = first

    @property
    def rules(self) -> tuple[str, ...]:
        """All of this extension, but for who comes first where that is not stated."""
        return tuple(rule.id for rule in RULES if self._first or rule is not RESUME_FIRST) + (
            ("extension-floor", "extension-gap") if self._cpu else ()
        )

    def promises(self) -> Promises:
        """The floor of E4, and the gap that follows from it; the plain ones where there is no CPU memory."""
        if not self._cpu:
            return PlainPromises(self.header)
        limits = self.header.limits
        memory = limits.kv_tokens
        if memory is None or self.header.memory != "optimistic":
            return Unproven("swap", "the header states no limits.kv_tokens, or memory that is not optimistic")
        requests = requests_that_come_back(memory, limits.max_running, cpu_tokens=self._cpu, resume_first=self._first)
        outputs = outputs_with_swap(requests, outputs_of_one(memory, limits.max_output))
        cost = CostModel(self.header.extend_weight, self.header.output_weight)

        def unit(max_input: int) -> int:
            return optimistic_unit(cost, longest_recomputation(max_input, memory, limits.max_output), outputs)

        return ProvenUnit("swap", unit)

    def parts(self, state: WorkerState) -> Parts:
        """Algorithm 1, requests that are away, and copies."""
        rules = SwapRules(state, self.promises(), first=self._first)
        batch = SwapBatch(state, rules)
        forward = SwapForward(state, batch, rules, rules)
        lifecycle = SwapLifecycle(state, batch, rules, forward, self._cpu)
        return Parts(rules, lifecycle, forward, {"resume": lifecycle.resume})


RULES = (RESUME_SWAPPED, CHARGE, RESUME_FIRST, COPY_ORDER, DECODE, COPIED, CPU_MEMORY, GPU_MEMORY)


def _read(options: Fields, header: Header) -> Mode:
    known_options(options, "cpu_tokens", "resume")
    cpu_tokens = options.integer("cpu_tokens", 0, MAX_INTEGER)
    return SwapMode(header, cpu_tokens, first=one_of(options, "resume", FIRST, BESIDE) == FIRST)


EXTENSION = Extension("swap", _read, RULES)
