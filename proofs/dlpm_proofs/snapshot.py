"""What determines the future of a worker, and nothing else: two workers with equal snapshots behave alike for ever.

Names, times, step numbers and absolute ranks are left out; what is left of ranks, of recency in the cache and of the
order of eviction is who comes before whom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dlpm.batch import QueuedRequest
from dlpm.policies.dlpm import DLPM
from dlpm.prefix_cache import Node, PrefixCache
from dlpm.request import Request
from dlpm.worker import Worker

Snapshot = tuple[object, ...]
"""Hashable."""

KindOf = Callable[[Request], int]
"""Which of the instance's kinds a request is."""


def snapshot(worker: Worker, kind_of: KindOf) -> Snapshot:
    """Everything that a worker's next steps depend on. O(its size)."""
    ranks = _places(queued.rank for queued in (*worker.waiting(), *(running.queued for running in worker.running)))

    def request(queued: QueuedRequest) -> tuple[int, int, int]:
        return kind_of(queued.request), queued.resident, ranks[queued.rank]

    return (
        _counters(worker),
        tuple(request(queued) for queued in worker.waiting()),
        tuple(
            (request(run.queued), run.private, run.reserved, run.node.end, run.kept.end, run.computed)
            for run in worker.running
        ),
        _tree(worker.cache),
        worker._changed,
    )


def _counters(worker: Worker) -> tuple[tuple[str, int], ...]:
    """The counters of the policy's clients."""
    policy = worker.policy
    return tuple(sorted(policy.ledger.deficits.items())) if isinstance(policy, DLPM) else ()


def _places(values: Iterable[int]) -> Mapping[int, int]:
    """Each value's place in the order of all of them."""
    return {value: place for place, value in enumerate(sorted(set(values)))}


def _tree(cache: PrefixCache) -> tuple[object, ...]:
    """The cached blocks with their locks, how recently each was used, and the order in which leaves would go."""
    nodes: list[Node] = []
    todo = list(cache.root.children.values())
    while todo:
        node = todo.pop()
        nodes.append(node)
        todo.extend(node.children.values())
    recency = _places(node.last_use for node in nodes)
    leaving = {
        node: (last_use, serial)
        for last_use, serial, node in sorted(cache._evictable, key=lambda entry: entry[:2], reverse=True)
        if node.alive and node.locks == 0 and not node.children and node.last_use == last_use
    }
    order = {node: place for place, node in enumerate(sorted(leaving, key=lambda node: leaving[node]))}
    described = ((_path(node), node.tokens, node.locks, recency[node.last_use], order.get(node, -1)) for node in nodes)
    return tuple(sorted(described, key=repr))


def _path(node: Node) -> tuple[object, ...]:
    """The keys from the root to ``node``."""
    keys: list[object] = []
    while node.parent is not None:
        keys.append(node.key)
        node = node.parent
    return tuple(reversed(keys))
