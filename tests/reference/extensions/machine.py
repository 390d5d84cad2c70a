"""What the state machines of all variants do: submit and step, both workers alike."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.reference.lockstep import Lockstep, Shape, shapes


class VariantMachine(RuleBasedStateMachine):
    """Requests and steps for ``pair``, which its subclass makes first; an invariant says what must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Lockstep | None = None
        self.submitted = 0

    @rule(several=st.lists(shapes(), min_size=1, max_size=5))
    def submit(self, several: list[Shape]) -> None:
        assert self.pair is not None
        for shape in several:
            self.submitted += 1
            self.pair.submit(shape.request(f"r{self.submitted}", self.pair.rules.block_size))

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        assert self.pair is not None
        for _ in range(times):
            self.pair.step()
