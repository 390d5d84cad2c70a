"""The loaders against the public traces themselves, and what is known of those."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import pytest

from dlpm.request import Workload, cacheable_blocks
from dlpm.workload import LoadOptions, load, load_described

pytestmark = pytest.mark.traces


def ideal_hit_rate(workload: Workload) -> float:
    """The share of prompt blocks that an infinite cache has when their request arrives."""
    seen: set[int] = set()
    hits = total = 0
    for request in workload.requests:
        total += len(request.blocks)
        hits += sum(block in seen for block in request.blocks)
        seen.update(request.blocks)
    return hits / total


def test_the_mooncake_trace_is_what_its_description_says(traces: Path) -> None:
    loaded = load_described(traces / "mooncake" / "conversation_trace.jsonl.gz")
    requests = loaded.workload.requests
    assert (loaded.trace_format, loaded.clients, loaded.workload.block_size) == ("mooncake", "root:8:zipf1.1", 512)
    assert len(requests) == 12_031
    assert round(requests[-1].arrival_us / 1e6) == 3_537
    assert round(mean(r.input_tokens for r in requests)) == 12_035
    assert round(mean(r.output_tokens for r in requests)) == 343
    assert median(r.output_tokens for r in requests) == 350
    assert all(len(r.blocks) == -(-r.input_tokens // 512) for r in requests)
    assert max(Counter(r.arrival_us for r in requests).values()) == 28
    roots = Counter(r.blocks[1] for r in requests)
    assert (len(roots), sum(count > 1 for count in roots.values()), max(roots.values())) == (7_373, 2_259, 43)
    assert {r.blocks[0] for r in requests} == {0}
    assert round(ideal_hit_rate(loaded.workload), 3) == 0.366
    # Equal hashes mean equal whole prefixes: each hash has one predecessor only.
    before: dict[int, int] = {}
    for request in requests:
        for above, block in zip((-1, *request.blocks), request.blocks, strict=False):
            assert before.setdefault(block, above) == above


def test_the_sessions_of_the_mooncake_trace_are_dealt_to_tenants_by_zipf_weights(traces: Path) -> None:
    requests = load(traces / "mooncake" / "conversation_trace.jsonl.gz").requests
    tenant_of_root = {(r.blocks[1], r.client) for r in requests}
    assert len(tenant_of_root) == 7_373, "a session has one tenant"
    roots = Counter(client for _, client in tenant_of_root)
    weights = [(tenant + 1) ** -1.1 for tenant in range(8)]
    for tenant, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(roots[f"tenant-{tenant}"] - 7_373 * share) < 5 * (7_373 * share * (1 - share)) ** 0.5


def test_a_sample_of_a_trace_is_its_beginning(traces: Path) -> None:
    for folder, name in (
        ("mooncake", "conversation_trace.{}jsonl.gz"),
        ("azure2023", "AzureLLMInferenceTrace_conv.{}csv.gz"),
    ):
        whole = load(traces / folder / name.format(""), "auto", LoadOptions(limit=2000))
        sample = load(traces / folder / name.format("sample2000."))
        assert sample.requests == whole.requests
        assert len(sample.requests) == 2000


def test_the_azure_trace_is_what_its_description_says(traces: Path) -> None:
    loaded = load_described(traces / "azure2023" / "AzureLLMInferenceTrace_conv.csv.gz")
    requests = loaded.workload.requests
    # The file has 19,366 line ends, one of them behind the header, and none at its end.
    assert (loaded.trace_format, len(requests)) == ("azure", 19_366)
    assert (requests[0].input_tokens, requests[0].output_tokens) == (374, 44)
    assert (requests[-1].input_tokens, requests[-1].output_tokens) == (197, 183)
    # From 18:15:46.6805900 to 19:14:08.4025270.
    assert requests[-1].arrival_us == (58 * 60 + 21) * 1_000_000 + 721_937
    assert requests[1].arrival_us == 4_314_579


def test_the_vtc_arena_trace_has_27_natural_clients(traces: Path) -> None:
    loaded = load_described(traces / "vtc_arena" / "real_trace.jsonl.gz")
    requests = loaded.workload.requests
    clients = Counter(r.client for r in requests)
    assert (loaded.trace_format, loaded.clients) == ("vtc-arena", "field:adapter_dir")
    assert (len(requests), len(clients), requests[-1].arrival_us) == (1_500, 27, 600_000_000)
    assert [round(count / 15) for _, count in clients.most_common(3)] == [20, 17, 13]


def test_the_coding_agent_sessions_are_what_their_description_says(traces: Path) -> None:
    path = traces / "weka_cc" / "cc_traces.sample.jsonl.gz"
    loaded = load_described(path)
    requests = loaded.workload.requests
    assert (loaded.trace_format, loaded.clients, loaded.workload.block_size) == ("coding-agent", "session", 64)
    assert (len(requests), len({r.client for r in requests}), loaded.raised) == (2_008, 84, 1)
    assert sum("." in r.id.partition("/")[2] for r in requests) == 158
    assert all(len(r.blocks) == r.input_tokens // 64 for r in requests)
    before: dict[int, int] = {}
    for request in requests:
        for above, block in zip((-1, *request.blocks), request.blocks, strict=False):
            assert before.setdefault(block, above) == above
    assumed = load(path, "auto", LoadOptions(shared_system_prompts=True)).requests
    # Still a forest of prefixes, of fewer blocks: 28 of the 84 sessions have the lengths of an earlier one.
    above_of: dict[int, int] = {}
    for request in assumed:
        for above, block in zip((-1, *request.blocks), request.blocks, strict=False):
            assert above_of.setdefault(block, above) == above
    assert len({r.blocks[0] for r in assumed}) < len({r.blocks[0] for r in requests})
    assert len(above_of) < len(before)
    closed = load(path, "auto", LoadOptions(closed_loop=True))
    assert sum(not r.parents for r in closed.requests) == 84
    earlier: set[str] = set()
    for request in closed.requests:
        assert earlier.issuperset(request.parents)
        earlier.add(request.id)
    assert {r.id: r.blocks for r in closed.requests} == {r.id: r.blocks for r in requests}


def test_the_drawn_servegen_requests_have_27_clients(traces: Path) -> None:
    loaded = load_described(traces / "servegen" / "DERIVED_deepseek-r1_busiest600s.jsonl.gz")
    requests = loaded.workload.requests
    assert (loaded.trace_format, loaded.clients) == ("servegen", "field:client_id")
    assert (len(requests), len({r.client for r in requests})) == (26_050, 27)
    assert all(cacheable_blocks(r, 16) == r.blocks for r in requests)


def test_drawing_from_the_servegen_parameters_gives_the_skew_of_the_drawn_file(traces: Path) -> None:
    drawn = load(traces / "servegen" / "DERIVED_deepseek-r1_busiest600s.jsonl.gz")
    options = LoadOptions(window=(79_800, 80_400), seed=1)
    ours = load(traces / "servegen" / "deepseek-r1.top8.tar.gz", "servegen", options)
    theirs_count = Counter(r.client for r in drawn.requests)
    ours_count = Counter(r.client for r in ours.requests)
    # Of the eight clients in the archive, two are idle in this window. Two draws of the same process: five standard
    # deviations of their difference, with the variation of intervals that the parameters state (at most 4 where it is
    # large enough to compare).
    assert set(ours_count) == {"12", "13", "30", "35", "54", "66"}
    for client, variation in (("12", 1.0), ("13", 1.5), ("30", 1.2), ("54", 3.6)):
        spread = 5 * variation * (2 * theirs_count[client]) ** 0.5
        assert abs(ours_count[client] - theirs_count[client]) < spread
    for client in ("12", "13"):
        ours_mean = mean(r.input_tokens for r in ours.requests if r.client == client)
        theirs_mean = mean(r.input_tokens for r in drawn.requests if r.client == client)
        assert ours_mean == pytest.approx(theirs_mean, rel=0.05)


def test_scaling_a_real_trace_keeps_its_order_and_its_requests(traces: Path) -> None:
    path = traces / "vtc_arena" / "real_trace.jsonl.gz"
    plain, fast = load(path), load(path, "auto", LoadOptions(scale=LoadOptions().scale / 8))
    assert [replace(r, arrival_us=0) for r in fast.requests] == [replace(r, arrival_us=0) for r in plain.requests]
    assert fast.requests[-1].arrival_us == 75_000_000
