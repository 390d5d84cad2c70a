"""The paper's four workloads, generated: `dlpm.workload.synthetic`."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.request import Request, Workload, sequence_blocks
from dlpm.workload import LoadOptions, Spec, generate, load_described, parse_spec
from dlpm.workload.synthetic import ALIASES, RECIPES, client_names

NAMES = st.sampled_from(sorted(RECIPES))
TABLE_2 = {
    "long-document-qa": (21449, 15),
    "tree-of-thoughts": (546, 256),
    "llm-as-a-judge": (2701, 256),
    "multi-turn-chat": (56, 142),
}


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    name = draw(NAMES)
    scenarios = ["even", "s1"] if name == "multi-turn-chat" else ["even", "s1", "s2"]
    return Spec(
        name=name,
        scenario=draw(st.sampled_from(scenarios)),
        clients=draw(st.integers(2, 3)),
        programs=draw(st.integers(1, 2)),
        seed=draw(st.integers(0, 10**6)),
        arrival_cv=draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        spread=draw(st.sampled_from([0.0, 0.3, 1.0])),
        block_size=draw(st.sampled_from([1, 16, 100])),
    )


def programs_of(workload: Workload) -> dict[str, list[Request]]:
    """The calls of each program, which is named before the last dot."""
    programs: dict[str, list[Request]] = defaultdict(list)
    for request in workload.requests:
        programs[request.id.rpartition(".")[0]].append(request)
    return programs


def by_client(workload: Workload, client: str) -> list[Request]:
    return [request for request in workload.requests if request.client == client]


def shared_prefix(calls: list[Request], block_size: int) -> float:
    """Tokens of the prompt that all calls of a program share, to the middle of a block."""
    depth = 0
    while all(len(call.blocks) > depth for call in calls) and len({call.blocks[depth] for call in calls}) == 1:
        depth += 1
    return (depth + 0.5) * block_size


@given(specs())
def test_a_generated_workload_keeps_the_rules_of_the_format(spec: Spec) -> None:
    workload = generate(spec)
    earlier: set[str] = set()
    arrivals = [request.arrival_us for request in workload.requests]
    assert arrivals == sorted(arrivals)
    for request in workload.requests:
        assert request.id not in earlier
        assert earlier.issuperset(request.parents)
        assert 1 <= request.output_tokens <= request.max_output
        assert len(request.blocks) == request.input_tokens // spec.block_size
        total = request.input_tokens + request.output_tokens
        assert len(request.blocks) + len(request.reply_blocks) == total // spec.block_size
        earlier.add(request.id)


@given(specs())
def test_the_same_specification_gives_the_same_workload_and_another_seed_another(spec: Spec) -> None:
    assert generate(spec) == generate(spec)
    if spec.spread > 0:
        assert generate(spec).requests != generate(replace(spec, seed=spec.seed + 1)).requests


@given(specs())
def test_clients_are_named_after_how_they_behave(spec: Spec) -> None:
    clients = {request.client for request in generate(spec).requests}
    well = {f"well-{number}" for number in range(spec.clients - (spec.scenario != "even"))}
    assert clients == (well if spec.scenario == "even" else well | {"heavy-0"}) == set(client_names(spec))


@given(specs())
def test_well_behaved_clients_send_the_same_in_every_scenario(spec: Spec) -> None:
    assert by_client(generate(spec), "well-0") == by_client(generate(replace(spec, scenario="even")), "well-0")


@given(specs())
def test_programs_share_no_block(spec: Spec) -> None:
    owner: dict[int, str] = {}
    for program, calls in programs_of(generate(spec)).items():
        for call in calls:
            assert all(owner.setdefault(block, program) == program for block in call.blocks + call.reply_blocks)


def many_programs(name: str, scenario: str = "even", clients: int = 4) -> Workload:
    """Enough programs for averages."""
    programs = 120 if name == "multi-turn-chat" else 60
    return generate(Spec(name=name, programs=programs, seed=7, scenario=scenario, clients=clients))


@pytest.mark.parametrize("name", TABLE_2)
def test_even_workloads_have_the_averages_of_table_2(name: str) -> None:
    workload = many_programs(name)
    prefix, output = TABLE_2[name]
    outputs = [request.output_tokens for request in workload.requests]
    assert mean(outputs) == pytest.approx(output, rel=0.05)
    programs = programs_of(workload)
    if name == "multi-turn-chat":
        # The messages: what a prompt has beyond the turn before and its reply.
        ends = {request.id: request.input_tokens + request.output_tokens for request in workload.requests}
        found = [r.input_tokens - sum(ends[parent] for parent in r.parents) for r in workload.requests]
    elif name == "tree-of-thoughts":
        found = [call.input_tokens for calls in programs.values() for call in calls if not call.parents]
    else:
        prefixes = [shared_prefix(calls, workload.block_size) for calls in programs.values()]
        assert mean(prefixes) == pytest.approx(prefix, rel=0.05)
        return
    assert mean(found) == pytest.approx(prefix, rel=0.05)


def test_a_tree_of_thoughts_has_30_or_340_calls_in_4_levels() -> None:
    for branches, size in ((2, 30), (4, 340)):
        (calls,) = programs_of(generate(Spec(name="tot", clients=1, programs=1, width=branches))).values()
        assert len(calls) == size
        level: dict[str, int] = {}
        for call in calls:
            level[call.id] = 1 + max((level[parent] for parent in call.parents), default=0)
        assert Counter(level.values()) == {depth: branches**depth for depth in (1, 2, 3, 4)}
        children = Counter(parent for call in calls for parent in call.parents)
        assert set(children.values()) == {branches}


@pytest.mark.parametrize("block_size", [1, 16, 50])
@pytest.mark.parametrize("name", ["tree-of-thoughts", "multi-turn-chat"])
def test_a_dependent_prompt_continues_its_parents_prompt_and_reply(name: str, block_size: int) -> None:
    workload = generate(Spec(name=name, programs=2, width=3, block_size=block_size))
    known = {request.id: request for request in workload.requests}
    dependent = [request for request in workload.requests if request.parents]
    assert dependent
    for request in dependent:
        (parent_id,) = request.parents
        parent = known[parent_id]
        kept = sequence_blocks(parent, block_size)
        assert request.blocks[: len(kept)] == kept
        spoken = parent.input_tokens + parent.output_tokens
        assert len(kept) == spoken // block_size
        if name == "tree-of-thoughts":
            assert request.input_tokens == spoken
        else:
            assert request.input_tokens > spoken


def test_siblings_in_a_tree_have_the_same_prompt_and_different_replies() -> None:
    (calls,) = programs_of(generate(Spec(name="tot", clients=1, programs=1))).values()
    families: dict[tuple[str, ...], list[Request]] = defaultdict(list)
    for call in calls:
        families[call.parents].append(call)
    for family in families.values():
        assert len({call.blocks for call in family}) == 1
        replies = [block for call in family for block in call.reply_blocks]
        assert len(set(replies)) == len(replies)


def test_a_judge_summarizes_after_all_dimensions() -> None:
    (calls,) = programs_of(generate(Spec(name="judge", clients=1, programs=1, width=5))).values()
    *judges, summary = calls
    assert len(judges) == 5
    assert all(judge.parents == () for judge in judges)
    assert summary.parents == tuple(judge.id for judge in judges)
    article = min(judge.input_tokens for judge in judges)
    assert summary.input_tokens > article - 100 + sum(judge.output_tokens for judge in judges)


def test_questions_on_a_document_depend_on_nothing_and_share_it() -> None:
    (calls,) = programs_of(generate(Spec(name="qa", clients=1, programs=1, width=4))).values()
    assert len(calls) == 4
    assert all(call.parents == () for call in calls)
    assert shared_prefix(calls, 16) > min(call.input_tokens for call in calls) - 200


def test_turns_of_a_chat_follow_each_other_after_thinking() -> None:
    workload = generate(Spec(name="chat", clients=1, programs=400, width=3, think=7.0))
    thinks = []
    for calls in programs_of(workload).values():
        assert calls[0].parents == ()
        assert calls[0].think_us == 0
        for before, after in pairwise(calls):
            assert after.parents == (before.id,)
            thinks.append(after.think_us / 1e6)
    lengths = Counter(len(calls) for calls in programs_of(workload).values())
    assert set(lengths) == {1, 2, 3, 4, 5}
    assert mean(thinks) == pytest.approx(7.0, rel=0.15)


def ratio(name: str, scenario: str, measure: str) -> float:
    """A measure of the misbehaving client over that of a well-behaved one."""
    workload = many_programs(name, scenario, clients=2)
    heavy, well = by_client(workload, "heavy-0"), by_client(workload, "well-0")
    if measure == "calls":
        return len(heavy) / len(well)
    if measure == "rate":
        return (len(heavy) / heavy[-1].arrival_us) / (len(well) / well[-1].arrival_us)
    starts = [[call.input_tokens for call in calls if not call.parents] for calls in (heavy, well)]
    return mean(starts[0]) / mean(starts[1])


def test_misbehaviour_s1_is_that_of_table_3() -> None:
    assert ratio("long-document-qa", "s1", "calls") == 4
    assert ratio("long-document-qa", "s1", "rate") == pytest.approx(4, rel=0.35)
    assert ratio("tree-of-thoughts", "s1", "calls") == 340 / 30
    assert ratio("tree-of-thoughts", "s1", "rate") == pytest.approx(340 / 30, rel=0.35)
    assert ratio("llm-as-a-judge", "s1", "calls") == 17 / 3


def test_misbehaviour_s2_is_that_of_table_3() -> None:
    assert ratio("long-document-qa", "s2", "input") == pytest.approx(2, rel=0.1)
    assert ratio("tree-of-thoughts", "s2", "input") == pytest.approx(10, rel=0.1)
    article, instruction = TABLE_2["llm-as-a-judge"][0], 32
    expected = (article + instruction + 600) / (article + instruction)
    assert ratio("llm-as-a-judge", "s2", "input") == pytest.approx(expected, rel=0.1)
    for name in ("long-document-qa", "tree-of-thoughts", "llm-as-a-judge"):
        assert ratio(name, "s2", "calls") == 1


@pytest.mark.parametrize(
    ("variation", "low", "high"), [(0.0, 0.0, 0.001), (0.5, 0.4, 0.6), (1.0, 0.85, 1.15), (3.0, 2.2, 3.8)]
)
def test_programs_arrive_with_the_rate_and_variation_that_are_asked_for(
    variation: float, low: float, high: float
) -> None:
    spec = Spec(name="chat", clients=1, programs=1500, width=1, rate=5.0, arrival_cv=variation, seed=3)
    times = [0.0] + [calls[0].arrival_us / 1e6 for calls in programs_of(generate(spec)).values()]
    gaps = [after - before for before, after in pairwise(times)]
    assert mean(gaps) == pytest.approx(0.2, rel=0.25)
    assert low <= stdev(gaps) / mean(gaps) <= high


def test_a_specification_is_read_from_text() -> None:
    text = "synthetic:tot:s1:clients=3:programs=40:rate=0.5:seed=9:arrival_cv=2:spread=0"
    assert parse_spec(f"{text}:width=3:heavy_width=5:block_size=8") == Spec(
        name="tot",
        scenario="s1",
        clients=3,
        programs=40,
        rate=0.5,
        seed=9,
        arrival_cv=2.0,
        spread=0.0,
        width=3,
        heavy_width=5,
        block_size=8,
    )
    assert parse_spec("synthetic:chat:think=2.5:factor=3") == Spec(name="chat", think=2.5, factor=3)


def test_a_seed_and_a_block_size_from_elsewhere_yield_to_the_text() -> None:
    assert parse_spec("synthetic:qa", seed=4, block_size=32) == Spec(name="qa", seed=4, block_size=32)
    assert parse_spec("synthetic:qa:seed=1:block_size=2", seed=4, block_size=32) == Spec(
        name="qa", seed=1, block_size=2
    )


def test_an_alias_generates_what_its_name_does() -> None:
    for alias, name in ALIASES.items():
        assert generate(Spec(name=alias, programs=1)) == generate(Spec(name=name, programs=1))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("synthetic", None),
        ("synthetic:clients=4", None),
        ("synthetic:poetry", "synthetic"),
        ("synthetic:qa:s3", "scenario"),
        ("synthetic:chat:s2", "scenario"),
        ("synthetic:qa:s1:clients=1", "clients"),
        ("synthetic:qa:clients=0", "clients"),
        ("synthetic:qa:clients=x", "clients"),
        ("synthetic:qa:clients=1e3", "clients"),
        ("synthetic:qa:clients=2:clients=3", "clients"),
        ("synthetic:qa:programs=-1", "programs"),
        ("synthetic:qa:programs=99999999", "programs"),
        ("synthetic:qa:rate=0", "rate"),
        ("synthetic:qa:rate=nan", "rate"),
        ("synthetic:qa:rate=inf", "rate"),
        ("synthetic:qa:spread=11", "spread"),
        ("synthetic:qa:width=65", "width"),
        ("synthetic:qa:s1:heavy_width=3", "heavy_width"),
        ("synthetic:qa:block_size=0", "block_size"),
        ("synthetic:qa:factor=0", "factor"),
        ("synthetic:qa:colour=red", None),
        ("synthetic:qa:even:s1", None),
        ("synthetic:qa:", "scenario"),
    ],
)
def test_a_wrong_specification_is_refused_by_its_field(text: str, field: str | None) -> None:
    with pytest.raises(InputError) as raised:
        parse_spec(text)
    assert raised.value.field == field


def test_a_specification_loads_as_a_workload_in_each_way_to_name_it() -> None:
    expected = generate(Spec(name="tot", scenario="s1", programs=2, seed=5))
    options = LoadOptions(seed=5)
    for source, trace_format in (
        ("synthetic:tot:s1:programs=2", "auto"),
        ("synthetic:tot:s1:programs=2", "synthetic"),
        ("s1:programs=2", "synthetic:tot"),
    ):
        loaded = load_described(source, trace_format, options)
        assert loaded.workload == expected
        assert (loaded.trace_format, loaded.clients) == ("synthetic", "own")
    assert load_described("-", "synthetic:qa").workload == load_described("", "synthetic:qa").workload


def test_a_limit_of_a_synthetic_workload_keeps_parents() -> None:
    workload = load_described("synthetic:tot:programs=1", "auto", LoadOptions(limit=17)).workload
    known = {request.id for request in workload.requests}
    assert len(known) == 17
    assert all(known.issuperset(request.parents) for request in workload.requests)


def test_an_option_for_traces_is_refused_for_a_synthetic_workload() -> None:
    for options in (LoadOptions(closed_loop=True), LoadOptions(window=(0, 600))):
        with pytest.raises(InputError, match="complete workload"):
            load_described("synthetic:qa", "auto", options)
