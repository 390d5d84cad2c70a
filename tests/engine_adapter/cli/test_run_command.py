"""What `dlpm run` prints and writes, as a user sees it."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.engine_adapter.cli.command_line import SMALL, CommandLine

CROWDED = ["synthetic:llm-as-a-judge:s1:programs=4:rate=20:block_size=64", "--kv-tokens", "40000"]
"""Small memory, so that requests wait and policies differ."""


def results(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def events(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            yield json.loads(line)


def test_without_options_the_four_policies_run_side_by_side(dlpm: CommandLine) -> None:
    outcome = dlpm("run", *CROWDED)
    assert outcome.code == 0
    assert outcome.err == ""
    for sheet in ("Speed", "Fairness", "Service per client, in weighted tokens"):
        rows = outcome.out.split(f"{sheet}\n")[1].split("\n\n")[0].splitlines()
        assert [row.split("  ")[0] for row in rows[-4:]] == ["fcfs", "lpm", "vtc", "dlpm Q=2000"]


def test_output_that_goes_to_a_pipe_is_plain_text(dlpm: CommandLine) -> None:
    outcome = dlpm("run", *CROWDED)
    assert not re.search(r"[\x1b\u2500-\u257f]", outcome.out)
    assert max(len(line) for line in outcome.out.splitlines() if "Q=2000" in line) <= 100


def test_each_quantum_is_a_run_of_its_own(dlpm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    arguments: list[str | Path] = [
        "--policy",
        "lpm",
        "--policy",
        "dlpm",
        "--quantum",
        "500",
        "--quantum",
        "8000",
        "--json",
        file,
    ]
    assert dlpm("run", *CROWDED, *arguments).code == 0
    assert [(run["policy"], run["quantum"]) for run in results(file)["runs"]] == [
        ("lpm", None),
        ("dlpm", 500),
        ("dlpm", 8000),
    ]


@pytest.mark.parametrize("memory", ["reserving", "optimistic"])
def test_results_fit_their_schema(memory: str, dlpm: CommandLine, tmp_path: Path, repository: Path) -> None:
    file = tmp_path / "out.json"
    assert dlpm("run", *CROWDED, "--memory", memory, "--json", file).code == 0
    packaged = (package_files("dlpm") / "schemas" / "results.schema.json").read_bytes()
    assert (repository / "docs" / "schemas" / "results.schema.json").read_bytes() == packaged
    jsonschema.validate(results(file), json.loads(packaged))


def test_results_on_standard_output_leave_the_table_to_standard_error(dlpm: CommandLine) -> None:
    outcome = dlpm("run", SMALL, "--policy", "lpm", "--json", "-")
    assert outcome.code == 0
    assert json.loads(outcome.out)["schema"] == "dlpm.results/1"
    assert "Fairness" in outcome.err


def test_the_same_command_twice_gives_the_same_results_logs_and_picture(dlpm: CommandLine, tmp_path: Path) -> None:
    written: list[list[bytes]] = []
    for attempt in ("first", "second"):
        folder = tmp_path / attempt
        folder.mkdir()
        arguments: list[str | Path] = ["--json", folder / "out.json", "--svg", folder / "out.svg"]
        arguments += ["--events", folder / "{policy}.jsonl.gz"]
        assert dlpm("run", *CROWDED, *arguments).code == 0
        document = results(folder / "out.json")
        for run in document["runs"]:
            assert run.pop("wall_seconds") >= 0
        (folder / "out.json").write_text(json.dumps(document), "utf-8")
        written.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert len(written[0]) == 6
    assert written[0] == written[1]


def test_another_seed_gives_another_workload(dlpm: CommandLine, tmp_path: Path) -> None:
    totals = set()
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.json"
        assert dlpm("run", SMALL, "--policy", "lpm", "--seed", seed, "--json", file).code == 0
        totals.add(results(file)["workload"]["input_tokens"])
    assert len(totals) == 2


@pytest.mark.parametrize("policy", ["fcfs", "lpm", "vtc", "dlpm"])
@pytest.mark.parametrize("memory", ["reserving", "optimistic"])
def test_results_say_what_can_be_counted_in_the_log(
    policy: str, memory: str, dlpm: CommandLine, tmp_path: Path
) -> None:
    """Counted again from the log's lines, by the definitions in docs/formats/results.md."""
    file, log = tmp_path / "out.json", tmp_path / "log.jsonl.gz"
    options: list[str | Path] = ["--policy", policy, "--memory", memory, "--json", file, "--events", log]
    assert dlpm("run", *CROWDED, *options).code == 0
    (run,) = results(file)["runs"]

    client: dict[str, str] = {}
    sent: dict[str, int] = {}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    service: dict[str, int] = defaultdict(int)
    matched = extend = output = preempted = now = 0
    for event in events(log):
        now = event["time_us"]
        kind = event["event"]
        if kind == "arrive":
            client[event["request"]] = event["client"]
            sent[event["request"]] = event.get("arrived_us", now)
        elif kind == "admit":
            matched += event["matched"]
            extend += event["extend"]
            service[client[event["request"]]] += event["extend"]
        elif kind == "output":
            for request, tokens in event["tokens"].items():
                output += tokens
                service[client[request]] += 2 * tokens
                first.setdefault(request, now)
        elif kind == "finish":
            last[event["request"]] = now
        elif kind == "preempt":
            preempted += 1

    seconds = (now - min(sent.values())) / 1e6
    assert run["requests"] == run["finished"] == len(sent)
    assert run["preemptions"] == preempted
    assert run["service"] == service
    assert run["output_tokens"] == output
    assert run["hit_rate"] == pytest.approx(matched / (matched + extend))
    assert run["seconds"] == pytest.approx(seconds)
    assert run["throughput_tokens_per_s"] == pytest.approx((run["input_tokens"] + output) / seconds)
    waits = sorted(first[request] - sent[request] for request in sent)
    times = sorted(last[request] - sent[request] for request in sent)
    for measured, values in ((run["ttft"], waits), (run["latency"], times)):
        assert measured["max"] == pytest.approx(values[-1] / 1e6)
        for percent in (50, 90, 99):
            rank = -(-len(values) * percent // 100)
            assert measured[f"p{percent}"] == pytest.approx(values[rank - 1] / 1e6)


def test_the_bound_is_that_of_theorem_4_1_for_the_longest_input(dlpm: CommandLine, tmp_path: Path) -> None:
    """`2 (w_e L_input + w_q M + Q)` [DLPM Thm 4.1]."""
    file = tmp_path / "out.json"
    options: list[str | Path] = [
        "--policy",
        "vtc",
        "--policy",
        "dlpm",
        "--quantum",
        "700",
        "--weights",
        "3,5",
        "--json",
        file,
    ]
    assert dlpm("run", *CROWDED, *options).code == 0
    document = results(file)
    longest = document["workload"]["max_input"]
    baseline, fair = document["runs"]
    assert baseline["bound"] is None and baseline["bound_holds"] is None
    assert fair["bound"] == 2 * (3 * longest + 5 * 40_000 + 700)
    assert fair["bound_holds"] is True
    assert 0 < fair["max_gap"] <= fair["max_gap_at_refills"] <= fair["bound"]


@pytest.mark.parametrize("policy", ["fcfs", "lpm", "vtc", "dlpm"])
def test_the_checker_accepts_the_log_of_every_policy(policy: str, dlpm: CommandLine, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl.zst"
    assert dlpm("run", *CROWDED, "--policy", policy, "--events", log, "--full-log").code == 0
    outcome = dlpm("check", log)
    assert outcome.code == 0
    assert "holds" in outcome.out


def test_the_checker_points_at_the_line_of_a_log_that_was_changed(dlpm: CommandLine, tmp_path: Path) -> None:
    log, report = tmp_path / "log.jsonl", tmp_path / "report.json"
    assert dlpm("run", *CROWDED, "--policy", "dlpm", "--events", log).code == 0
    lines = log.read_text("utf-8").splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if '"event":"admit"' in line)
    admission = json.loads(lines[number])
    admission["deficit"] += 1
    lines[number] = json.dumps(admission) + "\n"
    log.write_text("".join(lines), "utf-8")
    outcome = dlpm("check", log, "--json", report)
    assert outcome.code == 1
    assert f"{log}:{number + 1}: " in outcome.out
    assert results(report)["violations"][0]["line"] == number + 1
    assert dlpm("check", log, "--all").code == 1


def test_the_printed_algorithm_spins_and_the_comparison_goes_on(dlpm: CommandLine, tmp_path: Path) -> None:
    """`while not Queue.empty()` never ends once memory is full [DLPM Alg. 1 l. 17]."""
    file = tmp_path / "out.json"
    outcome = dlpm("run", *CROWDED, "--policy", "dlpm-literal", "--policy", "dlpm", "--json", file)
    assert outcome.code == 1
    assert "dlpm-literal Q=2000 ended early" in outcome.out
    literal, fixpoint = results(file)["runs"]
    assert literal["finished"] < literal["requests"]
    assert "line 17" in literal["failure"]
    assert fixpoint["failure"] is None
    assert fixpoint["finished"] == fixpoint["requests"]


def test_preemptions_are_shown_where_there_are_any_and_the_hypothesis_that_fails_is_named(dlpm: CommandLine) -> None:
    reserving = dlpm("run", *CROWDED, "--policy", "dlpm")
    optimistic = dlpm("run", *CROWDED, "--policy", "dlpm", "--memory", "optimistic", "--max-output", "2000")
    assert "preempted" not in reserving.out
    assert "preempted" in optimistic.out
    assert "needs reserving memory" not in reserving.out
    assert "needs reserving memory" in optimistic.out


def test_a_broken_bound_is_said_plainly(dlpm: CommandLine, tmp_path: Path) -> None:
    """Optimistic memory: what ada's finished requests give back, her running ones decode into while bob waits.

    Her eight requests are admitted at once and generate 164 tokens in 64 tokens of memory: 8 + 2 * 164 weighted tokens.
    The bound is 2 (1 + 2 * 64 + 8) = 274. The watermark keeps bob's request out until all of hers are done.
    """
    workload, file = tmp_path / "burst.jsonl", tmp_path / "out.json"
    lines = ['{"schema":"dlpm.workload/1","block_size":1}']
    for number, (client, output) in enumerate([*(("ada", n) for n in (7, 8, 9, 11, 15, 20, 31, 63, 1)), ("bob", 1)]):
        request = {"id": f"r{number}", "client": client, "arrival": 0, "prompt": [number]}
        lines.append(json.dumps({**request, "output": output, "max_output": output}))
    workload.write_text("\n".join(lines) + "\n", "utf-8")
    options = ["--memory", "optimistic", "--watermark", "56", "--kv-tokens", "64", "--policy", "dlpm", "--quantum", "8"]
    outcome = dlpm("run", workload, *options, "--json", file)
    (run,) = results(file)["runs"]
    assert outcome.code == 0
    assert run["bound"] == 274
    assert run["max_gap"] == 336
    assert run["bound_holds"] is False
    assert "BROKEN" in outcome.out
    assert "ada got 336 more service than bob" in outcome.out


def test_the_picture_is_svg_that_names_every_run(dlpm: CommandLine, tmp_path: Path) -> None:
    picture = tmp_path / "out.svg"
    assert dlpm("run", *CROWDED, "--svg", picture, "--quantum", "100", "--quantum", "9000").code == 0
    text = "".join(ElementTree.parse(picture).getroot().itertext())
    for name in ("fcfs", "lpm", "vtc", "dlpm Q=100", "dlpm Q=9000", "bound 2(U + Q)"):
        assert name in text


def test_names_in_a_log_are_never_taken_for_markup(dlpm: CommandLine, tmp_path: Path) -> None:
    workload = tmp_path / "names.jsonl"
    lines = ['{"schema":"dlpm.workload/1","block_size":1}']
    for client in ("[red]eve[/red]", ":100:"):
        lines.append(
            json.dumps({"id": client, "client": client, "arrival": 0, "prompt": [1, 2], "output": 1, "max_output": 1})
        )
    workload.write_text("\n".join(lines) + "\n", "utf-8")
    outcome = dlpm("run", workload, "--policy", "lpm")
    assert "…d]eve[/red]" in outcome.out
    assert ":100:" in outcome.out


def test_what_a_quiet_run_cannot_say_is_said(dlpm: CommandLine, tmp_path: Path) -> None:
    workload = tmp_path / "quiet.jsonl"
    lines = ['{"schema":"dlpm.workload/1","block_size":1}']
    for number, client in enumerate("AB"):
        request = {"id": client, "client": client, "arrival": 100 * number, "prompt": [number]}
        lines.append(json.dumps({**request, "output": 1, "max_output": 1}))
    workload.write_text("\n".join(lines) + "\n", "utf-8")
    quiet = dlpm("run", workload)
    assert "No client got ahead" in quiet.out and "no Jain index" in quiet.out
    busy = dlpm("run", *CROWDED)
    assert "No client got ahead" not in busy.out and "no Jain index" not in busy.out


def test_halving_all_times_halves_the_span_of_arrivals(dlpm: CommandLine) -> None:
    whole = dlpm("run", SMALL, "--policy", "lpm")
    half = dlpm("run", SMALL, "--policy", "lpm", "--time-scale", "1/2")
    spans = [
        float(found[1])
        for found in map(re.compile(r"arriving over ([0-9.]+) s").search, (whole.out, half.out))
        if found
    ]
    assert spans[1] == pytest.approx(spans[0] / 2, abs=0.011)


@pytest.mark.parametrize("command", ["run", "check"])
def test_every_command_explains_itself_with_an_example(command: str, dlpm: CommandLine) -> None:
    outcome = dlpm(command, "--help")
    assert outcome.code == 0
    assert f"\n    dlpm {command} " in outcome.out


def test_without_a_command_the_commands_are_listed(dlpm: CommandLine) -> None:
    outcome = dlpm()
    assert outcome.code == 0
    assert "\n  run " in outcome.out and "\n  check " in outcome.out
