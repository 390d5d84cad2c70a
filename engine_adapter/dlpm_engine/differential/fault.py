"""What planted faults are made of: a name, what is wrong, and the few lines that break a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dlpm_engine.adapter import EngineConfig
from dlpm_engine.tensor.engine import TensorEngine
from dlpm_engine.tensor.scheduler import TensorScheduler


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted fault.

    Attributes:
        name: how reports and the command line call it.
        what: what is wrong, in words.
        plant: breaks one scheduler object by replacing methods of it or of its parts; nothing else is touched.
    """

    name: str
    what: str
    plant: Callable[[TensorScheduler], None]


class FaultyEngine(TensorEngine):
    """The tensor path with a planted fault."""

    def __init__(self, fault: Fault) -> None:
        """An engine that will make the mistake of ``fault``."""
        super().__init__()
        self._fault = fault
        self.name = f"tensor+{fault.name}"

    def configure(self, config: EngineConfig, *, full_log: bool) -> None:
        """A fresh scheduler, broken."""
        super().configure(config, full_log=full_log)
        self._fault.plant(self._configured())


def swap(owner: object, method: str, replacement: Callable[..., object]) -> None:
    """Replace a method of one object."""
    setattr(owner, method, replacement)
