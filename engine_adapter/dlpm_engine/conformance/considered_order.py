"""The rules about the order in which a step goes through the waiting queue, where the log carries it (level `full`).

A step goes over its order again and again, past requests that are not admitted, until a pass changes nothing. Only
admissions and refills are logged, but where the pass stands follows from them: a refill comes at the first visit after
the last admission (or the beginning) if no queued client has credit, because nothing but an admission or a refill
changes who has; and an admission at place p has visited everything from the last place on, around the end if p
lies before it. Whoever was visited and left waiting must have been without credit, or must not have fitted.

That a request does not fit cannot be told from the log, because its prefix may be shared; that it does can, if the
free memory is known: it fits if all of its tokens do, cached or not, rounded up by a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from dlpm_engine.conformance.findings import names
from dlpm_engine.conformance.state import QUEUED, RequestState
from dlpm_engine.conformance.worker_state import WorkerState

Eligible = Callable[[RequestState], bool]
"""Whether the policy would let a queued request run now, if memory can hold it."""

RULES_OF_FULL_LOGS = ("order-covers-queue", "order-longest-first", "order-arrival", "admit-in-order", "fixpoint-fit")
"""The rules that need order events."""


class Fit:
    """Which requests certainly fit into free memory."""

    def __init__(self, state: WorkerState) -> None:
        """Read the header for what is needed."""
        header = state.header
        self._state = state
        self._max_running = header.limits.max_running
        self._reserving = header.memory == "reserving"
        self._slack = (header.block_size or 1) - 1
        self._watermark = header.watermark or 0
        self.unknown = self._why_unknown()

    def _why_unknown(self) -> str | None:
        """What the header lacks, or ``None``."""
        header = self._state.header
        if header.level != "full":
            return "the log has no order events and no free memory (level is not full)"
        if header.memory is None:
            return "the header does not say what memory is"
        if header.block_size is None:
            return "the header states no block_size"
        if header.memory == "optimistic" and header.watermark is None:
            return "the header states no watermark"
        return None

    def certain(self, request: RequestState, free: int) -> bool:
        """Whether ``request`` fits into ``free`` tokens, whatever is cached. O(1)."""
        if self._max_running is not None and len(self._state.running) >= self._max_running:
            return False
        own = request.max_output if self._reserving else request.generated + self._watermark
        return request.input + own + self._slack <= free


class ConsideredOrder:
    """Where the pass over the queue stands, and whom it must not have passed over."""

    def __init__(self, state: WorkerState) -> None:
        """No order yet."""
        self._state = state
        self._fit = Fit(state)
        self._requests: list[RequestState] = []
        self._number = 0
        self._step = -1
        self._place = 0
        self._refilled_here = False
        self._free: int | None = None

    def not_checked(self) -> Mapping[str, str]:
        """The rules of full logs, each with the reason why it cannot be checked, if it cannot."""
        return dict.fromkeys(RULES_OF_FULL_LOGS, self._fit.unknown) if self._fit.unknown is not None else {}

    def begin(self, requests: Sequence[str], free: int | None) -> list[RequestState]:
        """A step considers ``requests``: those of them that wait, in this order. O(queue)."""
        state = self._state
        queued = state.queued
        known = [queued[name] for name in requests if name in queued]
        foreign = [name for name in requests if name not in queued and name not in state.strays]
        if foreign or len(known) < len(queued):
            missing = queued.keys() - set(requests)
            state.violation(
                "order-covers-queue",
                expected=f"the {len(queued)} requests of the waiting queue"
                + (f", among them {names(missing)}" if missing else ""),
                found=f"{names(foreign)}, not in the queue" if foreign else f"{len(known)} of them",
            )
        self._number += 1
        self._requests = [*self.ahead(), *known]
        for place, request in enumerate(self._requests):
            request.order_number = self._number
            request.position = place
        self._step = state.step
        self._place = 0
        self._refilled_here = False
        self._free = free
        return known

    def ahead(self) -> Sequence[RequestState]:
        """Who is visited before the queue."""
        return ()

    def waits(self, request: RequestState) -> bool:
        """Whether a request of the order waits for a visit that does something."""
        return request.status == QUEUED

    def check_longest_first(self, known: Sequence[RequestState], matched: Iterable[int]) -> None:
        """Longest match first, ties in order of arrival [DLPM Alg. 1 l. 16]. O(queue)."""
        last: RequestState | None = None
        last_matched = 0
        for request, tokens in zip(known, matched, strict=False):
            if last is not None and (tokens > last_matched or (tokens == last_matched and request.rank < last.rank)):
                why = f"{tokens} tokens" if tokens > last_matched else f"{tokens} tokens, too, and arrived before it"
                self._state.violation(
                    "order-longest-first",
                    expected=f"{request.id!r} before {last.id!r}, which matches {last_matched}: it matches {why}",
                    found="it comes after it",
                    client=request.client,
                    request=request.id,
                )
                return
            last, last_matched = request, tokens

    def refilled(self) -> None:
        """A refill has fired: at the first visit since the last admission or refill. O(requests passed over)."""
        if not self._requests or self._step != self._state.step:
            return
        if self._refilled_here:
            self._place += 1
        self._place = next((request.position for request in self._from(self._place)), self._place)
        self._refilled_here = True

    def admits(self, request: RequestState, free: int | None, eligible: Eligible) -> None:
        """``request`` is about to be admitted; ``free`` tokens will be left. O(requests passed over)."""
        if self._fit.unknown is not None:
            return
        state = self._state
        if self._step != state.step or request.order_number != self._number:
            state.violation(
                "admit-in-order",
                expected=f"an order event of step {state.step} that names {request.id!r} before it is admitted",
                found="none",
                client=request.client,
                request=request.id,
            )
            return
        if self._free is not None:
            self._check_passed_over(request, self._free, eligible)
        self._place = request.position
        self._refilled_here = False
        self._free = free

    def _check_passed_over(self, request: RequestState, free: int, eligible: Eligible) -> None:
        """Nobody visited before ``request`` may run and fits."""
        for other in self._from(self._place):
            if other is request:
                return
            if eligible(other) and self.fits(other, free):
                self._state.violation(
                    "admit-in-order",
                    expected=f"{other.id!r} of {other.client.id!r} admitted before: it comes first, "
                    f"may run and fits into {free} free tokens",
                    found=f"{request.id!r} of {request.client.id!r}",
                    client=other.client,
                    request=request.id,
                )
                return

    def fits(self, request: RequestState, free: int) -> bool:
        """Whether a request of the order certainly fits into ``free`` tokens. O(1)."""
        return self._fit.certain(request, free)

    def follow(self, free: int | None) -> None:
        """An admission left ``free`` tokens; its place in the order is of no consequence. O(1)."""
        self._free = free

    def waiting(self) -> Sequence[RequestState]:
        """The requests in the order considered last, whether or not they still wait."""
        return self._requests

    def check_fixpoint(self, candidates: Iterable[RequestState]) -> None:
        """At a forward step: none of the ``candidates``, which may run, fits and still waits. O(candidates).

        Only those that the step considered count, and not those that were preempted in it.
        """
        state = self._state
        free = self._free
        if self._fit.unknown is not None or self._step != state.step or free is None:
            return
        left_out = [
            request
            for request in candidates
            if request.status == QUEUED
            and request.order_number == self._number
            and request.preempted_in != state.step
            and not request.reported
            and self._fit.certain(request, free)
        ]
        for request in left_out:
            request.reported = True
        if left_out:
            first = left_out[0]
            state.violation(
                "fixpoint-fit",
                expected=f"{first.id!r} of {first.client.id!r} admitted before the forward: "
                f"it may run and fits into {free} free tokens",
                found=f"{names(request.id for request in left_out)} still waiting",
                client=first.client,
                request=first.id,
            )

    def _from(self, place: int) -> Iterator[RequestState]:
        """Those who still wait, from ``place`` on, around the end. O(requests)."""
        requests = self._requests
        for start, stop in ((place, len(requests)), (0, place)):
            for position in range(start, min(stop, len(requests))):
                request = requests[position]
                if self.waits(request):
                    yield request
