"""Workloads that drive one client's counter to the floor of `dlpm.bounds`, for given limits.

The construction: requests one after another bring the counter to the least positive value it can have; then, in one
admission phase, requests of one and the same prompt token reserve as many output tokens as limits allow, and a last one
computes as many extend tokens as pays. Everything let in decodes all that it reserved.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from dlpm import bounds
from dlpm.cost import CostModel
from dlpm.request import Request
from dlpm_proofs.witness import Replay, Setting, call, replay

CLIENT = "f"
SHARED_TOKEN = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Weights, quantum and the limits of an engine with reserving memory."""

    extend_weight: int
    output_weight: int
    quantum: int
    max_input: int
    max_output: int
    kv_tokens: int
    max_running: int

    def cost(self) -> CostModel:
        """What service costs."""
        return CostModel(self.extend_weight, self.output_weight)

    def unit(self) -> int:
        """All counters are multiples of this."""
        return math.gcd(self.extend_weight, self.output_weight, self.quantum)

    def floor(self) -> int:
        """The floor that is to be reached."""
        tight = bounds.tight_unit(
            self.cost(), self.max_input, self.kv_tokens, max_output=self.max_output, max_running=self.max_running
        )
        return bounds.deficit_floor(tight, self.unit())

    def deepest_run(self) -> Replay | None:
        """The constructed run on the reference, or ``None`` if no warm-up brings the counter to its least value.

        One visit refills once: with a quantum below ``w_e`` the requests are not let in as they stand in the queue. So
        every place of the last one in the queue is tried, O(B) runs.
        """
        extend, outputs = self.costliest_batch()
        warm_up = self._warm_up((self.unit() + (len(outputs) - 1) * self.extend_weight) % self.quantum)
        if warm_up is None:
            return None
        runs = [self._run(warm_up, extend, outputs, place) for place in reversed(range(len(outputs)))]
        return min(runs, key=lambda run: min(run.counters(CLIENT)))

    def _run(self, warm_up: list[tuple[int, int]], extend: int, outputs: list[int], place: int) -> Replay:
        """Replay the warm-up, then all of ``outputs`` at once, the costly request at ``place`` in the queue."""
        requests: list[Request] = []
        fresh = SHARED_TOKEN + 1
        for tokens, output in warm_up:
            after = (requests[-1].id,) if requests else ()
            requests.append(call(f"warm{len(requests) + 1}", CLIENT, range(fresh, fresh + tokens), output, after=after))
            fresh += tokens
        after = (requests[-1].id,) if requests else ()
        prompts = [[SHARED_TOKEN]] * (len(outputs) - 1)
        prompts.insert(place, list(range(fresh, fresh + extend)))
        outputs = outputs[:-1][:place] + outputs[-1:] + outputs[:-1][place:]
        for k, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
            requests.append(call(f"deep{k + 1}", CLIENT, prompt, output, after=after))
        setting = Setting(
            self.kv_tokens, self.quantum, self.extend_weight, self.output_weight, max_running=self.max_running
        )
        return replay(setting, requests, "floor")

    def costliest_batch(self) -> tuple[int, list[int]]:
        """Extend tokens of the last request and the outputs of all of them, by trying every size. O(L_in)."""
        best = (0, 0, [0])
        for extend in range(1, min(self.max_input, self.kv_tokens - 1) + 1):
            alone = min(self.max_output, self.kv_tokens - extend)
            together = min(self.max_running * self.max_output, self.kv_tokens - 1 - extend)
            reserved = max(alone, together) if self.max_running > 1 else alone
            price = self.cost().service(extend, reserved)
            if price > best[0]:
                full, rest = divmod(reserved, self.max_output)
                best = (price, extend, [self.max_output] * full + ([rest] if rest else []))
        return best[1], best[2]

    def _warm_up(self, target: int) -> list[tuple[int, int]] | None:
        """Sizes of requests after which the counter is ``target`` modulo the quantum. O(Q * L_in * L_out)."""
        sizes = [
            (tokens, output)
            for tokens in range(1, min(self.max_input, self.kv_tokens - 1) + 1)
            for output in range(1, min(self.max_output, self.kv_tokens - tokens) + 1)
        ]
        reached: dict[int, list[tuple[int, int]]] = {0: []}
        todo = deque([0])
        while todo:
            counter = todo.popleft()
            if counter == target:
                return reached[counter]
            for size in sizes:
                after = (counter - self.cost().service(*size)) % self.quantum
                if after not in reached:
                    reached[after] = [*reached[counter], size]
                    todo.append(after)
        return None
