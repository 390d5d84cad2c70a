"""Algorithm 1 exactly as printed: kept to show what its admission loop does [DLPM Alg. 1 ll. 15-24].

Two readings of lines 16-25 fail. Taken literally, ``while not Queue.empty()`` never ends once memory is
full. Taken as one pass over the queue, it can leave a fitting request waiting and run a forward step on an empty batch,
when one quantum lifts nobody above 0. The policy in `dlpm.py` repairs both.
"""

from __future__ import annotations

from collections.abc import Iterable

from dlpm.ledger import Ledger
from dlpm.policies.base import AdmissionStep, longest_prefix_first
from dlpm.policies.dlpm import DLPM
from dlpm.request import ClientId


class EndlessLoopError(RuntimeError):
    """The printed ``while not Queue.empty()`` would spin for ever: a pass changed nothing, so none ever will."""


class DLPMLiteral(DLPM):
    """Algorithm 1 as printed.

    ``one_pass`` reads lines 17-24 as a single pass over the queue; otherwise the ``while`` is taken at its word.
    """

    name = "dlpm-literal"

    def __init__(self, ledger: Ledger, *, one_pass: bool = False) -> None:
        """Schedule by the counters of ``ledger``."""
        super().__init__(ledger)
        self.one_pass = one_pass

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """One pass does not come to rest: the next may admit what the last refilled. Else as the fixpoint."""
        return self.one_pass or super().admission_due(queued_clients)

    def admit(self, step: AdmissionStep) -> None:
        """Lines 16-24 [DLPM Alg. 1].

        Raises:
            EndlessLoopError: where the printed loop would spin for ever.
        """
        queue = longest_prefix_first(step)  # l. 16
        step.considered(queue)
        while queue:  # l. 17
            before = len(queue)
            refilled = False
            for request in tuple(queue):  # l. 18
                outcome = self._visit(step, request)
                refilled = refilled or outcome.refilled
                if outcome.extend is not None:
                    queue.remove(request)  # l. 24
            if self.one_pass:
                return
            if len(queue) == before and not refilled:
                raise EndlessLoopError(f"{before} requests wait, memory holds none of them, and line 17 asks for ever")
