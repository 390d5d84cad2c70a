"""An admission step that admits nothing and counts what it is asked: for what a policy promises not to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dlpm.policies.base import Waiting


@dataclass(frozen=True)
class Queued:
    """A waiting request of which a policy needs no more than this."""

    id: str
    client: str
    rank: int
    resident: int = 1


@dataclass
class CountingStep:
    """Memory is full: no request fits, and `may_fit` says so unless ``plainly`` is false."""

    queue: list[Queued]
    plainly: bool = True
    asked: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        self.asked[name] = self.asked.get(name, 0) + 1

    def waiting(self) -> Sequence[Waiting]:
        return self.queue

    def queued_clients(self) -> list[str]:
        return list(dict.fromkeys(request.client for request in self.queue))

    def matched(self, request: Waiting) -> int:
        self.count("matched")
        return 0

    def may_fit(self, request: Waiting) -> bool:
        self.count("may_fit")
        return not self.plainly

    def try_admit(self, request: Waiting) -> int | None:
        self.count("try_admit")
        return None

    def considered(self, order: Sequence[Waiting]) -> None:
        self.count("considered")

    def admitted(self, request: Waiting, deficit: int | None) -> None:
        raise AssertionError("nothing was admitted")

    def refilled(self, deficits: Mapping[str, int]) -> None:
        self.count("refilled")


def queue(*clients: str) -> list[Queued]:
    """One waiting request for each name, in order of arrival."""
    return [Queued(f"{client}{rank}", client, rank) for rank, client in enumerate(clients)]
