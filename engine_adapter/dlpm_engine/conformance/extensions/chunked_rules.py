"""The rules about chunks of prompts: how large, in which order, at whose expense, and with whose credit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dlpm.bounds import deficit_floor
from dlpm.bounds_chunked import chunk_gated_unit
from dlpm_engine.conformance.counters import logged_counter
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.prefills import GatedOrder, Prefills
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import QUEUED, ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

_UNBOUNDED = 1 << 200

REQUEST, CHUNK = "request", "chunk"
ADMISSION = "admission"
PAGE = "docs/extensions/chunked-prefill.md"

BUDGET = extension_rule("chunk-budget", "A step computes no more tokens than its budget, decodes included.", PAGE)
SIZE = extension_rule("chunk-size", "A chunk is all that the prompt, the budget and the cap leave.", PAGE)
LEFT = extension_rule("chunk-left", "No more is computed of a prompt than is left of it.", PAGE)
ONCE = extension_rule("chunk-once", "A request gets one chunk in a step.", PAGE)
ORDER = extension_rule(
    "chunk-order",
    "Half computed prompts go on in the order of their admission, before anybody is let in.",
    PAGE,
)
DUE = extension_rule(
    "chunk-due", "No forward while a half computed prompt may go on and the budget is not spent.", PAGE
)
GATED = extension_rule(
    "chunk-gate", "Where chunks are gated, none is computed without credit unless nothing else can run.", PAGE
)
ONE = extension_rule("chunk-one", "Where chunks are gated, a client has one half computed prompt.", PAGE)
CHARGE = extension_rule("charge-chunk", "A chunk costs its extend tokens, unless they were paid at admission.", PAGE)
FIRST = extension_rule("prefill-first", "A request gets no output before its prompt is computed.", PAGE)
FLOOR = extension_rule(
    "chunk-floor", "Where chunks are gated, no client without debt is below the floor of the chunk.", PAGE, theorem=True
)
ALL = (BUDGET, SIZE, LEFT, ONCE, ORDER, DUE, GATED, ONE, CHARGE, FIRST, FLOOR)


@dataclass(frozen=True, slots=True)
class Chunking:
    """What the header says: tokens a step, when the gate is asked and extend tokens are paid, the cap of a request."""

    budget: int
    gate: str
    charge: str
    most: int | None

    def largest(self) -> int:
        """The largest chunk."""
        return self.budget if self.most is None else min(self.budget, self.most)


class ChunkedRules(DlpmRules):
    """Algorithm 1 with prompts computed in chunks."""

    def __init__(self, state: WorkerState, bounds: TheoremRules, chunking: Chunking, prefills: Prefills) -> None:
        """Nothing has happened."""
        super().__init__(state, bounds)
        self.begin_chunks(chunking, prefills)

    def begin_chunks(self, chunking: Chunking, prefills: Prefills) -> None:
        """Nobody is half computed. What a class that puts these rules beside others calls, instead of `__init__`."""
        self._chunking = chunking
        self._prefills = prefills
        self._gated_order = GatedOrder(self.state, prefills)
        if self._chunk_gated:
            self._order = self._gated_order
        self._first: int | None = None
        self._paid = 0
        self._debt_step = -1
        self._stalled_step = -1
        self._indebted: set[ClientState] = set()
        self._longest = self.state.header.limits.max_input or 0
        self._chunk_floor = self._lowest()

    @property
    def _chunk_gated(self) -> bool:
        return self._chunking.gate == CHUNK

    def _room(self) -> int:
        """Tokens that the budget had left, at least, when admission came to rest, or has now if it has not. O(1)."""
        on_debt = self._debt_step == self.state.step and not self._lost_any()
        spent = 0 if on_debt else self._prefills.spent_before_rest()
        return self._chunking.budget - spent

    def _lost_any(self) -> bool:
        """Whether somebody was preempted in this step: then admission has come to rest. O(1)."""
        return self._prefills.spent_before_rest() > self._prefills.spent()

    # -- who waits -------------------------------------------------------------------------------------------------

    def eligible(self, request: RequestState) -> bool:
        """With credit, within the budget, and alone of its client where chunks are gated. O(half computed)."""
        if not self.has_credit(request) or self._room() < 1:
            return False
        return not (self._chunk_gated and request.status == QUEUED and self._other_half(request) is not None)

    def waiting_clients(self) -> Collection[ClientState]:
        """Also those whose next chunk is gated. O(clients that wait)."""
        queued = super().waiting_clients()
        gated = self._prefills.without_chunk() if self._chunk_gated else []
        return dict.fromkeys((*queued, *(request.client for request in gated))) if gated else queued

    def somebody_waited(self) -> bool:
        """Also those whose next chunk is gated.

        Nobody is blamed for a step in which a chunk came after a preemption: nothing else could run then, and the chunk
        may have cost the credit that there was when admission came to rest.
        """
        if self._stalled_step == self.state.step:
            return False
        return super().somebody_waited() or (self._chunk_gated and bool(self._prefills.without_chunk()))

    def arrives(self, request: RequestState) -> None:
        """As ever; the longest input limits the chunks."""
        if self.state.header.limits.max_input is None and request.input > self._longest:
            self._longest = request.input
            self._chunk_floor = self._lowest()
        super().arrives(request)

    # -- admission -------------------------------------------------------------------------------------------------

    def begins_with(self, first: int | None) -> None:
        """The first chunk of the admission that is told next, as the line says; ``None`` is all."""
        self._first = first

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """As ever, for what is paid now; who was half computed has gone on before, and the chunk has its size."""
        first = extend if self._first is None else self._first
        self._nothing_after_debt(request)
        if self._chunk_gated:
            other = self._other_half(request)
            if other is not None:
                self._violation(
                    ONE.id, request, f"no second prompt while {other.id!r} is half computed", f"{request.id!r} admitted"
                )
        else:
            self._check_turn(request, None)
        sound = self._check_size(request, extend, first)
        self._paid = extend if self._chunking.charge == ADMISSION else first
        super().admits(request, self._paid, deficit, free)
        self._prefills.begin(request, extend, first)
        if not sound:
            self._prefills.doubt(request)

    def admission_service(self, request: RequestState) -> int:
        """What was paid."""
        return self.state.cost.extend(self._paid)

    def admitted(self, request: RequestState) -> None:
        """As ever; it was let in with credit."""
        self._indebted.discard(request.client)
        super().admitted(request)
        self._check_chunk_floor(request.client)

    # -- chunks ----------------------------------------------------------------------------------------------------

    def chunk(self, request: RequestState, tokens: int, deficit: int | None) -> bool:
        """A later chunk of a running request is about to be computed; whether anything is left of its prompt.

        Raises:
            InputError: the event has no counter.
        """
        found = logged_counter(self.state, deficit)
        prefills = self._prefills
        if self._lost_any():
            self._stalled_step = self.state.step
        known = prefills.left.get(request, 0) > 0 or request in prefills.doubtful
        if not known:
            self._violation(LEFT.id, request, f"no chunk of {request.id!r}: its prompt is computed", f"{tokens} tokens")
        elif request in prefills.now:
            self._violation(ONCE.id, request, f"one chunk of {request.id!r} in step {self.state.step}", "another")
        else:
            self._nothing_after_debt(request)
            if self._chunk_gated:
                self._check_gate(request)
            else:
                self._check_turn(request, request)
            if not self._check_size(request, prefills.left[request], tokens):
                prefills.doubt(request)
        self._charge(request, self.paid_now(tokens), found)
        return known

    def paid_now(self, tokens: int) -> int:
        """What of a later chunk of ``tokens`` its client pays for as it is computed, in tokens."""
        return 0 if self._chunking.charge == ADMISSION else tokens

    def charged(self, request: RequestState, tokens: int) -> None:
        """The chunk was computed: it is service, if it was paid now."""
        client = request.client
        tracker = self._bounds.tracker(client)
        if tracker is not None:
            tracker.jump(client, self.state.cost.extend(self.paid_now(tokens)), self.state.findings.line)
        self._bounds.check_floor(client)
        self._bounds.check_gaps()
        self._check_chunk_floor(client)

    def of_nobody(self, name: str, queued: RequestState | None) -> None:
        """A chunk of a request that does not run, but is ``queued``, or unknown."""
        self.state.violation(
            LEFT.id,
            expected="a chunk of a running request",
            found=f"{name!r}, which is {'queued' if queued is not None else 'not there'}",
            client=queued.client if queued is not None else None,
            request=name,
        )

    def _charge(self, request: RequestState, tokens: int, found: int) -> None:
        """The client's counter after it has paid for ``tokens``."""
        client = request.client
        charge = self.state.cost.extend(tokens)
        before = client.deficit
        if found != before - charge and not client.doubtful and not self.state.blind:
            self._violation(
                CHARGE.id, request, f"{before} - {charge} = {before - charge} for {tokens} extend tokens", f"{found}"
            )
        client.deficit = found
        client.doubtful = False

    def _check_size(self, request: RequestState, left: int, tokens: int) -> bool:
        """A chunk of ``request``, of whose prompt ``left`` tokens are left, is as large as can be; whether it is."""
        most = self._chunking.most
        room = self._chunking.budget - self._prefills.spent()
        right = min(left, room) if most is None else min(left, room, most)
        if request in self._prefills.doubtful:
            left, right = tokens, min(tokens, room)
        if tokens > left:
            self._violation(LEFT.id, request, f"at most {left} tokens of {request.id!r}, all that is left", f"{tokens}")
        elif tokens > room:
            expected = f"at most {max(room, 0)} tokens, all that is left of {self._chunking.budget} in this step"
            self._violation(BUDGET.id, request, expected, f"{tokens}")
        elif tokens != right:
            self._violation(SIZE.id, request, f"{right} tokens of {request.id!r}: no less and no more", f"{tokens}")
        else:
            return True
        return False

    def _check_turn(self, request: RequestState, before: RequestState | None) -> None:
        """Whoever was half computed ``before`` this one, or at all, has got its chunk if there was one to get."""
        if self._room() < 1:
            return
        for other in self._prefills.without_chunk():
            if other is before:
                return
            if other not in self._prefills.doubtful:
                what = "admitted" if before is None else "goes on"
                self._violation(
                    ORDER.id, request, f"a chunk of {other.id!r} first: it is half computed", f"{request.id!r} {what}"
                )
                return

    def _check_gate(self, request: RequestState) -> None:
        """Its client has credit, or nothing else can run and it is the oldest."""
        client = request.client
        if client.doubtful or self.state.blind:
            return
        if self.has_credit(request):
            self._indebted.discard(client)
            if self._stalled_step != self.state.step:
                self._gated_order.goes_on(request, self.eligible)
            return
        oldest = self._prefills.half_computed()[0]
        rich = any(other.deficit > 0 or other.doubtful for other in self.waiting_clients())
        if self._prefills.spent() or oldest is not request or not rich:
            self._doubt_the_poor()
            self._violation(
                GATED.id,
                request,
                f"no chunk of {client.id!r} at a deficit of {client.deficit}",
                f"{request.id!r} goes on",
            )
            return
        self._debt_step = self.state.step
        self._indebted.add(client)

    def _nothing_after_debt(self, request: RequestState) -> None:
        """A chunk on debt is the last thing that is let into a step."""
        if self._debt_step == self.state.step:
            self._debt_step = -1
            self._violation(
                GATED.id, request, "no chunk on debt in a step in which something else runs", f"{request.id!r} as well"
            )

    def _other_half(self, request: RequestState) -> RequestState | None:
        """Another half computed request of its client. O(half computed)."""
        return next((other for other in self._prefills.half_computed() if other.client is request.client), None)

    # -- forward ---------------------------------------------------------------------------------------------------

    def forwards(self) -> None:
        """As ever; and no half computed prompt that may go on was forgotten."""
        if self._room() >= 1:
            for request in self._prefills.without_chunk():
                if request in self._prefills.doubtful or (self._chunk_gated and not self.has_credit(request)):
                    continue
                self._violation(
                    DUE.id,
                    request,
                    f"a chunk of {request.id!r}: {self._prefills.left[request]} tokens are left",
                    "none",
                )
                break
        super().forwards()

    def outputs(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """As ever, with the floor of the chunk. O(clients in the batch)."""
        super().outputs(deficits, served)
        if self._chunk_gated:
            for client in self.state.active if served is None else served:
                self._check_chunk_floor(client)

    def _check_chunk_floor(self, client: ClientState) -> None:
        """The floor of the chunk [E2/chunk], unless the client got a chunk on debt since the gate saw it with credit.

        That the floor holds again from then on is argued: all that its proof needs of the past is that the gate saw
        credit last. Reported once, until the client is above it again.
        """
        if client in self._indebted or client.deficit >= self._chunk_floor:
            client.broken_floors.discard(FLOOR.id)
        elif FLOOR.id not in client.broken_floors:
            client.broken_floors.add(FLOOR.id)
            self.state.violation(
                FLOOR.id,
                expected=f"a deficit of at least {self._chunk_floor}, the floor of the largest chunk",
                found=f"{client.deficit}",
                client=client,
            )

    def _lowest(self) -> int:
        """The floor of the chunk for the longest input so far."""
        limits = self.state.header.limits
        if (
            not self._chunk_gated
            or self.state.header.memory != "reserving"
            or not limits.kv_tokens
            or not self._longest
        ):
            return -_UNBOUNDED
        unit = chunk_gated_unit(
            self.state.cost,
            self._longest,
            self._chunking.largest(),
            limits.kv_tokens,
            max_output=limits.max_output,
            max_running=limits.max_running,
        )
        return deficit_floor(unit)

    def _violation(self, rule: str, request: RequestState, expected: str, found: str) -> None:
        """Report that the line breaks a rule about ``request``."""
        self.state.violation(rule, expected=expected, found=found, client=request.client, request=request.id)
