"""What a user may say about a simulated cluster: how many workers, how fast, and the routers in front of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.dispatch.base import Router
from dlpm.dispatch.cache_aware import CacheAware
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.least_loaded import LeastLoaded
from dlpm.dispatch.preble import Preble
from dlpm.dispatch.round_robin import RoundRobin
from dlpm.errors import InputError
from dlpm.jsonl import JsonValue
from dlpm_engine.run.options import DispatchChoice, PolicyChoice, check_quantum

ROUND_ROBIN = "round-robin"
PER_CLIENT_ROUND_ROBIN = "per-client-round-robin"
ROUTERS = (D2LPM.name, ROUND_ROBIN, PER_CLIENT_ROUND_ROBIN, LeastLoaded.name, Preble.name, CacheAware.name)
"""The routers, by name."""

DEFAULT_WORKER_QUANTUM = 20_000
MAX_WORKERS = 1024


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The workers behind a router.

    Attributes:
        workers: how many.
        speeds: how fast each is against the simulated GPU; empty if all are just that.
        notice_delay: steps of the evicting worker until the router hears of an eviction.

    Raises:
        InputError: a number is out of range, or there is not one speed for each worker.
    """

    workers: int
    speeds: tuple[Fraction, ...] = ()
    notice_delay: int = 0

    def __post_init__(self) -> None:
        """Refuse a cluster that cannot be built."""
        if not 1 <= self.workers <= MAX_WORKERS:
            raise InputError(f"expected 1 to {MAX_WORKERS}, found {self.workers}", field="--workers")
        if self.speeds and len(self.speeds) != self.workers:
            raise InputError(f"expected {self.workers} numbers, found {len(self.speeds)}", field="--speeds")
        if any(speed <= 0 for speed in self.speeds):
            raise InputError(f"expected numbers > 0, found {min(self.speeds)}", field="--speeds")
        if self.notice_delay < 0:
            raise InputError(f"expected a whole number of steps, found {self.notice_delay}", field="--notice-delay")

    def described(self) -> dict[str, JsonValue]:
        """The object ``cluster`` of `dlpm.results/1`."""
        return {
            "workers": self.workers,
            "speeds": [str(speed) for speed in self.speeds],
            "notice_delay": self.notice_delay,
        }

    def header_fields(self, choice: DispatchChoice) -> dict[str, JsonValue]:
        """What the header of an event log says of the router: the object ``dispatch`` (docs/formats/events.md)."""
        described: dict[str, JsonValue] = {
            "router": choice.name,
            "workers": self.workers,
            "notice_delay": self.notice_delay,
        }
        if choice.worker_quantum is not None:
            described["worker_quantum"] = choice.worker_quantum
        return {"dispatch": described}


def dispatch_choices(names: Sequence[str], worker_quanta: Sequence[int]) -> tuple[DispatchChoice, ...]:
    """The routers of a comparison: each once, and `d2lpm` once for each of ``worker_quanta``.

    No names stand for `d2lpm`, no quanta for `DEFAULT_WORKER_QUANTUM`.

    Raises:
        InputError: a router is unknown or named twice, a quantum is not positive or named twice, or quanta are given
            without a router that has one.
    """
    for option, values in (("--dispatch", list(names)), ("--worker-quantum", [str(value) for value in worker_quanta])):
        for place, value in enumerate(values):
            if value in values[:place]:
                raise InputError(f"expected once, found {value} twice", field=option)
    for name in names:
        if name not in ROUTERS:
            raise InputError(f"expected one of {', '.join(ROUTERS)}, found {name!r}", field="--dispatch")
    for quantum in worker_quanta:
        check_quantum("--worker-quantum", quantum)
    chosen = names or (D2LPM.name,)
    if worker_quanta and D2LPM.name not in chosen:
        raise InputError(f"expected {D2LPM.name} as --dispatch beside it", field="--worker-quantum")
    choices: list[DispatchChoice] = []
    for name in chosen:
        if name == D2LPM.name:
            choices.extend(DispatchChoice(name, quantum) for quantum in worker_quanta or (DEFAULT_WORKER_QUANTUM,))
        else:
            choices.append(DispatchChoice(name))
    return tuple(choices)


def with_routers(policies: Sequence[PolicyChoice], routers: Sequence[DispatchChoice]) -> tuple[PolicyChoice, ...]:
    """Every router in front of every local policy."""
    return tuple(replace(policy, dispatch=router) for router in routers for policy in policies)


def parse_speeds(text: str | None) -> tuple[Fraction, ...]:
    """Read ``1,2,0.5``; nothing stands for equal speeds.

    Raises:
        InputError: it reads otherwise.
    """
    if text is None:
        return ()
    try:
        return tuple(Fraction(part.strip()) for part in text.split(","))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"expected numbers such as 1,1,0.5, found {text!r}", field="--speeds") from error


def make_router(choice: DispatchChoice, workers: int, config: WorkerConfig, cost: CostModel) -> Router:
    """A fresh router.

    Raises:
        InputError: there is no router of that name.
    """
    match choice.name:
        case D2LPM.name if choice.worker_quantum is not None:
            return D2LPM(workers, choice.worker_quantum, cost)
        case "round-robin":
            return RoundRobin(workers)
        case "per-client-round-robin":
            return RoundRobin(workers, per_client=True)
        case LeastLoaded.name:
            return LeastLoaded(workers)
        case Preble.name:
            return Preble(workers, config.block_size, cost)
        case CacheAware.name:
            return CacheAware(workers)
        case _:
            raise InputError(f"found no router {choice.label!r}", field="--dispatch")
