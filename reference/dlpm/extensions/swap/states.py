"""Where a request stands between GPU and CPU memory, and the only ways from one state to the next."""

from __future__ import annotations

from enum import StrEnum

from dlpm.request import RequestId


class State(StrEnum):
    """What a worker may do with a request."""

    WAITING = "waiting"
    RUNNING = "running"
    SWAPPING_OUT = "swapping out"
    SWAPPED = "swapped"
    SWAPPING_IN = "swapping in"
    FINISHED = "finished"


MOVES = frozenset(
    {
        (State.WAITING, State.RUNNING),  # admitted, and charged for what it computes
        (State.RUNNING, State.WAITING),  # preempted by recomputation
        (State.RUNNING, State.SWAPPING_OUT),  # preempted by swap: it decodes no more
        (State.SWAPPING_OUT, State.SWAPPED),  # copy-out done: its GPU blocks may be used again
        (State.SWAPPED, State.SWAPPING_IN),  # it has GPU blocks again, with nothing in them yet
        (State.SWAPPING_IN, State.RUNNING),  # copy-in done: it decodes again, and is not charged for coming back
        (State.RUNNING, State.FINISHED),
    }
)
"""Every move there is. Nothing leads out of a copy but its end: a copy that was begun is always finished."""


class IllegalMoveError(RuntimeError):
    """A worker tried what `MOVES` does not know."""


class States:
    """The state of every request of one worker that has not finished."""

    def __init__(self) -> None:
        """No request."""
        self._states: dict[RequestId, State] = {}

    def of(self, request: RequestId) -> State:
        """Where ``request`` stands. O(1)."""
        return self._states[request]

    def all_in(self, state: State) -> list[RequestId]:
        """Requests in ``state``, in order of arrival. O(requests)."""
        return [request for request, stands in self._states.items() if stands is state]

    def arrive(self, request: RequestId) -> None:
        """A request joins the waiting queue. O(1)."""
        self._states[request] = State.WAITING

    def move(self, request: RequestId, to: State) -> None:
        """``request`` goes on to ``to``. O(1).

        Raises:
            IllegalMoveError: if there is no such move.
        """
        if (self._states[request], to) not in MOVES:
            raise IllegalMoveError(f"{request} is {self._states[request]} and cannot be {to}")
        if to is State.FINISHED:
            del self._states[request]
        else:
            self._states[request] = to
