"""Which client a request belongs to, where its trace does not say, or says it in some field: ``--clients RULE``.

| rule | the client of a request |
|---|---|
| ``own`` | the one its file names (workload files, synthetic workloads) |
| ``one`` | ``all`` |
| ``roundrobin:N`` | request k belongs to ``tenant-(k mod N)`` |
| ``hash:N[:zipfS]`` | a tenant drawn by a hash of the request's id |
| ``root:N[:zipfS][:blockK]`` | a tenant drawn by a hash of block K of its prompt, 1 unless said otherwise |
| ``field:NAME`` | the value of a field of its record |
| ``session`` | its session |
| ``chain`` | the first request of its chain of turns |

A hashed rule gives equal hash inputs equal tenants on every machine. Without ``zipfS`` the tenants are equally likely;
with it tenant k (from 0) has weight ``1 / (k + 1)**S``.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from dlpm.errors import InputError
from dlpm.fields import is_unicode
from dlpm.jsonl import JsonValue
from dlpm.request import ClientId, RequestId

MAX_TENANTS = 1_000_000

RULES = "own, one, roundrobin:N, hash:N[:zipfS], root:N[:zipfS][:blockK], field:NAME, session or chain"


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of where a request came from: all that a rule may look at.

    Attributes:
        number: its place in the file, from 0.
        id: its id.
        blocks: the hashes of its prompt; empty where its format has none.
        fields: its record, as far as its values are text or numbers.
        session: its session, where the format has sessions.
        chain: the id of the first request of its chain, where the format has chains.
    """

    number: int
    id: RequestId
    blocks: tuple[int, ...]
    fields: Mapping[str, JsonValue]
    session: str | None = None
    chain: str | None = None


ClientRule = Callable[[Origin], ClientId]
"""Raises `InputError`, naming the rule, for an origin that lacks what the rule looks at."""

_HASHED = re.compile(
    r"(hash|root):([0-9]{1,7})(?::zipf([0-9]{1,3}(?:\.[0-9]{1,6})?))?(?::block([0-9]{1,6}))?", re.ASCII
)
_ROUND_ROBIN = re.compile(r"roundrobin:([0-9]{1,7})", re.ASCII)


def parse_rule(text: str) -> ClientRule:
    """The rule that ``text`` names. O(number of tenants).

    Raises:
        InputError: there is no such rule, or its numbers are out of range.
    """
    if text == "one":
        return lambda _: "all"
    if text in {"session", "chain"}:
        return _by_session if text == "session" else _by_chain
    kind, _, rest = text.partition(":")
    if kind in {"field", "own"} and bool(rest) == (kind == "field"):
        return _by_field(rest or "client")
    if match := _ROUND_ROBIN.fullmatch(text):
        return _round_robin(_tenants(match[1]))
    if match := _HASHED.fullmatch(text):
        if match[1] == "hash" and match[4] is None:
            return _by_hash(_Drawing(_tenants(match[2]), float(match[3] or 0)))
        if match[1] == "root":
            return _by_root(_Drawing(_tenants(match[2]), float(match[3] or 0)), int(match[4] or 1))
    raise InputError(f"expected {RULES}, found {text!r}", field="clients")


class _Drawing:
    """Tenants drawn by the hash of a text, each with its weight."""

    def __init__(self, tenants: int, exponent: float) -> None:
        """Tenant k of ``tenants`` gets weight ``1 / (k + 1)**exponent``."""
        self._cumulative = list(accumulate((rank + 1) ** -exponent for rank in range(tenants)))

    def tenant(self, text: str) -> ClientId:
        """The tenant of a text. O(log tenants)."""
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        # 53 bits, so that the point is exact in a float and below the sum of the weights.
        point = (int.from_bytes(digest, "big") >> 11) * 2.0**-53 * self._cumulative[-1]
        return f"tenant-{min(bisect_right(self._cumulative, point), len(self._cumulative) - 1)}"


def _tenants(digits: str) -> int:
    """The number of tenants that a rule names."""
    tenants = int(digits)
    if not 1 <= tenants <= MAX_TENANTS:
        raise InputError(f"expected 1 to {MAX_TENANTS} tenants, found {tenants}", field="clients")
    return tenants


def _round_robin(tenants: int) -> ClientRule:
    """Deal the requests out in the order of the file."""
    return lambda origin: f"tenant-{origin.number % tenants}"


def _by_hash(drawing: _Drawing) -> ClientRule:
    """Draw by the request's id."""
    return lambda origin: drawing.tenant(origin.id)


def _by_root(drawing: _Drawing, block: int) -> ClientRule:
    """Draw by one block of the prompt (by its last one, where the prompt is shorter): a session keeps its tenant."""

    def client(origin: Origin) -> ClientId:
        if not origin.blocks:
            raise InputError("expected block hashes in the trace, which the rule root hashes", field="clients")
        return drawing.tenant(str(origin.blocks[min(block, len(origin.blocks) - 1)]))

    return client


def _by_field(name: str) -> ClientRule:
    """Take the value of a field."""

    def client(origin: Origin) -> ClientId:
        found = _named(origin.fields.get(name))
        if found is not None:
            return found
        usable = ", ".join(key for key, value in origin.fields.items() if _named(value) is not None)
        message = f"expected text or a number in field {name!r}, which the rule names; the record has {usable}"
        raise InputError(message, field="clients")

    return client


def _named(value: JsonValue) -> ClientId | None:
    """The client that a value names: a non-empty text, or a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value and is_unicode(value) else None


def _by_session(origin: Origin) -> ClientId:
    """Take the session."""
    if origin.session is None:
        raise InputError("expected a trace with sessions, which the rule session needs", field="clients")
    return origin.session


def _by_chain(origin: Origin) -> ClientId:
    """Take the first request of the chain."""
    if origin.chain is None:
        raise InputError("expected a trace with chains of turns, which the rule chain needs", field="clients")
    return origin.chain
