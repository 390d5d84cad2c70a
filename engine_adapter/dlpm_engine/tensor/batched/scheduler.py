"""DLPM for many instances at once: every step of every instance is the same few tensor operations.

Instances are independent; one that has nothing to do in an operation takes no part in it. The host asks the device
only whether a loop goes on (admissions, preemptions) or how long (insertions after the forward, finishes); nothing else
leaves it during a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dlpm.errors import InputError
from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.tensor.batched import tape as events
from dlpm_engine.tensor.batched.cache import Caches
from dlpm_engine.tensor.batched.layout import BLOCKS, CLIENT, INPUT, LIMIT, OUTPUT, SEQUENCE_BLOCKS, Layout
from dlpm_engine.tensor.batched.parameters import Parameters
from dlpm_engine.tensor.batched.tape import Tape
from dlpm_engine.tensor.exact import INT64, too_low

ABSENT, WAITING, RUNNING, DONE = range(4)
_LAST = 2**62


class BatchedScheduler:
    """Independent schedulers, one for each of ``configs``; all state is int64 or bool ``[instances, ...]``.

    Attributes:
        phase: `ABSENT`, `WAITING`, `RUNNING` or `DONE`, ``[instances, slots]``.
        rank: place in the order of arrival, likewise.
        admitted: place in the order of admission of running requests, likewise.
        deficits: ``[instances, clients]``.
        registered: which of the clients have arrived, likewise.
        set_aside: tokens outside the cache that running requests hold or have reserved, ``[instances]``.
        out_of_range: instances in which a counter would have left int64; they are of no further use.

    Raises:
        InputError: a parameter is beyond int64.
    """

    @torch.inference_mode()
    def __init__(self, configs: Sequence[EngineConfig], device: torch.device) -> None:
        """Empty workers."""
        self.parameters = Parameters(configs, device)
        self.layout = Layout([config.block_size for config in configs], device)
        self.caches = Caches(self.layout, self.parameters.block_size)
        self.tape = Tape(len(configs), 1, device)
        self.device = device
        self._everyone = torch.arange(len(configs), device=device)
        slots = torch.zeros((len(configs), 1), dtype=INT64, device=device)
        self.phase, self.rank, self.admitted, self._generated = (slots.clone() for _ in range(4))
        self._private, self._reserved, self._locked_depth, self._kept_depth = (slots.clone() for _ in range(4))
        self._computed = slots > 0
        self.deficits, self._quanta = slots.clone(), slots.clone()
        self.registered = slots > 0
        self.set_aside = torch.zeros(len(configs), dtype=INT64, device=device)
        self._admissions = self.set_aside.clone()
        self.out_of_range = self.set_aside > 0
        self._arrivals = [0] * len(configs)

    def free_tokens(self) -> torch.Tensor:
        """``M`` less what running requests lock or have set aside, ``[instances]``. O(instances)."""
        return self.parameters.kv_tokens - self.caches.locked - self.set_aside

    # -- arrivals ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def submit(self, requests: Sequence[tuple[int, Request]]) -> None:
        """Requests, each with its instance, join the queues in this order. O(their blocks), amortized.

        Raises:
            InputError: a request could never fit; none has joined then.
        """
        for instance, request in requests:
            self.check(instance, request)
        if not requests:
            return
        slots = self.layout.add(requests)
        self._make_room()
        clients = [self.layout.client(instance, request.client) for instance, request in requests]
        quanta = [self.parameters.quantum(instance, request.client) for instance, request in requests]
        ranks = []
        for instance, _ in requests:
            self._arrivals[instance] += 1
            ranks.append(self._arrivals[instance])
        owners = [instance for instance, _ in requests]
        table = torch.tensor([owners, slots, clients, quanta, ranks], dtype=INT64).to(self.device)
        owner, slot, client, quantum, rank = table
        self.phase[owner, slot] = torch.full_like(slot, WAITING)
        self.rank[owner, slot] = rank
        self.registered[owner, client] = torch.ones_like(client, dtype=torch.bool)
        self._quanta[owner, client] = quantum

    def check(self, instance: int, request: Request) -> None:
        """Refuse a request that could never fit. O(1).

        Raises:
            InputError: its input and declared output together exceed the memory of the instance.
        """
        kv_tokens = self.parameters.configs[instance].kv_tokens
        if request.input_tokens + request.max_output > kv_tokens:
            raise InputError(
                f"expected input + max_output <= {kv_tokens} KV tokens, "
                f"found {request.input_tokens} + {request.max_output} in request {request.id!r}",
                field="max_output",
            )

    def _make_room(self) -> None:
        """Follow the layout to more slots, clients and prefixes."""
        self.caches.make_room()
        slots = self.layout.facts.shape[2] - self.phase.shape[1]
        if slots:
            for name in _BY_SLOT:
                setattr(self, name, torch.nn.functional.pad(getattr(self, name), (0, slots)))
        clients = self.layout.most_clients() - self.deficits.shape[1]
        if clients > 0:
            for name in _BY_CLIENT:
                setattr(self, name, torch.nn.functional.pad(getattr(self, name), (0, clients)))

    # -- one step ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> None:
        """Admission, one forward, finish, in every instance [DLPM Alg. 1 ll. 16-27]."""
        self.tape.rewind(self.deficits.shape[1])
        self._admission_phase()
        self._make_room_for_outputs()
        self._forward()
        self._finish()

    def _resident(self) -> torch.Tensor:
        """Tokens that must be in memory for each request, ``[instances, slots]``."""
        return self.layout.facts[INPUT] + self._generated

    def _admission_phase(self) -> None:
        """Passes over the queues until none admits or refills, in every instance [DLPM Alg. 1 ll. 16-24]."""
        waiting = self.phase == WAITING
        active = waiting.any(1)
        place = self._order(waiting)
        cursor = torch.full_like(self.set_aside, -1)
        happened = torch.zeros_like(active)
        fitting = self._fitting()
        while bool(active.any()):
            waiting = self.phase == WAITING
            ahead = waiting & (place > cursor.unsqueeze(1))
            credited = waiting & (self.deficits > 0).gather(1, self.layout.facts[CLIENT])
            somebody = credited.any(1)
            wanted = torch.where(somebody.unsqueeze(1), ahead & credited & fitting, ahead)
            slot = torch.where(wanted, place, _LAST).argmin(1)
            visited = active & wanted.any(1)
            self._refill(visited & ~somebody)
            has_credit = self._of(self.deficits, self._of(self.layout.facts[CLIENT], slot)) > 0
            admitted = visited & has_credit & self._of(fitting, slot)
            if self._may_be_any(admitted):
                self._admit(admitted, slot)
                fitting = self._fitting()
            # A pass that comes to its end begins again if anything happened in it, and is the last one otherwise.
            active &= visited | happened
            happened = visited
            cursor = torch.where(visited, self._of(place, slot), -1)

    def _order(self, waiting: torch.Tensor) -> torch.Tensor:
        """Place of each waiting request: by matched tokens, longest first, then by rank. ``[instances, slots]``."""
        matched = self._matched()
        by_rank = torch.where(waiting, self.rank, _LAST).argsort(dim=1)
        by_match = torch.where(waiting, -matched, 1).gather(1, by_rank).argsort(dim=1, stable=True)
        order = by_rank.gather(1, by_match)
        places = torch.arange(order.shape[1], dtype=INT64, device=self.device).expand_as(order)
        return torch.empty_like(order).scatter_(1, order, places)

    def _matched(self) -> torch.Tensor:
        """Tokens of each request in the cache, all but one at most."""
        paths = self.layout.paths
        return torch.minimum(self.caches.end(paths, self.caches.depth(paths)), self._resident() - 1)

    def _fitting(self) -> torch.Tensor:
        """Whether each request could be admitted now, if it waits and its client has credit."""
        parameters = self.parameters
        paths = self.layout.paths
        running = (self.phase == RUNNING).sum(1)
        room = self.free_tokens() - torch.where(running > 0, parameters.watermark, 0)
        room = torch.where(running < parameters.max_running, room, -1)
        locked = torch.minimum(self.caches.end(paths, self.caches.locked_depth(paths)), self._resident() - 1)
        output = torch.where(parameters.reserving.unsqueeze(1), self.layout.facts[LIMIT] - self._generated, 0)
        return self._resident() - locked + output <= room.unsqueeze(1)

    def _refill(self, where: torch.Tensor) -> None:
        """Check-refill fires in some instances [DLPM Alg. 1 ll. 6-8]."""
        if not self._may_be_any(where):
            return
        low = self.registered & (self.deficits <= 0) & where.unsqueeze(1)
        # At or below 0 plus an int64 above 0 never leaves the range.
        self.deficits += torch.where(low, self._quanta, 0)
        self.tape.write(where, events.REFILL, self.deficits, concerned=low)

    def _admit(self, where: torch.Tensor, slot: torch.Tensor) -> None:
        """``B <- B + r``, ``Queue <- Queue - r``, and the charge, in some instances [DLPM Alg. 1 ll. 22-24]."""
        paths = self._paths(slot)
        resident = self._of(self._resident(), slot)
        depth = self.caches.depth(paths)
        end = self.caches.end(paths, depth)
        matched = torch.minimum(end, resident - 1)
        above = (depth - 1).clamp(min=0)
        shorter = (depth > 0) & (self.caches.end(paths, above) >= matched)
        locked_depth = torch.where(shorter, above, depth)
        self.caches.lock(paths, self._first(locked_depth, paths) & where.unsqueeze(1))
        private = resident - self.caches.end(paths, locked_depth)
        output = self._of(self.layout.facts[LIMIT] - self._generated, slot)
        reserved = torch.where(self.parameters.reserving, output, 0)
        self.set_aside += torch.where(where, private + reserved, 0)
        self._admissions += where
        for table, value in (
            (self.phase, RUNNING),
            (self.admitted, self._admissions),
            (self._private, private),
            (self._reserved, reserved),
            (self._locked_depth, locked_depth),
            (self._kept_depth, locked_depth),
            (self._computed, False),
        ):
            self._set(table, where, slot, value)
        self._evict_for(torch.where(where, 0, -_LAST))
        self._insert(where & self.parameters.at_admission, slot)
        extend = resident - matched
        self._charge(where, self._of(self.layout.facts[CLIENT], slot), self.parameters.extend_weight, extend)
        self.tape.write(where, events.ADMIT, self.deficits, slot=slot, first=matched, second=extend)

    def _insert(self, where: torch.Tensor, slot: torch.Tensor) -> None:
        """Move prompts of running requests into the cache, where others can match them."""
        if not self._may_be_any(where):
            return
        paths = self._paths(slot)
        depth = self.caches.depth(paths)
        blocks = self._of(self.layout.facts[BLOCKS], slot)
        whole = self._first(blocks, paths) & where.unsqueeze(1)
        self.caches.insert(paths, whole, self._of(self.layout.facts[INPUT], slot))
        self.caches.lock(paths, whole)
        before = self._of(self._locked_depth, slot)
        self.caches.unlock(paths, self._first(before, paths) & where.unsqueeze(1))
        private = (self._of(self._resident(), slot) - self.caches.end(paths, torch.where(where, blocks, 0))).clamp(
            min=0
        )
        self.set_aside += torch.where(where, private - self._of(self._private, slot), 0)
        self._set(self._kept_depth, where, slot, depth)
        self._set(self._locked_depth, where, slot, blocks)
        self._set(self._private, where, slot, private)

    def _evict_for(self, tokens: torch.Tensor) -> None:
        """Evict until ``tokens`` more ``[instances]`` fit beside all that is cached or set aside."""
        excess = self.caches.total + self.set_aside + tokens - self.parameters.kv_tokens
        if not self._may_be_any(excess > 0):
            return
        freed = self.caches.evict(excess)
        self.tape.write(freed > 0, events.EVICT, self.deficits, first=freed)

    def _make_room_for_outputs(self) -> None:
        """Preempt the youngest until the next output tokens fit, then evict for them."""
        while True:
            running = self.phase == RUNNING
            unreserved = (running & (self._reserved == 0)).sum(1)
            short = unreserved > self.free_tokens()
            if not bool(short.any()):
                break
            self._preempt(short, torch.where(running, self.admitted, -1).argmax(1))
        self._evict_for(torch.where(running.any(1), unreserved, 0))

    def _preempt(self, where: torch.Tensor, slot: torch.Tensor) -> None:
        """Running requests go back to their queues; what they computed of their prompts stays cached."""
        self._release(where, slot)
        last = self._of(self._locked_depth, slot)
        uncomputed = where & ~self._of(self._computed, slot)
        first = torch.where(uncomputed, self._of(self._kept_depth, slot), last)
        self.caches.discard(self._paths(slot), first, last)
        self._set(self.phase, where, slot, WAITING)
        self.tape.write(where, events.PREEMPT, self.deficits, slot=slot)

    def _release(self, where: torch.Tensor, slot: torch.Tensor) -> None:
        """Unlock and give back what requests that leave the batch held."""
        paths = self._paths(slot)
        self.caches.unlock(paths, self._first(self._of(self._locked_depth, slot), paths) & where.unsqueeze(1))
        held = self._of(self._private, slot) + self._of(self._reserved, slot)
        self.set_aside -= torch.where(where, held, 0)

    def _forward(self) -> None:
        """Every running request yields one token, and its client pays [DLPM Alg. 1 ll. 25-26]."""
        running = self.phase == RUNNING
        self._generated += running
        self._private += running
        self.set_aside += (running & (self._reserved == 0)).sum(1)
        self._reserved -= (running & (self._reserved > 0)).to(INT64)
        fresh = running & ~self._computed
        self._computed |= running
        unseen = fresh & ~self.parameters.at_admission.unsqueeze(1)
        for _ in range(self._most(unseen)):
            slot = torch.where(unseen, self.admitted, _LAST).argmin(1)
            self._insert(unseen.any(1), slot)
            self._set(unseen, unseen.any(1), slot, False)
        counts = torch.zeros_like(self.deficits).scatter_add_(1, self.layout.facts[CLIENT], running.to(INT64))
        self._spend(counts, self.parameters.output_weight)
        self.tape.write(running.any(1), events.OUTPUT, self.deficits, concerned=counts > 0)

    def _finish(self) -> None:
        """Requests with all their output leave, in order of admission [DLPM Alg. 1 l. 27]."""
        done = (self.phase == RUNNING) & (self._generated >= self.layout.facts[OUTPUT])
        for _ in range(self._most(done)):
            where = done.any(1)
            slot = torch.where(done, self.admitted, _LAST).argmin(1)
            self._release(where, slot)
            blocks = self._of(self.layout.facts[SEQUENCE_BLOCKS], slot)
            self._keep_reply(where & (blocks > 0), slot, blocks)
            paths = self._paths(slot)
            matched = self._first(self.caches.depth(paths), paths)
            self.caches.use(paths, matched & (where & (blocks == 0)).unsqueeze(1))
            self._set(self.phase, where, slot, DONE)
            self._set(done, where, slot, False)
            self.tape.write(where, events.FINISH, self.deficits, slot=slot)

    def _keep_reply(self, where: torch.Tensor, slot: torch.Tensor, blocks: torch.Tensor) -> None:
        """Leave prompt and reply of finished requests in the cache, as most recently used."""
        if not self._may_be_any(where):
            return
        sequences = self.layout.sequences
        paths = sequences[self._everyone, slot]
        chosen = self._first(blocks, paths) & where.unsqueeze(1)
        facts = self.layout.facts
        self.caches.insert(paths, chosen, self._of(facts[INPUT] + facts[OUTPUT], slot))
        self.caches.use(paths, chosen)
        self._evict_for(torch.where(where, 0, -_LAST))

    # -- the ledgers ---------------------------------------------------------------------------------------------------

    def _charge(self, where: torch.Tensor, client: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor) -> None:
        """Charge one client of each instance for some tokens."""
        counts = torch.zeros_like(self.deficits)
        counts[self._everyone, client] = torch.where(where, tokens, 0)
        self._spend(counts, weight)

    def _spend(self, counts: torch.Tensor, weight: torch.Tensor) -> None:
        """Take ``weight * counts`` from the deficits, ``[instances, clients]``; note where that leaves int64."""
        beyond = too_low(self.deficits, weight.unsqueeze(1), counts)
        self.out_of_range |= beyond.any(1)
        # Where the true result is in range, wrapping on the way there does no harm.
        self.deficits -= torch.where(beyond, 0, counts * weight.unsqueeze(1))

    def _most(self, slots: torch.Tensor) -> int:
        """How many of the slots ``[instances, slots]`` the instance with most has. One question to the device."""
        return int(slots.sum(1).amax()) if len(slots) else 0

    def _may_be_any(self, where: torch.Tensor) -> bool:
        """False if an operation concerns no instance. On a GPU it is cheaper to do it for none than to ask."""
        return self.device.type != "cpu" or bool(where.any())

    # -- one slot of every instance ------------------------------------------------------------------------------------

    def _of(self, table: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """The entry ``[instances]`` of one slot (or client) of each instance."""
        return table.gather(1, slot.unsqueeze(1)).squeeze(1)

    def _paths(self, slot: torch.Tensor) -> torch.Tensor:
        """The path ``[instances, blocks]`` of one slot of each instance."""
        return self.layout.paths[self._everyone, slot]

    def _set(
        self, table: torch.Tensor, where: torch.Tensor, slot: torch.Tensor, value: torch.Tensor | int | bool
    ) -> None:
        """Set the entry of one slot in some instances."""
        table[self._everyone, slot] = torch.where(where, value, self._of(table, slot))

    @staticmethod
    def _first(count: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        """The first ``count`` blocks of each path, as bool ``[instances, blocks]``."""
        return torch.arange(paths.shape[1], device=paths.device) < count.unsqueeze(1)


_BY_SLOT = (
    "phase",
    "rank",
    "admitted",
    "_generated",
    "_private",
    "_reserved",
    "_locked_depth",
    "_kept_depth",
    "_computed",
)
_BY_CLIENT = ("deficits", "_quanta", "registered")
