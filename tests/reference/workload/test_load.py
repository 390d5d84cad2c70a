"""Traces in their original layouts, and the options of loading: `dlpm.workload.load`."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given

from dlpm.errors import InputError
from dlpm.request import Request, Workload
from dlpm.workload import Loaded, LoadOptions, load, load_described, read, write
from dlpm.workload.load import DEFAULTS
from tests.reference.workload import samples
from tests.reference.workload.strategies import workloads

EACH_SAMPLE = pytest.mark.parametrize("sample", samples.ALL, ids=lambda sample: sample.name)
FORMATS_WITHOUT_HASHES = {"azure", "burstgpt", "vtc-arena", "servegen"}


def described(folder: Path, text: str, trace_format: str = "auto", options: LoadOptions = DEFAULTS) -> Loaded:
    path = folder / "trace"
    path.write_text(text, encoding="utf-8", newline="")
    return load_described(path, trace_format, options)


def requests_of(folder: Path, text: str, options: LoadOptions = DEFAULTS) -> tuple[Request, ...]:
    return described(folder, text, options=options).workload.requests


def refusal(folder: Path, text: str, trace_format: str = "auto", options: LoadOptions = DEFAULTS) -> InputError:
    with pytest.raises(InputError) as raised:
        described(folder, text, trace_format, options)
    assert "\n" not in str(raised.value)
    return raised.value


def without_line(text: str, number: int) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[: number - 1] + lines[number:])


@EACH_SAMPLE
def test_each_format_is_read_as_its_rows_say(tmp_path: Path, sample: samples.Sample) -> None:
    loaded = described(tmp_path, sample.text, options=LoadOptions(clients=sample.clients))
    found = tuple(
        (request.id, request.client, request.arrival_us, request.input_tokens, request.output_tokens)
        for request in loaded.workload.requests
    )
    assert found == sample.expected
    assert (loaded.trace_format, loaded.clients) == (sample.trace_format, sample.clients)
    assert (loaded.dropped, loaded.raised) == (sample.dropped, sample.raised)


@EACH_SAMPLE
def test_naming_the_format_reads_the_same_as_detecting_it(tmp_path: Path, sample: samples.Sample) -> None:
    assert described(tmp_path, sample.text, sample.trace_format) == described(tmp_path, sample.text)


@EACH_SAMPLE
def test_a_loaded_trace_can_be_written_as_a_workload_file(tmp_path: Path, sample: samples.Sample) -> None:
    workload = described(tmp_path, sample.text, options=LoadOptions(clients=sample.clients)).workload
    write(tmp_path / "w.jsonl", workload)
    assert load(tmp_path / "w.jsonl") == workload


@EACH_SAMPLE
def test_prompts_without_known_prefixes_are_private(tmp_path: Path, sample: samples.Sample) -> None:
    workload = described(tmp_path, sample.text).workload
    hashes = [block for request in workload.requests for block in request.blocks]
    if sample.trace_format in FORMATS_WITHOUT_HASHES:
        assert len(set(hashes)) == len(hashes)
        assert all(len(request.blocks) == request.input_tokens // workload.block_size for request in workload.requests)
    else:
        assert len(set(hashes)) < len(hashes)


def test_mooncake_hashes_are_taken_as_they_are(tmp_path: Path) -> None:
    workload = described(tmp_path, samples.MOONCAKE.text).workload
    assert workload.block_size == 512
    assert [request.blocks for request in workload.requests] == [(0, 1, 2), (0, 3), (0, 1)]


def test_mooncake_clients_follow_the_second_block(tmp_path: Path) -> None:
    loaded = described(tmp_path, samples.MOONCAKE.text, options=LoadOptions(clients="root:1000"))
    first, second, third = (request.client for request in loaded.workload.requests)
    assert first == third != second


def test_hashes_of_two_sessions_are_never_the_same(tmp_path: Path) -> None:
    other = samples.CODING_AGENT.text.replace("trace_1", "trace_2")
    requests = requests_of(tmp_path, samples.CODING_AGENT.text + other)
    blocks = {
        name: {hash_ for r in requests if r.client == name for hash_ in r.blocks} for name in ("trace_1", "trace_2")
    }
    assert blocks["trace_1"].isdisjoint(blocks["trace_2"])
    first = next(request for request in requests if request.id == "trace_1/0")
    later = next(request for request in requests if request.id == "trace_1/2")
    assert later.blocks[:2] == first.blocks


def test_sessions_with_equally_long_system_prompts_share_them_only_if_that_is_assumed(tmp_path: Path) -> None:
    """Tools and system prompt are 128 tokens here, 2 blocks of 64; the third session's are one token longer."""
    text = samples.CODING_AGENT.text
    other = text.replace("trace_1", "trace_2").replace("[1, 2", "[5, 6")
    longer = text.replace("trace_1", "trace_3").replace('"system_tokens": 64', '"system_tokens": 65')
    apart = requests_of(tmp_path, text + other + longer)
    loaded = described(tmp_path, text + other + longer, options=LoadOptions(shared_system_prompts=True))
    assumed = {request.id: request.blocks for request in loaded.workload.requests}
    assert loaded.workload.name.endswith(", system prompts assumed shared")
    # The first session is what it was; the second one's tools and prompt are the first one's, all else is its own.
    before = {request.id: request.blocks for request in apart}
    assert {name: blocks for name, blocks in assumed.items() if "trace_2" not in name} == {
        name: blocks for name, blocks in before.items() if "trace_2" not in name
    }
    assert assumed["trace_2/0"] == assumed["trace_1/0"]
    assert assumed["trace_2/2"] == (*assumed["trace_1/0"], before["trace_2/2"][2])
    assert assumed["trace_2/1.1"] == before["trace_2/1.1"]


def test_shared_system_prompts_need_their_lengths_and_a_format_that_has_them(tmp_path: Path) -> None:
    options = LoadOptions(shared_system_prompts=True)
    without = samples.CODING_AGENT.text.replace('"tool_tokens": 64,', "")
    with pytest.raises(InputError, match="tool_tokens"):
        described(tmp_path, without, options=options)
    with pytest.raises(InputError, match="shared_system_prompts: expected a format that records system prompts"):
        described(tmp_path, samples.MOONCAKE.text, options=options)
    with pytest.raises(InputError, match="shared_system_prompts: expected a trace"):
        load_described("synthetic:tot", "auto", options)


def test_session_starts_are_drawn_from_the_seed(tmp_path: Path) -> None:
    text = "".join(samples.CODING_AGENT.text.replace("trace_1", f"s{number}") for number in range(20))
    first, again, other = (requests_of(tmp_path, text, LoadOptions(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert [request.arrival_us for request in first] != [request.arrival_us for request in other]
    together = requests_of(tmp_path, text, LoadOptions(session_gap_us=0))
    assert max(request.arrival_us for request in together) == 4_500_000


def test_in_a_closed_loop_a_turn_waits_for_its_parent(tmp_path: Path) -> None:
    requests = requests_of(tmp_path, samples.BAILIAN.text, LoadOptions(closed_loop=True))
    assert {request.id: request.parents for request in requests} == {"5": (), "6": (), "7": ("5",), "8": ("7",)}
    assert all(request.parents == () for request in requests_of(tmp_path, samples.BAILIAN.text))


def test_in_a_closed_loop_an_agent_waits_for_the_answer_before_and_then_thinks(tmp_path: Path) -> None:
    requests = requests_of(tmp_path, samples.CODING_AGENT.text, LoadOptions(closed_loop=True))
    waits = {request.id: (request.parents, request.think_us, request.arrival_us) for request in requests}
    assert waits == {
        "trace_1/0": ((), 0, 0),
        # Called 1 s after the first answer was complete (0 s + 2 s); no think time is recorded.
        "trace_1/1.0": (("trace_1/0",), 1_000_000, 0),
        "trace_1/2": (("trace_1/0",), 2_000_000, 0),
        "trace_1/1.1": (("trace_1/1.0",), 500_000, 0),
    }


@EACH_SAMPLE
@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(2), Fraction("0.3"), Fraction(1, 3)])
def test_scaling_multiplies_every_arrival_exactly(tmp_path: Path, sample: samples.Sample, scale: Fraction) -> None:
    plain = requests_of(tmp_path, sample.text)
    scaled = requests_of(tmp_path, sample.text, LoadOptions(scale=scale))
    for before, after in zip(plain, scaled, strict=True):
        assert abs(after.arrival_us - before.arrival_us * scale) <= Fraction(1, 2)
        assert replace(after, arrival_us=before.arrival_us) == before


@EACH_SAMPLE
def test_a_limit_keeps_the_first_requests(tmp_path: Path, sample: samples.Sample) -> None:
    options = LoadOptions(clients=sample.clients)
    whole = requests_of(tmp_path, sample.text, options)
    for limit in range(1, len(whole) + 2):
        assert requests_of(tmp_path, sample.text, replace(options, limit=limit)) == whole[:limit]


def test_a_limit_stops_reading(tmp_path: Path) -> None:
    text = samples.MOONCAKE.text + "this line is broken\n"
    assert len(requests_of(tmp_path, text, LoadOptions(limit=3))) == 3
    assert refusal(tmp_path, text).line == 4


def test_a_declared_limit_is_raised_but_never_lowered(tmp_path: Path) -> None:
    requests = requests_of(tmp_path, samples.MOONCAKE.text, LoadOptions(max_output=10))
    assert [(request.output_tokens, request.max_output) for request in requests] == [(7, 10), (1, 10), (20, 20)]


def test_the_block_size_of_private_prompts_can_be_chosen(tmp_path: Path) -> None:
    workload = described(tmp_path, samples.AZURE.text, options=LoadOptions(block_size=8)).workload
    assert workload.block_size == 8
    assert [len(request.blocks) for request in workload.requests] == [100 // 8, 40 // 8, 16 // 8]


@pytest.mark.parametrize("sample", [samples.MOONCAKE, samples.BAILIAN, samples.CODING_AGENT], ids=lambda s: s.name)
def test_the_block_size_of_hashes_cannot_be_changed(tmp_path: Path, sample: samples.Sample) -> None:
    size = described(tmp_path, sample.text).workload.block_size
    assert requests_of(tmp_path, sample.text, LoadOptions(block_size=size)) == requests_of(tmp_path, sample.text)
    assert refusal(tmp_path, sample.text, options=LoadOptions(block_size=size + 1)).field == "block_size"


@given(workloads())
def test_a_workload_file_loads_as_it_reads(tmp_path_factory: pytest.TempPathFactory, workload: Workload) -> None:
    path = tmp_path_factory.mktemp("load") / "w.jsonl"
    write(path, workload)
    assert load(path) == read(path) == workload


def test_clients_of_a_workload_file_can_be_reassigned_by_an_extra_field(tmp_path: Path) -> None:
    header = '{"schema": "dlpm.workload/1", "block_size": 1}\n'
    line = '{"id": "%s", "client": "A", "arrival": 0, "prompt": [1], "output": 1, "team": "%s"}\n'
    text = header + line % ("a", "red") + line % ("b", "blue")
    by_team = described(tmp_path, text, options=LoadOptions(clients="field:team"))
    assert [request.client for request in by_team.workload.requests] == ["red", "blue"]
    assert [request.client for request in requests_of(tmp_path, text, LoadOptions(clients="own"))] == ["A", "A"]


@EACH_SAMPLE
def test_a_file_that_ends_behind_its_header_is_refused(tmp_path: Path, sample: samples.Sample) -> None:
    header = sample.text.splitlines()[0] + "\n" if sample.trace_format in {"azure", "burstgpt"} else "\n"
    assert refusal(tmp_path, header, sample.trace_format).expected == "expected at least one request"


def test_a_trace_of_failed_requests_only_is_empty(tmp_path: Path) -> None:
    text = without_line(without_line(samples.BURSTGPT_1.text, 4), 2)
    assert refusal(tmp_path, text).expected == "expected at least one request"


@EACH_SAMPLE
def test_a_line_of_garbage_is_refused_at_its_line(tmp_path: Path, sample: samples.Sample) -> None:
    lines = sample.text.splitlines()
    assert refusal(tmp_path, "\n".join([*lines, "garbage"])).line == len(lines) + 1


WRONG = [
    (samples.MOONCAKE, '"timestamp": 6001', '"timestamp": -1', 3, "timestamp"),
    (samples.MOONCAKE, '"timestamp": 6001', '"timestamp": "6001"', 3, "timestamp"),
    (samples.MOONCAKE, '"timestamp": 6001', '"timestamp": NaN', 3, None),
    (samples.MOONCAKE, '"input_length": 600', '"input_length": 0', 3, "input_length"),
    (samples.MOONCAKE, '"input_length": 600', '"input_length": 2000', 3, "hash_ids"),
    (samples.MOONCAKE, '"input_length": 600', '"input": 600', 3, "input_length"),
    (samples.MOONCAKE, '"output_length": 20', '"output_length": 1e3', 3, "output_length"),
    (samples.MOONCAKE, '"output_length": 20', '"output_length": 1180591620717411303424', 3, "output_length"),
    (samples.MOONCAKE, '20, "hash_ids": [0, 1]', '20, "hash_ids": [0, "1"]', 3, "hash_ids[1]"),
    (samples.BAILIAN, '"chat_id": 8', '"chat_id": 5', 4, "chat_id"),
    (samples.BAILIAN, '"chat_id": 8', '"chat_id": [8]', 4, "chat_id"),
    (samples.BAILIAN, '"timestamp": 9.25', '"timestamp": 4294967296.5', 4, "timestamp"),
    (samples.BAILIAN, '"parent_chat_id": 7', '"parent_chat_id": 8', 4, "parent_chat_id"),
    (samples.BAILIAN, '"parent_chat_id": 7', '"parent_chat_id": null', 4, "parent_chat_id"),
    (samples.BAILIAN, '"hash_ids": [20]', '"hash_ids": [20, 21]', 2, "hash_ids"),
    (samples.AZURE, "2023-11-17 00:00:01", "2023-11-31 00:00:01", 4, "TIMESTAMP"),
    (samples.AZURE, "2023-11-17 00:00:01", "17.11.2023 00:00:01", 4, "TIMESTAMP"),
    (samples.AZURE, "01,16,7", "01,16", 4, None),
    (samples.AZURE, "01,16,7", "01,16,7,8", 4, None),
    (samples.AZURE, "01,16,7", "01,,7", 4, "ContextTokens"),
    (samples.AZURE, "01,16,7", "01,0,7", 4, "ContextTokens"),
    (samples.AZURE, "01,16,7", "01,-16,7", 4, "ContextTokens"),
    (samples.AZURE, "01,16,7", "01,1_6,7", 4, "ContextTokens"),
    (samples.AZURE, "01,16,7", "01,16,99999999999", 4, "GeneratedTokens"),
    (samples.AZURE, "01,16,7", '01,"16,7', 4, None),
    (samples.AZURE, "TIMESTAMP,", "ContextTokens,TIMESTAMP,", 1, None),
    (samples.BURSTGPT_1, "118,", "-118,", 4, "Timestamp"),
    (samples.BURSTGPT_1, "118,", "inf,", 4, "Timestamp"),
    (samples.BURSTGPT_1, "417,", "417.5,", 4, "Request tokens"),
    (samples.VTC_ARENA, '"req_id": 1', '"req_id": 0', 2, "req_id"),
    (samples.VTC_ARENA, '"prompt_len": 36', '"prompt_len": true', 2, "prompt_len"),
    (samples.VTC_ARENA, '"req_time": 0.2', '"req_time": -0.2', 2, "req_time"),
    (samples.VTC_ARENA, '"adapter_dir": "lora-2"', '"adapter_dir": null', 2, "clients"),
    (samples.SERVEGEN_DRAWN, '"input_tokens": 8', '"input_tokens": 0', 2, "input_tokens"),
    (samples.CODING_AGENT, '"block_size": 64', '"block_size": 16', 1, "block_size"),
    (samples.CODING_AGENT, '"requests": [{', '"requests": 7, "x": [{', 1, "requests"),
    (samples.CODING_AGENT, '"requests": [{', '"requests": [7, {', 1, "requests[0]"),
    (samples.CODING_AGENT, '"t": 4.0', '"t": 2.0', 1, "requests[2].t"),
    (samples.CODING_AGENT, '"type": "s"', '"type": "x"', 1, "requests[1].requests[0].type"),
    (samples.CODING_AGENT, '"in": 128', '"in": 300', 1, "requests[1].requests[1].hash_ids"),
    (samples.CODING_AGENT, '"hash_ids": [7]', '"hash_ids": [4294967296]', 1, "requests[1].requests[0].hash_ids[0]"),
]


@pytest.mark.parametrize(("sample", "good", "bad", "line", "field"), WRONG)
def test_a_wrong_record_is_refused_at_its_line_and_field(
    tmp_path: Path, sample: samples.Sample, good: str, bad: str, line: int, field: str | None
) -> None:
    assert good in sample.text
    options = LoadOptions(clients=sample.clients)
    error = refusal(tmp_path, sample.text.replace(good, bad), sample.trace_format, options)
    assert (error.source, error.line, error.field) == (str(tmp_path / "trace"), line, field)


def test_a_session_that_comes_twice_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, samples.CODING_AGENT.text * 2)
    assert (error.line, error.field) == (2, "id")


def test_sub_agents_nested_without_end_are_refused(tmp_path: Path) -> None:
    inner = '{"t": 0, "type": "subagent", "requests": ['
    text = '{"id": "s", "block_size": 64, "requests": [' + inner * 40 + "]}" * 40 + "]}\n"
    assert "levels of sub-agents" in refusal(tmp_path, text).expected


@pytest.mark.parametrize("column", ["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    text = samples.AZURE.text.replace(column, "Other", 1)
    assert refusal(tmp_path, text, "azure").expected == f"expected a column '{column}' in the header"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (LoadOptions(limit=0), "limit"),
        (LoadOptions(block_size=0), "block_size"),
        (LoadOptions(block_size=2**40), "block_size"),
        (LoadOptions(max_output=0), "max_output"),
        (LoadOptions(scale=Fraction(0)), "scale"),
        (LoadOptions(scale=Fraction(-1)), "scale"),
        (LoadOptions(scale=Fraction(10**7)), "scale"),
        (LoadOptions(session_gap_us=-1), "session_gap"),
        (LoadOptions(window=(600, 600)), "window"),
        (LoadOptions(window=(-600, 0)), "window"),
        (LoadOptions(clients="nobody"), "clients"),
        (LoadOptions(clients="session"), "clients"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(tmp_path: Path, options: LoadOptions, field: str) -> None:
    assert refusal(tmp_path, samples.MOONCAKE.text, options=options).field == field


def test_times_that_scaling_makes_absurd_are_refused(tmp_path: Path) -> None:
    text = samples.MOONCAKE.text.replace('"timestamp": 6001', '"timestamp": 6000001')
    assert refusal(tmp_path, text, options=LoadOptions(scale=Fraction(10**6))).field == "scale"


@pytest.mark.parametrize("options", [LoadOptions(closed_loop=True), LoadOptions(window=(0, 600))])
def test_an_option_that_a_format_cannot_follow_is_refused(tmp_path: Path, options: LoadOptions) -> None:
    assert "found mooncake" in refusal(tmp_path, samples.MOONCAKE.text, options=options).expected
    header = '{"schema": "dlpm.workload/1", "block_size": 1}\n'
    assert "complete workload" in refusal(tmp_path, header, options=options).expected


def test_an_unknown_format_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    error = refusal(tmp_path, samples.MOONCAKE.text, "mooncakes")
    assert error.field == "format"
    assert "auto, dlpm, mooncake, bailian, azure, burstgpt, vtc-arena, coding-agent, servegen" in error.expected


@EACH_SAMPLE
def test_a_file_in_another_format_than_the_one_named_is_refused(tmp_path: Path, sample: samples.Sample) -> None:
    wrong = "vtc-arena" if sample.trace_format != "vtc-arena" else "mooncake"
    assert refusal(tmp_path, sample.text, wrong).line == 1
