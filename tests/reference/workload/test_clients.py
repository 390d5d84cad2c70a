"""Client rules: `dlpm.workload.clients`."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.workload.clients import Origin, parse_rule

RULES_OF_TENANTS = ["roundrobin:5", "hash:5", "hash:5:zipf1.1", "root:5", "root:5:zipf2", "root:5:zipf0.5:block3"]


def origin(number: int = 0, blocks: tuple[int, ...] = (0, 1)) -> Origin:
    return Origin(number, f"r{number}", blocks, {})


def refusal(rule: str, facts: Origin | None = None) -> str:
    with pytest.raises(InputError) as raised:
        parse_rule(rule)(facts or origin())
    assert raised.value.field == "clients"
    return raised.value.expected


@given(st.sampled_from(RULES_OF_TENANTS), st.integers(0, 10**6), st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_a_rule_of_n_tenants_names_one_of_them_and_always_the_same(rule: str, number: int, blocks: list[int]) -> None:
    facts = origin(number, tuple(blocks))
    client = parse_rule(rule)(facts)
    assert client in {f"tenant-{tenant}" for tenant in range(5)}
    assert client == parse_rule(rule)(facts)


@given(st.integers(0, 2**64 - 1), st.lists(st.integers()), st.lists(st.integers()), st.integers(), st.integers())
def test_the_root_rule_looks_at_one_block_and_nothing_else(
    root: int, tail: list[int], other_tail: list[int], first: int, other_first: int
) -> None:
    rule = parse_rule("root:1000")
    assert rule(origin(1, (first, root, *tail))) == rule(origin(2, (other_first, root, *other_tail)))


def test_the_root_rule_counts_blocks_from_0_and_takes_the_last_of_a_shorter_prompt() -> None:
    by_third, by_first = parse_rule("root:1000:block2"), parse_rule("root:1000:block0")
    assert by_third(origin(blocks=(1, 2, 3, 4))) == by_first(origin(blocks=(3,)))
    assert by_third(origin(blocks=(1, 2))) == by_first(origin(blocks=(2,)))


@pytest.mark.parametrize(
    ("root", "digest"), [(7, 0xE75017CACE788F82), (8, 0xA3382767CBD236FA), (9, 0x8EBA7FDDFA15F905)]
)
def test_the_tenant_of_a_root_is_its_blake2b_digest_scaled_to_the_tenants(root: int, digest: int) -> None:
    # The digests are what `printf 7 | b2sum -l 64` prints: any other program can assign the same tenants.
    assert parse_rule("root:10")(origin(blocks=(0, root))) == f"tenant-{digest * 10 >> 64}"


@pytest.mark.parametrize(("rule", "exponent"), [("hash:8", 0.0), ("hash:8:zipf1.1", 1.1), ("root:8:zipf2", 2.0)])
def test_tenants_are_drawn_with_their_weights(rule: str, exponent: float) -> None:
    count = 20_000
    assign = parse_rule(rule)
    drawn = Counter(assign(origin(number, (0, number))) for number in range(count))
    weights = [(tenant + 1) ** -exponent for tenant in range(8)]
    for tenant, weight in enumerate(weights):
        share = weight / sum(weights)
        # Five standard deviations of a binomial: the hashes are fixed, so this holds always or never.
        assert abs(drawn[f"tenant-{tenant}"] - count * share) < 5 * (count * share * (1 - share)) ** 0.5


def test_round_robin_deals_in_turn() -> None:
    rule = parse_rule("roundrobin:3")
    clients = [rule(origin(number)) for number in range(7)]
    assert clients[:3] == ["tenant-0", "tenant-1", "tenant-2"]
    assert all(later != client for client, later in pairwise(clients))
    assert clients[3:6] == clients[:3]


def test_the_rules_that_read_a_fact_return_it() -> None:
    facts = Origin(0, "r0", (), {"adapter": "x", "user": 17, "client": "A"}, session="s1", chain="c1")
    rules = {"field:adapter": "x", "field:user": "17", "session": "s1", "chain": "c1", "one": "all", "own": "A"}
    assert {rule: parse_rule(rule)(facts) for rule in rules} == rules


def test_a_field_name_may_contain_blanks_and_colons() -> None:
    facts = Origin(0, "r0", (), {"Log Type": "API log", "a:b": "x"})
    assert (parse_rule("field:Log Type")(facts), parse_rule("field:a:b")(facts)) == ("API log", "x")


UNKNOWN_RULES = [
    "nobody",
    "root",
    "root:",
    "root:x",
    "root:8:",
    "root:8:zipf",
    "root:8:zipf-1",
    "root:8:zipfnan",
    "root:８",
    "ROOT:8",
    "hash",
    "hash:8:block1",
    "hash:8:zipf1:zipf1",
    "roundrobin",
    "roundrobin:3:zipf1",
    "field",
    "field:",
    "own:x",
    "one:1",
    "session:1",
    "chain:",
]


@pytest.mark.parametrize("rule", ["", *UNKNOWN_RULES])
def test_an_unknown_rule_is_refused_with_the_rules_that_exist(rule: str) -> None:
    message = refusal(rule)
    assert "roundrobin:N" in message
    assert repr(rule) in message


@pytest.mark.parametrize("rule", ["roundrobin:0", "hash:0", "root:0", "hash:1000001", "root:9999999"])
def test_an_absurd_number_of_tenants_is_refused(rule: str) -> None:
    assert "expected 1 to 1000000 tenants" in refusal(rule)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("root:8", "expected block hashes"),
        ("session", "expected a trace with sessions"),
        ("chain", "expected a trace with chains"),
        ("field:absent", "the record has user, note"),
        ("field:flag", "the record has"),
        ("field:list", "the record has"),
        ("field:nothing", "the record has"),
        ("field:empty", "the record has"),
        ("own", "in field 'client'"),
    ],
)
def test_a_record_without_what_the_rule_reads_is_refused(rule: str, expected: str) -> None:
    facts = Origin(0, "r0", (), {"user": 1, "note": "x", "empty": "", "list": [1], "nothing": None, "flag": True})
    message = refusal(rule, facts)
    assert expected in message
    assert not any(
        useless in message.partition("the record has")[2] for useless in ("empty", "list", "nothing", "flag")
    )
