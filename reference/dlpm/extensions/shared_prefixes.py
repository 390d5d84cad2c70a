"""E7, shared prefixes: who pays for the blocks of a prompt that several clients use?

*First*: who computes a block pays for it, and nobody else does; this is the plain algorithm. *Alone*: each client pays
for what it would have had to compute if the cache held its own history only. *Split*: the clients that use a block
share its cost; who joins them pays its part, and they get that much back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from dlpm.events import Extensions
from dlpm.ledger import Ledger
from dlpm.policies.base import Policy
from dlpm.policies.dlpm import DLPM
from dlpm.prefix_cache import Node, PrefixCache
from dlpm.request import ClientId

NAME = "shared_prefixes"
"""The extension's key in the header of a log."""

FIRST, ALONE, SPLIT = "first", "alone", "split"
PAYERS = (FIRST, ALONE, SPLIT)


def stated(payer: str) -> Extensions:
    """What the header of a log says of this extension."""
    return {NAME: {"payer": payer}}


Shares = dict[ClientId, int]
"""Of one cached block: the clients that hold it, in the order in which they came, each with its share in tokens.

A share is what its client has paid for the block and not got back. All shares of a block together are its tokens, if it
was computed as part of a prompt, and 0 if it was generated as output.
"""


def charged_alone(resident: int, held: int) -> int:
    """Extend tokens of a request if the cache held only what its client holds: ``held`` of its ``resident`` tokens.

    At least one token is always computed, as in `dlpm.worker.Worker.matched`.
    """
    return resident - min(held, resident - 1)


def join(blocks: Sequence[Shares], client: ClientId) -> dict[ClientId, int]:
    """``client`` comes to hold ``blocks``, a path from the root: what each other client gets back, in tokens.

    Where k clients hold a block, each gives the newcomer one (k + 1)-th of its share. Fractions of a token are carried
    along the path while k stays the same, and in the end stay with those who came before. What is given back is what
    the newcomer pays: all of it is entered in ``blocks``. O(all shares).
    """
    refunds: dict[ClientId, int] = {}
    holders = 0
    fractions: dict[ClientId, int] = {}
    for shares in blocks:
        if client in shares:
            continue
        if len(shares) != holders:
            holders, fractions = len(shares), {}
        paid = 0
        for holder, share in shares.items():
            parts = share + fractions.get(holder, 0)
            back = parts // (holders + 1)
            fractions[holder] = parts - back * (holders + 1)
            shares[holder] = share - back
            refunds[holder] = refunds.get(holder, 0) + back
            paid += back
        shares[client] = paid
    return refunds


class RefundingLedger(Ledger):
    """The plain counters, from which extend tokens can also be given back."""

    def refund_extend(self, client: ClientId, tokens: int) -> None:
        """Give back what was charged for ``tokens`` extend tokens. The counter may rise above the quantum."""
        self.deficits[client] += self.cost.extend(tokens)


class SharingPolicy(Policy, Protocol):
    """A policy that can give back what a client has paid for a prefix."""

    def refund(self, tokens: Mapping[ClientId, int]) -> None:
        """Give extend tokens back, to each client its own."""


class SharedPrefixDLPM(DLPM):
    """DLPM that can give back what a client has paid for a prefix."""

    def __init__(self, ledger: RefundingLedger) -> None:
        """Schedule by the counters of ``ledger``."""
        super().__init__(ledger)
        self._refunding = ledger

    def refund(self, tokens: Mapping[ClientId, int]) -> None:
        """Give extend tokens back, to each client its own. O(clients)."""
        for client, count in tokens.items():
            self._refunding.refund_extend(client, count)


class HeldCache(PrefixCache):
    """A prefix cache that knows who holds each block. Who holds a block holds every block above it.

    Attributes:
        shares: for each cached block, who holds it.
    """

    def __init__(self, block_size: int) -> None:
        """An empty cache of blocks of ``block_size`` tokens."""
        super().__init__(block_size)
        self.shares: dict[Node, Shares] = {}

    def held(self, client: ClientId, node: Node) -> int:
        """Tokens of the path to ``node`` that ``client`` holds. O(blocks that it does not hold)."""
        while node.parent is not None and client not in self.shares[node]:
            node = node.parent
        return node.end

    def hold(self, client: ClientId, nodes: Iterable[Node]) -> None:
        """``client`` holds ``nodes`` and has paid for those that are new; the others cost it nothing. O(nodes)."""
        for node in nodes:
            if node not in self.shares:
                self.shares[node] = {client: node.tokens}
            else:
                self.shares[node].setdefault(client, 0)

    def hold_free(self, client: ClientId, nodes: Iterable[Node]) -> None:
        """``client`` holds ``nodes``, for which there is no cost to share: they were generated, say. O(nodes)."""
        for node in nodes:
            self.shares.setdefault(node, {}).setdefault(client, 0)

    def _remove(self, node: Node) -> int:
        """Nobody holds a block that is gone: what was paid for it is spent."""
        self.shares.pop(node, None)
        return super()._remove(node)


def path_to(node: Node) -> list[Node]:
    """The blocks from the root to ``node``. O(depth)."""
    path: list[Node] = []
    while node.parent is not None:
        path.append(node)
        node = node.parent
    path.reverse()
    return path
