"""Counters that run behind: which of the latest forward steps they have not heard of, as far as a log tells."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from dlpm_engine.conformance.state import ClientState


class Unheard:
    """What the counters of a log have not heard of, and the counters as they would be if they had.

    A seen counter (`ClientState.deficit`) lacks the charges of the latest forward steps, the same number of them for
    all clients. That number is not logged. Where more than one explains all that was logged so far, all are kept, and
    the counters are written down for one of them.

    Attributes:
        assumed: the number for which the counters are written down.
        possible: all numbers that explain the log so far, in rising order: at most ``steps`` + 1.
    """

    def __init__(self, steps: int, output_weight: int) -> None:
        """No forward step yet; at most the latest ``steps`` may be unheard."""
        self.steps = steps
        self.assumed = 0
        self.possible: list[int] = [0]
        self._weight = output_weight
        self._latest: deque[Mapping[ClientState, int]] = deque(maxlen=steps)

    def pending(self, client: ClientState, unheard: int) -> int:
        """What ``client`` was served in the latest ``unheard`` steps, in weighted tokens. O(unheard)."""
        steps = len(self._latest)
        return self._weight * sum(self._latest[place].get(client, 0) for place in range(steps - unheard, steps))

    def seen(self, client: ClientState, unheard: int) -> int:
        """Its counter, if so many steps are unheard. O(steps)."""
        if unheard == self.assumed:
            return client.deficit
        return client.deficit - self.pending(client, self.assumed) + self.pending(client, unheard)

    def true(self, client: ClientState) -> int:
        """Its counter, if all were heard of. O(steps)."""
        return self.seen(client, 0)

    def forward(self, tokens: Mapping[ClientState, int]) -> None:
        """A forward step is over, and how much has been heard meanwhile is open. O(clients in the latest steps)."""
        true = {client: self.true(client) - self._weight * count for client, count in tokens.items()}
        for client in self._clients():
            if client not in true:
                true[client] = self.true(client)
        self._latest.append(tokens)
        self.possible = list(range(min(self.possible[-1] + 1, self.steps) + 1))
        self.assumed = self.possible[-1]
        for client, counter in true.items():
            client.deficit = counter + self.pending(client, self.assumed)

    def settle(self, explains: Callable[[int], bool]) -> bool:
        """Keep the numbers that explain an event, or all if none does; whether any does. O(possible numbers)."""
        left = [unheard for unheard in self.possible if explains(unheard)]
        if left:
            self.possible = left
            if self.assumed not in left:
                self.assume(left[-1])
        return bool(left)

    def prefer(self, explains: Callable[[int], bool]) -> None:
        """Write the counters down for a number that explains an event, if one does, and keep the others."""
        chosen = next((unheard for unheard in reversed(self.possible) if explains(unheard)), None)
        if chosen is not None and chosen != self.assumed:
            self.assume(chosen)

    def assume(self, unheard: int) -> None:
        """Write the counters down for this number. O(clients in the latest steps)."""
        seen = {client: self.seen(client, unheard) for client in self._clients()}
        for client, counter in seen.items():
            client.deficit = counter
        self.assumed = unheard

    def _clients(self) -> dict[ClientState, None]:
        """Clients that were served in the latest steps. O(those)."""
        return {client: None for step in self._latest for client in step}
