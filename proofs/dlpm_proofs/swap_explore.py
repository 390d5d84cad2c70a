"""Small instances of the real swapping worker and of the real allocator of blocks, explored to the last state.

The environment sends each of a few requests once, before any step, in any order; and it chooses, step by step, how
long the copies take that begin in it: shorter than a step, or longer. Every block of both memories is watched
(`swap_watch.py`).
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, permutations

import networkx as nx

from dlpm.batch import QueuedRequest, WorkerConfig
from dlpm.cost import CostModel
from dlpm.extensions.swap.block_groups import BlockPool
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.states import IllegalMoveError
from dlpm.ledger import Ledger
from dlpm.memory import Optimistic
from dlpm.policies.dlpm import DLPM
from dlpm.prefix_cache import Node
from dlpm.quanta import Quanta
from dlpm.request import Request
from dlpm.timing import FixedStep
from dlpm_proofs.explore import MAX_STATES, Kind
from dlpm_proofs.snapshot import snapshot
from dlpm_proofs.swap_watch import Watch, WatchedSwapWorker

STEP_US = 2
COPIES_US = (1, 3)
"""A copy takes less than a step, or more."""

QUANTUM = 4


@dataclass
class ChosenCopy:
    """Copies take as long as the environment says."""

    us: int = 1
    asked: bool = False

    def copy_us(self, pieces: int, tokens: int) -> int:
        """``us``, whatever is copied."""
        del pieces, tokens
        self.asked = True
        return self.us


@dataclass(frozen=True, slots=True)
class SwapInstance:
    """A swapping worker and what is sent to it: one request of each kind."""

    name: str
    kv_tokens: int
    swap: SwapConfig
    kinds: tuple[Kind, ...]
    block_size: int = 1
    max_running: int | None = None
    worker_type: type[WatchedSwapWorker] = WatchedSwapWorker


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was found: how many states and steps, in how many of these somebody was swapped out, what went wrong first.

    ``endless``: some run never ends, because a state can be reached again from itself.
    """

    states: int
    steps: int
    swaps: int
    wrong: tuple[str, ...]
    endless: bool


class _Explorer:
    """Breadth first, from the empty worker."""

    def __init__(self, instance: SwapInstance) -> None:
        self._instance = instance
        self._names = [kind.name for kind in instance.kinds]
        self._numbers: dict[Hashable, int] = {}
        self._states: list[tuple[bytes, frozenset[int]]] = []
        self._graph: nx.DiGraph[int] = nx.DiGraph()
        self._steps = 0
        self._swaps = 0

    def explore(self) -> Exploration:
        """Every state, or the first fault. O(states * moves) steps of the worker."""
        todo = deque([self._keep(self._empty(), frozenset(range(len(self._names))))])
        while todo:
            state = todo.popleft()
            for sent in self._moves(state):
                for us in COPIES_US:
                    known = len(self._states)
                    wrong, copied = self._step(state, sent, us)
                    if wrong:
                        return Exploration(known, self._steps, self._swaps, wrong, endless=False)
                    todo.extend(range(known, len(self._states)))
                    if not copied:
                        break
        endless = not nx.is_directed_acyclic_graph(self._graph)
        return Exploration(len(self._states), self._steps, self._swaps, (), endless)

    def _empty(self) -> WatchedSwapWorker:
        instance = self._instance
        config = WorkerConfig(instance.kv_tokens, Optimistic(), instance.block_size, max_running=instance.max_running)
        policy = DLPM(Ledger(Quanta(QUANTUM), CostModel()))
        worker = instance.worker_type(config, policy, FixedStep(STEP_US), instance.swap, ChosenCopy())
        worker.watch = Watch()
        return worker

    def _moves(self, state: int) -> Iterator[tuple[int, ...]]:
        """What may be sent before the next step; something is in the system then."""
        image, unsent = self._states[state]
        empty = _load(image).idle()
        for length in range(len(unsent) + 1):
            for sent in permutations(sorted(unsent), length):
                if sent or not empty:
                    yield sent

    def _step(self, state: int, sent: Sequence[int], us: int) -> tuple[tuple[str, ...], bool]:
        """Send, step, keep the state that comes out: what went wrong, and whether a copy was begun."""
        image, unsent = self._states[state]
        worker = _load(image)
        timer = ChosenCopy(us)
        worker.link.timer = timer
        before = worker.traffic.swapped_out
        try:
            for number in sent:
                kind = self._instance.kinds[number]
                tokens = len(kind.prompt)
                worker.submit(
                    Request(kind.name, kind.client, 0, tokens, kind.output, kind.max_output, prompt=kind.prompt),
                    worker.time_us,
                )
            ran = worker.step().ran
        except (IllegalMoveError, AssertionError, LookupError, ValueError) as error:
            return (repr(error),), False
        self._steps += 1
        self._swaps += worker.traffic.swapped_out > before
        if worker.watch.wrong:
            return tuple(worker.watch.wrong), False
        if not ran:
            return ("a step runs nothing beside requests",), False
        self._graph.add_edge(state, self._keep(worker, unsent.difference(sent)))
        return (), timer.asked

    def _keep(self, worker: WatchedSwapWorker, unsent: frozenset[int]) -> int:
        """The number of this state."""
        seen = (unsent, swap_snapshot(worker, lambda request: self._names.index(request.id)))
        number = self._numbers.setdefault(seen, len(self._states))
        if number == len(self._states):
            if number >= MAX_STATES:
                raise ValueError(f"{self._instance.name} has more than {MAX_STATES} states")
            self._states.append((pickle.dumps(worker), unsent))
        return number


def _load(image: bytes) -> WatchedSwapWorker:
    """A worker in a state that was kept."""
    worker = pickle.loads(image)
    assert isinstance(worker, WatchedSwapWorker)
    return worker


def explore_swapping(instance: SwapInstance) -> Exploration:
    """All states of a swapping worker that can be reached, up to the first fault.

    Raises:
        ValueError: if there are more than `dlpm_proofs.explore.MAX_STATES`.
    """
    return _Explorer(instance).explore()


def _alive(worker: WatchedSwapWorker) -> list[QueuedRequest]:
    """Everybody in the system."""
    return [
        *worker.waiting(),
        *(run.queued for run in worker.running),
        *(away.queued for away in worker.away.values()),
    ]


def swap_snapshot(worker: WatchedSwapWorker, kind_of: Callable[[Request], int]) -> Hashable:
    """Everything that the next steps of a swapping worker depend on, with places of blocks; times count from now."""
    now = worker.time_us
    order = {rank: place for place, rank in enumerate(sorted(queued.rank for queued in _alive(worker)))}
    dead: dict[int, int] = {}

    def key(value: Hashable) -> Hashable:
        if not isinstance(value, tuple):
            return value
        rank = value[0]
        name = order[rank] if rank in order else ~dead.setdefault(rank, len(dead))
        return (name, *value[1:])

    away = [
        (
            kind_of(one.queued.request),
            one.queued.resident,
            order[one.queued.rank],
            worker.states.of(name).value,
            max(0, one.done_us - now),
        )
        for name, one in worker.away.items()
    ]
    tables = [(order[run.queued.rank], tuple(worker.placement.table(run))) for run in worker.running]
    link = worker.link
    return (
        snapshot(worker, kind_of),
        tuple(order[queued.rank] for queued in _alive(worker)),
        tuple(away),
        tuple(tables),
        (max(0, link.out_until_us - now), max(0, link.in_until_us - now)),
        _copies(worker, key),
        _pool(worker.placement.pool, lambda owner: _owner(owner, order, worker)),
    )


def _owner(owner: Hashable, order: dict[int, int], worker: WatchedSwapWorker) -> Hashable:
    """An owner of spare blocks without its name."""
    return next((order[queued.rank] for queued in _alive(worker) if queued.id == owner), str(type(owner)))


def _pool(pool: BlockPool, name: Callable[[Hashable], Hashable]) -> Hashable:
    """Free and spare runs."""
    return tuple(pool.free_runs()), tuple((name(owner), run) for owner, run in pool.spare_runs().items())


def _copies(worker: WatchedSwapWorker, key: Callable[[Hashable], Hashable]) -> Hashable:
    """The tree of copies: paths, locks, recency, blocks."""
    tree = worker.cpu.tree
    nodes: list[tuple[tuple[Hashable, ...], Node]] = []
    todo: list[tuple[tuple[Hashable, ...], Node]] = [((), tree.root)]
    while todo:
        path, node = todo.pop()
        for child in node.children.values():
            below = (*path, key(child.key))
            nodes.append((below, child))
            todo.append((below, child))
    uses = {use: place for place, use in enumerate(sorted({node.last_use for _, node in nodes}))}
    return tuple(sorted(((p, n.locks, uses[n.last_use], worker.cpu.block_of(n)) for p, n in nodes), key=repr))


# -- the allocator -----------------------------------------------------------------------------------------------------

OWNERS = ("a", "b")


def explore_pool(blocks: int, group_blocks: int, pool_type: type[BlockPool] = BlockPool) -> tuple[int, tuple[str, ...]]:
    """Every state of an allocator that two owners can bring about: how many there are, and the first fault.

    Ownership is counted beside it, operation by operation. O(states * operations).
    """
    start = pool_type(blocks, group_blocks)
    seen = {_pool_state(start)}
    todo = deque([pickle.dumps(start)])
    while todo:
        image = todo.popleft()
        for operation in _operations(pickle.loads(image)):
            pool = pickle.loads(image)
            wrong = operation(pool)
            wrong = wrong or _misplaced(pool)
            if wrong:
                return len(seen), (wrong,)
            state = _pool_state(pool)
            if state not in seen:
                seen.add(state)
                todo.append(pickle.dumps(pool))
    return len(seen), ()


Operation = Callable[[BlockPool], str]
"""Changes a pool; why that was wrong, or nothing."""


def _operations(pool: BlockPool) -> Iterator[Operation]:
    """Whatever may be done in this state."""
    held = dict(pool.held_blocks())
    for owner in OWNERS:
        if len(held) < pool.blocks:
            yield partial(_taken, owner=owner, held=held)
        yield partial(_left_alone, expected=held, operation=partial(_close, owner=owner))
        for block in held:
            given = partial(_hand_over, block=block, owner=owner)
            yield partial(_left_alone, expected={**held, block: owner}, operation=given)
    for block in held:
        others = {other: owner for other, owner in held.items() if other != block}
        yield partial(_left_alone, expected=others, operation=partial(_release, block=block))


def _close(pool: BlockPool, owner: str) -> None:
    pool.close(owner)


def _hand_over(pool: BlockPool, block: int, owner: str) -> None:
    pool.hand_over(block, owner)


def _release(pool: BlockPool, block: int) -> None:
    pool.release(block)


def _taken(pool: BlockPool, owner: str, held: dict[int, Hashable]) -> str:
    """Take a block: one that nobody held."""
    block = pool.take(owner)
    if block in held:
        return f"block {block} is given to two owners"
    return "" if dict(pool.held_blocks()) == {**held, block: owner} else "taking a block changed others"


def _left_alone(pool: BlockPool, expected: dict[int, Hashable], operation: Callable[[BlockPool], None]) -> str:
    """Do something that must leave the blocks held as ``expected``."""
    operation(pool)
    return "" if dict(pool.held_blocks()) == expected else "an operation changed who holds what"


def _misplaced(pool: BlockPool) -> str:
    """Why the blocks are not each in one place, and free ones not merged; empty if they are."""
    runs = (*pool.free_runs(), *pool.spare_runs().values())
    places = [block for run in runs for block in range(run.start, run.end)] + list(pool.held_blocks())
    if sorted(places) != list(range(pool.blocks)):
        return "a block is lost, or in two places"
    if any(before.end >= after.start for before, after in pairwise(pool.free_runs())):
        return "free runs that touch are not merged"
    return ""


def _pool_state(pool: BlockPool) -> Hashable:
    """Everything that the pool's next operations depend on."""
    return (
        tuple(pool.free_runs()),
        tuple(sorted(pool.spare_runs().items())),
        tuple(sorted(pool.held_blocks().items())),
        tuple(sorted(pool._latest.items())),
    )
