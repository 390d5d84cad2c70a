"""What happened in a step of every instance, written by tensor operations and read when somebody asks."""

from __future__ import annotations

import torch

from dlpm_engine.tensor.exact import INT64

REFILL, ADMIT, PREEMPT, EVICT, OUTPUT, FINISH = range(1, 7)
KIND, SLOT, FIRST, SECOND = range(4)
_FIELDS = 4


class Tape:
    """Events of the step so far, int64 ``[fields, instances, events]``; the fields depend on the kind.

    Beside each event, all deficits after it, ``[instances, events, clients]``, and which clients it concerns. The last
    place along `events` takes what belongs to no event.
    """

    def __init__(self, instances: int, clients: int, device: torch.device) -> None:
        """An empty tape."""
        self._everyone = torch.arange(instances, device=device)
        self._events = torch.zeros((_FIELDS, instances, 2), dtype=INT64, device=device)
        self._deficits = torch.zeros((instances, 2, clients), dtype=INT64, device=device)
        self._concerned = torch.zeros((instances, 2, clients), dtype=torch.bool, device=device)
        self._count = torch.zeros(instances, dtype=INT64, device=device)
        self._most = 0

    def rewind(self, clients: int) -> None:
        """A step begins, in which there are so many clients at most. O(1) unless there are more than before."""
        self._count.zero_()
        self._most = 0
        missing = clients - self._deficits.shape[2]
        if missing > 0:
            self._deficits = torch.nn.functional.pad(self._deficits, (0, missing))
            self._concerned = torch.nn.functional.pad(self._concerned, (0, missing))

    def room(self) -> int:
        """Events that the tape can hold in each instance, and one place more. O(1)."""
        return self._events.shape[2]

    def make_room(self, events: int) -> None:
        """Have room for so many events at least. O(1) where there is, else O(instances * events * clients)."""
        missing = events - self.room()
        if missing > 0:
            self._events = torch.nn.functional.pad(self._events, (0, missing))
            self._deficits = torch.nn.functional.pad(self._deficits, (0, 0, 0, missing))
            self._concerned = torch.nn.functional.pad(self._concerned, (0, 0, 0, missing))

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The events, the deficits after them, the clients that they concern, and how many there are. O(1)."""
        return self._events, self._deficits, self._concerned, self._count

    def write(
        self,
        where: torch.Tensor,
        kind: int,
        deficits: torch.Tensor,
        *,
        slot: torch.Tensor | None = None,
        first: torch.Tensor | None = None,
        second: torch.Tensor | None = None,
        concerned: torch.Tensor | None = None,
    ) -> None:
        """An event in the instances ``where``; values are ``[instances]``, some by client. O(clients)."""
        if self._most + 1 >= self.room():
            self.make_room(2 * self.room())
        place = torch.where(where, self._count, self._events.shape[2] - 1)
        # The kind as a tensor: a number written by index is a copy to the device, for which the host waits.
        kinds = torch.full_like(place, kind)
        for field, values in ((KIND, kinds), (SLOT, slot), (FIRST, first), (SECOND, second)):
            if values is not None:
                self._events[field, self._everyone, place] = values
        self._deficits[self._everyone, place] = deficits
        if concerned is not None:
            self._concerned[self._everyone, place] = concerned
        self._count += where
        self._most += 1

    def read(self) -> tuple[list[int], list[list[list[int]]], list[list[list[int]]], list[list[list[bool]]]]:
        """How many events each instance has, and, by instance and event: fields, deficits, clients concerned.

        Places beyond the number of events hold anything. O(instances * events * clients).
        """
        counts: list[int] = self._count.tolist()
        used = slice(0, max(counts, default=0))
        return (
            counts,
            self._events[:, :, used].permute(1, 2, 0).tolist(),
            self._deficits[:, used].tolist(),
            self._concerned[:, used].tolist(),
        )
