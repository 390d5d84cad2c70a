"""What a policy sees of a worker, and what a worker asks of a policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from dlpm.request import ClientId, RequestId


class Waiting(Protocol):
    """A queued request as a policy may see it: never its true output length."""

    @property
    def id(self) -> RequestId:
        """Its name."""

    @property
    def client(self) -> ClientId:
        """Who pays."""

    @property
    def rank(self) -> int:
        """Its place in the order of arrival, unique; kept through a preemption."""

    @property
    def resident(self) -> int:
        """Tokens that must be in memory once it runs: its input, and what it generated before a preemption."""


class AdmissionStep(Protocol):
    """The admission phase of one step, as the worker offers it to its policy [DLPM Alg. 1 ll. 15-24]."""

    def waiting(self) -> Sequence[Waiting]:
        """The waiting queue at the start of the step, in order of arrival. O(1)."""

    def queued_clients(self) -> Iterable[ClientId]:
        """Clients with at least one request in the queue *now*; the order is of no consequence. O(1)."""

    def matched(self, request: Waiting) -> int:
        """Tokens of ``request`` that the prefix cache holds now, at most all but one. Amortized O(1), see worker."""

    def may_fit(self, request: Waiting) -> bool:
        """False only if memory could not hold ``request`` even with all but one of its tokens cached. O(1)."""

    def try_admit(self, request: Waiting) -> int | None:
        """``CanAdd(r)`` and, if so, ``B <- B + r``: the extend tokens to be computed, or ``None`` [Alg. 1 ll. 21-24].

        The request leaves the queue. O(blocks of the request) if admitted; O(1) if memory plainly cannot hold it.
        """

    def considered(self, order: Sequence[Waiting]) -> None:
        """Record the order in which the queue is gone through (event `order`)."""

    def admitted(self, request: Waiting, deficit: int | None) -> None:
        """Record an admission, with its client's counter after the charge (event `admit`)."""

    def refilled(self, deficits: Mapping[ClientId, int]) -> None:
        """Record a check-refill that fired, with the counters of those that got their quantum (event `refill`)."""


class Policy(Protocol):
    """Decides which waiting requests join the running batch, and keeps the counters it needs for that."""

    @property
    def name(self) -> str:
        """Name in event logs and on the command line."""

    def arrive(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """A request of ``client`` is about to join a queue that holds requests of ``queued_clients``."""

    def leave(self, client: ClientId) -> None:
        """The last queued request of ``client`` has left the queue."""

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """True if the policy may act although no change of queue, cache or memory since its last turn helps it."""

    def admit(self, step: AdmissionStep) -> None:
        """Run the admission phase of one step."""

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge the output tokens of one forward step, per client [DLPM Alg. 1 l. 26]."""

    def counter(self, client: ClientId) -> int | None:
        """The client's counter as logged, or ``None`` if this policy keeps none."""


def longest_prefix_first(step: AdmissionStep) -> list[Waiting]:
    """The waiting queue by matched prefix length, longest first; ties in order of arrival [DLPM Alg. 1 l. 16].

    Ties keep the order of the queue, which is that of arrival: sorting is stable, also in reverse. O(n log n) in the
    queue's length, plus the matching.
    """
    return sorted(step.waiting(), key=step.matched, reverse=True)
