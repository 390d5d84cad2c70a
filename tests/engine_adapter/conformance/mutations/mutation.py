"""What a named mutation of a log is, and how a function becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.engine_adapter.conformance.logs import Log

Places = Iterator[tuple[Log, int]]
"""For every place of a log where a mutation can be applied: the changed log, and the line at which it has its fault."""

ALL = ("dlpm", "vtc", "lpm", "fcfs")


@dataclass(frozen=True)
class Mutation:
    """A fault, the rule that must name it, the policies whose logs can have it, and what the logs must be like."""

    name: str
    rule: str
    places: Callable[[Log], Places]
    policies: tuple[str, ...] = ("dlpm",)
    memory: str = "reserving"
    full: bool = True


class Mutations(list[Mutation]):
    """The mutations of one subject, in the order in which they are written down."""

    def __call__(
        self, rule: str, *, policies: tuple[str, ...] = ("dlpm",), memory: str = "reserving", full: bool = True
    ) -> Callable[[Callable[[Log], Places]], Callable[[Log], Places]]:
        """Register a mutation under the name of its function."""

        def register(places: Callable[[Log], Places]) -> Callable[[Log], Places]:
            self.append(Mutation(places.__name__, rule, places, policies, memory, full))
            return places

        return register
