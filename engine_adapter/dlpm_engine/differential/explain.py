"""Why two engines differ: the rule of the algorithm that the reference followed where they part."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dlpm.events import Admit, Event, Output, Preempt, Refill
from dlpm.request import ClientId, Request, RequestId
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.lockstep import Divergence
from dlpm_engine.differential.record import event_key, order_of


def explain(case: Case, divergence: Divergence) -> str:
    """The reason for a divergence, as a rule and the numbers it was applied to. O(events + queue of the step)."""
    difference = divergence.difference
    reason = _STATE_REASONS.get(difference.subject)
    if reason is not None:
        return reason
    moment = Moment(case, divergence)
    if difference.subject == "order":
        return _order_reason(moment, difference.expected, difference.found)
    return _event_reason(moment, difference.expected, difference.found)


_STATE_REASONS: Mapping[str, str] = {
    "deficits": (
        "ledger: all events of the step agree, the counters after it do not; a counter changes by an admission, an "
        "output token and a refill, and by nothing else [Alg. 1 ll. 7, 23, 26]"
    ),
    "queue": "queue: all events agree; a request leaves the queue when it is admitted and returns when preempted",
    "running": "batch: all events agree; the running batch is in order of admission",
    "free tokens": (
        "memory: free tokens are M less what running requests lock in the cache or have set aside; all events agree, "
        "the accounts do not"
    ),
    "cached tokens": "cache: a block stays cached until it is evicted; all events agree, the contents do not",
    "submission": "submission: a request is refused if and only if input + max_output exceeds M",
    "exception": "the engine failed",
    "range": "range: the engine says that a counter leaves int64, and in the reference none does",
    "extend tokens": "service: a client's extend tokens differ, summed over all steps so far",
    "output tokens": "service: a client's output tokens differ, summed over all steps so far",
    "admissions": "ledger: who is admitted, or how many extend tokens are charged, differs in this step",
    "refills": "refill: a check-refill fires if and only if no queued client has credit [Alg. 1 ll. 3-8]",
    "outputs": "charge: every running request yields one token a step and its client pays for it [Alg. 1 l. 26]",
}


class Moment:
    """The reference's state at the decision where the engines part: after the events of the step that agree."""

    def __init__(self, case: Case, divergence: Divergence) -> None:
        """Replay the agreed events of the step on the state before it."""
        self.case = case
        self.requests: Mapping[RequestId, Request] = {request.id: request for request in case.requests}
        before = divergence.before[0]
        self.deficits: dict[ClientId, int] = dict(before.deficits)
        for request in divergence.submitted:
            self.deficits.setdefault(request.client, 0)
        self.waiting = [*before.queue, *(request.id for request in divergence.submitted)]
        order = divergence.expected.order()
        self.order: Mapping[RequestId, int] = order_of(order) if order is not None else {}
        self.free = before.free_tokens
        agreed = [event for event in divergence.expected.events if event_key(event) is not None]
        for event in agreed[: divergence.difference.place]:
            self._apply(event)

    def _apply(self, event: Event) -> None:
        """Take in one agreed event."""
        match event:
            case Admit():
                if event.request in self.waiting:
                    self.waiting.remove(event.request)
                if event.deficit is not None:
                    self.deficits[self.client(event.request)] = event.deficit
                if event.free is not None:
                    self.free = event.free
            case Refill() | Output():
                self.deficits.update(event.deficits)
            case Preempt():
                self.waiting.append(event.request)
            case _:
                pass

    def client(self, request: RequestId) -> ClientId:
        """Who pays for a request."""
        return self.requests[request].client

    def credited(self) -> dict[ClientId, int]:
        """Clients with a queued request and credit."""
        queued = {self.client(request) for request in self.waiting}
        return {client: value for client, value in sorted(self.deficits.items()) if value > 0 and client in queued}

    def place(self, request: RequestId) -> str:
        """Where a request stands in the order."""
        return f"{request} matches {self.order.get(request, 0)} tokens"


def _order_reason(moment: Moment, expected: object, found: object) -> str:
    """Two orders of the queue differ at a place."""
    if not isinstance(expected, tuple) or not isinstance(found, tuple):
        return "order: one of the two orders lacks a waiting request"
    if expected[0] == found[0]:
        return f"match: {expected[0]} matches {expected[1]} tokens of the cache, all but one at most, not {found[1]}"
    return (
        f"order: longest match first, ties by arrival: {expected[0]} (matches {expected[1]}) comes before {found[0]}, "
        f"for which the engine counts {found[1]}"
    )


def _event_reason(moment: Moment, expected: object, found: object) -> str:
    """Two events differ."""
    ours = expected if isinstance(expected, tuple) else ("nothing",)
    theirs = found if isinstance(found, tuple) else ("nothing",)
    if theirs[0] == "admit" and ours[:2] != theirs[:2]:
        return _why_not_admitted(moment, str(theirs[1]), ours)
    if theirs[0] == "refill" and ours[0] != "refill":
        return _why_no_refill(moment)
    reason = _EXPECTED_REASONS.get(str(ours[0]))
    return (
        reason(moment, ours, theirs) if reason is not None else f"fixpoint: nothing more is to be done, not {theirs[0]}"
    )


def _why_not_admitted(moment: Moment, request: RequestId, ours: tuple[object, ...]) -> str:
    """The engine admits ``request`` where the reference does something else."""
    client = moment.client(request)
    if moment.deficits.get(client, 0) <= 0:
        if ours[0] == "refill":
            return _refill_expected(moment, ours, ())
        return f"gate: client {client} of {request} has no credit ({moment.deficits.get(client, 0)}) [Alg. 1 l. 21]"
    places = list(moment.order)
    if ours[0] == "admit" and str(ours[1]) in places and request in places:
        chosen = str(ours[1])
        if places.index(chosen) < places.index(request):
            return (
                f"order: longest match first, ties by arrival: {moment.place(chosen)} and comes before {request}, "
                f"which matches {moment.order[request]}; its client {moment.client(chosen)} has credit "
                f"({moment.deficits.get(moment.client(chosen), 0)}) and it fits into {moment.free} free tokens"
            )
        return (
            f"pass: {moment.place(request)} and was already visited in this pass, or does not fit into "
            f"{moment.free} free tokens; passes go on from the last admission, and begin again at the end"
        )
    return (
        f"memory: {request} does not fit: {moment.free} tokens are free, {len(moment.waiting)} requests wait, "
        f"memory is {moment.case.config.memory}, the batch holds at most {moment.case.config.max_running}"
    )


def _why_no_refill(moment: Moment) -> str:
    """The engine refills where the reference does not."""
    credited = moment.credited()
    if credited:
        return f"refill: none is due while a client with queued requests has credit: {credited} [Alg. 1 ll. 4-5]"
    return "refill: check-refill is asked at the visit of a queued request, and there is none left in this pass"


def _admission_expected(moment: Moment, ours: tuple[object, ...], theirs: tuple[object, ...]) -> str:
    """The reference admits, the engine does something else, or the same with other numbers."""
    request = str(ours[1])
    client = moment.client(request)
    if theirs[0] != "admit":
        return (
            f"fixpoint: {moment.place(request)}, its client {client} has credit ({moment.deficits.get(client, 0)}) "
            f"and it fits into {moment.free} free tokens, so it is admitted before the phase ends [Alg. 1 ll. 18-24]"
        )
    if ours[2:4] != theirs[2:4]:
        return f"match: {request} finds {ours[2]} of its tokens in the cache when it is admitted, not {theirs[2]}"
    return (
        f"charge: w_e * extend = {moment.case.config.extend_weight} * {ours[3]} is taken from "
        f"{moment.deficits.get(client, 0)} of client {client}: {ours[4]}, not {theirs[4]} [Alg. 1 l. 23]"
    )


def _refill_expected(moment: Moment, ours: tuple[object, ...], theirs: tuple[object, ...]) -> str:
    """The reference refills, the engine does not, or gives other quanta."""
    if theirs and theirs[0] == "refill":
        return "refill: every registered client at or below 0 gets its own quantum, once, and no other does [ll. 6-8]"
    return (
        "refill: no client with a queued request has credit, so the next visit of a queued request refills "
        f"({len(moment.waiting)} wait) [Alg. 1 ll. 3-8, 20]"
    )


def _output_expected(moment: Moment, ours: tuple[object, ...], theirs: tuple[object, ...]) -> str:
    """The reference takes its forward step."""
    if theirs[0] == "output" and ours[1] == theirs[1]:
        weight = moment.case.config.output_weight
        return f"charge: w_q = {weight} for every running request of a client [Alg. 1 l. 26]"
    if theirs[0] == "nothing":
        return "work conservation: requests run, so the step ends with a forward"
    return (
        f"batch: the admission phase is over and memory holds the batch; the forward step comes next, not {theirs[0]}"
    )


def _eviction_expected(moment: Moment, ours: tuple[object, ...], theirs: tuple[object, ...]) -> str:
    """The reference evicts."""
    return (
        "eviction: as much as is needed, whole blocks, least recently used leaf first, none that is locked: "
        f"{ours[1]} tokens here"
    )


def _preemption_expected(moment: Moment, ours: tuple[object, ...], theirs: tuple[object, ...]) -> str:
    """The reference preempts."""
    return (
        f"preemption: the next outputs do not fit, so the youngest running request, {ours[1]}, goes back to the queue"
    )


def _finish_expected(moment: Moment, ours: tuple[object, ...], theirs: tuple[object, ...]) -> str:
    """The reference lets a request finish."""
    request = moment.requests[str(ours[1])]
    return f"finish: {request.id} has all its {request.output_tokens} output tokens"


_Reason = Callable[[Moment, tuple[object, ...], tuple[object, ...]], str]

_EXPECTED_REASONS: Mapping[str, _Reason] = {
    "admit": _admission_expected,
    "refill": _refill_expected,
    "output": _output_expected,
    "evict": _eviction_expected,
    "preempt": _preemption_expected,
    "finish": _finish_expected,
}
