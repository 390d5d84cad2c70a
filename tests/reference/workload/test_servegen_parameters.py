"""Drawing requests from ServeGen's parameters: `dlpm.workload.traces.servegen`."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.request import Workload
from dlpm.workload import LoadOptions, load
from dlpm.workload.load import DEFAULTS
from dlpm.workload.traces.servegen_parameters import parse_distribution

# Client 3 is busy in the second row only, client 12 in both; the rate times 600 s is how many requests to expect.
TRACE_3 = "0,0,0,,0,0\r\n600,4.0,1.0,Gamma,1.0,0.25\r\n"
TRACE_12 = "0,1.0,1.0,Weibull,1.0,1.0\n600,0.5,0.5,Gamma,4.0,0.5"
DATASET_3 = {"0": {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{7: 1.0}", "reason_ratio": "{}"}}
DATASET_12 = {"0": {"input_tokens": "{1: 1.0}", "output_tokens": "{2: 0.5, 3: 0.5}"}}


def files(**changes: str) -> dict[str, str]:
    return {
        "chunk-3-trace.csv": TRACE_3,
        "chunk-3-dataset.json": json.dumps(DATASET_3),
        "chunk-12-trace.csv": TRACE_12,
        "chunk-12-dataset.json": json.dumps(DATASET_12),
        **changes,
    }


def folder(place: Path, content: dict[str, str]) -> Path:
    place = place / "model"
    place.mkdir()
    for name, text in content.items():
        (place / name).write_text(text, newline="")
    return place


def archive(place: Path, content: dict[str, str], inner: str = "data/reason/model/") -> Path:
    path = place / "model.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name, text in content.items():
            member = tarfile.TarInfo(inner + name)
            member.size = len(text.encode())
            packed.addfile(member, io.BytesIO(text.encode()))
    return path


def loaded(path: Path, options: LoadOptions = DEFAULTS) -> Workload:
    return load(path, "auto", options)


def refusal(path: Path, options: LoadOptions = DEFAULTS) -> InputError:
    with pytest.raises(InputError) as raised:
        loaded(path, options)
    assert "\n" not in str(raised.value)
    return raised.value


def test_a_folder_and_an_archive_of_it_give_the_same_requests(tmp_path: Path) -> None:
    from_folder = loaded(folder(tmp_path, files()))
    assert loaded(archive(tmp_path, files())).requests == from_folder.requests


def test_the_same_seed_gives_the_same_requests_and_another_seed_others(tmp_path: Path) -> None:
    path = folder(tmp_path, files())
    assert loaded(path, LoadOptions(seed=5)) == loaded(path, LoadOptions(seed=5))
    assert loaded(path, LoadOptions(seed=5)) != loaded(path, LoadOptions(seed=6))


def test_requests_follow_the_parameters_of_the_busiest_window(tmp_path: Path) -> None:
    workload = loaded(folder(tmp_path, files()))
    counts = Counter(request.client for request in workload.requests)
    # Means 4.0 * 600 and 0.5 * 600; five standard deviations of a renewal process (cv 1 and 0.5).
    assert abs(counts["3"] - 2400) < 5 * 2400**0.5
    assert abs(counts["12"] - 300) < 5 * 0.5 * 300**0.5
    inputs = Counter(request.input_tokens for request in workload.requests if request.client == "3")
    assert set(inputs) == {100, 200}
    assert abs(inputs[200] / counts["3"] - 0.75) < 0.05
    assert {request.output_tokens for request in workload.requests if request.client == "12"} == {2, 3}
    arrivals = [request.arrival_us for request in workload.requests]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == 0
    assert 590_000_000 < arrivals[-1] < 600_000_000


def test_a_window_can_be_named_and_may_cross_rows(tmp_path: Path) -> None:
    path = folder(tmp_path, files())
    early = loaded(path, LoadOptions(window=(0, 600)))
    assert {request.client for request in early.requests} == {"12"}
    assert abs(len(early.requests) - 600) < 5 * 600**0.5
    part = Counter(request.client for request in loaded(path, LoadOptions(window=(300, 900))).requests)
    assert abs(part["3"] - 1200) < 5 * 1200**0.5
    assert abs(part["12"] - 450) < 5 * 450**0.5


def test_a_client_draws_the_same_whoever_else_is_there(tmp_path: Path) -> None:
    both = loaded(folder(tmp_path, files()), LoadOptions(window=(600, 1200)))
    (tmp_path / "alone").mkdir()
    alone = loaded(folder(tmp_path / "alone", {k: v for k, v in files().items() if "chunk-3-" in k}))
    lengths = [(r.input_tokens, r.output_tokens) for r in both.requests if r.client == "3"]
    assert [(r.input_tokens, r.output_tokens) for r in alone.requests] == lengths


@given(st.dictionaries(st.integers(1, 1000), st.floats(0, 1), min_size=1, max_size=6), st.integers())
def test_only_tokens_with_a_probability_are_drawn(probabilities: dict[int, float], seed: int) -> None:
    text = repr(probabilities)
    if sum(probabilities.values()) == 0:
        with pytest.raises(InputError, match="not all 0"):
            parse_distribution(text, "f", "input_tokens")
        return
    distribution = parse_distribution(text, "f", "input_tokens")
    draw = Random(seed)
    drawn = {distribution.draw(draw) for _ in range(50)}
    assert drawn <= {tokens for tokens, probability in probabilities.items() if probability > 0}


NO_DISTRIBUTIONS = [
    "",
    "{",
    "{}",
    "[1]",
    "{1: 0.5, 2}",
    "{'1': 1.0}",
    "{0: 1.0}",
    "{-1: 1.0}",
    "{1.5: 1.0}",
    "{True: 1.0}",
    "{1: -0.5}",
    "{1: 2.0}",
    "{1: 'x'}",
    "{1: 1e999}",
    "{1: 1e999 - 1e999}",
    "__import__('os').getcwd()",
    "{1: open('f')}",
    "{2147483648: 1.0}",
    "{1: 0.0}",
    "(" * 5000,
]


@pytest.mark.parametrize("text", NO_DISTRIBUTIONS)
def test_what_is_no_distribution_is_refused_and_never_evaluated(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_distribution(text, "chunk.json", "0.input_tokens")
    assert (raised.value.source, raised.value.field) == ("chunk.json", "0.input_tokens")


WRONG_ROWS = [
    ("600,4.0,1.0,Gamma,1.0", None, "expected 6 cells, found 5"),
    ("600,4.0,1.0,Pareto,1.0,0.25", "pattern", "expected Gamma or Weibull where the rate is above 0, found 'Pareto'"),
    ("600,4.0,1.0,,0,0", "pattern", "expected Gamma or Weibull where the rate is above 0, found ''"),
    ("600,4.0,1.0,Gamma,0,0.25", "shape", "expected a number above 0"),
    ("600,4.0,1.0,Gamma,1.0,0", "scale", "expected a number above 0"),
    ("600,-4.0,1.0,Gamma,1.0,0.25", "rate", "expected a number not below 0, found '-4.0'"),
    ("600,nan,1.0,Gamma,1.0,0.25", "rate", "expected a number not below 0, found 'nan'"),
    ("600,inf,1.0,Gamma,1.0,0.25", "rate", "expected a number not below 0, found 'inf'"),
    ("601,4.0,1.0,Gamma,1.0,0.25", "window start", "expected a multiple of 600 s, found 601"),
    ("x,4.0,1.0,Gamma,1.0,0.25", "window start", "expected a number not below 0, found 'x'"),
]


@pytest.mark.parametrize(("row", "field", "expected"), WRONG_ROWS)
def test_a_wrong_row_is_refused_at_its_file_and_line(
    tmp_path: Path, row: str, field: str | None, expected: str
) -> None:
    path = folder(tmp_path, files(**{"chunk-3-trace.csv": "0,0,0,,0,0\n" + row + "\n"}))
    error = refusal(path)
    assert (error.source, error.line, error.field) == (f"{path}/chunk-3-trace.csv", 2, field)
    assert expected in error.expected


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("[]", "expected a JSON object"),
        ('{"0": 3}', "expected an object"),
        ('{"zero": {}}', "expected a window start in seconds"),
        ('{"0": {"input_tokens": {"1": 1.0}}}', "expected a distribution as a string"),
        ('{"0": {"input_tokens": "{}", "output_tokens": "{1: 1.0}"}}', "at least one entry"),
        ('{"0": {"input_tokens": "{1: 1.0}"}}', "found no such field"),
        ('{"21600": {"input_tokens": "{1: 1.0}", "output_tokens": "{1: 1.0}"}}', "a window that starts by 600 s"),
    ],
)
def test_a_wrong_dataset_is_refused_at_its_file(tmp_path: Path, dataset: str, expected: str) -> None:
    path = folder(tmp_path, files(**{"chunk-3-dataset.json": dataset}))
    error = refusal(path)
    assert error.source == f"{path}/chunk-3-dataset.json"
    assert expected in error.expected


@pytest.mark.parametrize("name", ["chunk-3-trace.csv", "chunk-3-dataset.json"])
def test_parameters_that_are_not_utf8_are_refused_at_their_file(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, files())
    (path / name).write_bytes(b"\xff\xfe")
    error = refusal(path)
    assert (error.source, error.expected) == (f"{path}/{name}", "expected UTF-8 text")


def test_a_blank_row_is_skipped(tmp_path: Path) -> None:
    blank = files(**{"chunk-3-trace.csv": TRACE_3.replace("\r\n", "\r\n\r\n")})
    (tmp_path / "plain").mkdir()
    assert loaded(folder(tmp_path, blank)).requests == loaded(folder(tmp_path / "plain", files())).requests


def test_a_client_with_one_file_only_is_refused(tmp_path: Path) -> None:
    content = files()
    del content["chunk-12-dataset.json"]
    assert refusal(folder(tmp_path, content)).expected == "expected a file chunk-12-dataset.json"


def test_a_folder_without_parameters_is_refused(tmp_path: Path) -> None:
    assert "found none" in refusal(folder(tmp_path, {"notes.txt": "nothing here"})).expected


def test_an_archive_of_two_models_is_refused(tmp_path: Path) -> None:
    content = files() | {f"../other/{name}": text for name, text in files().items()}
    assert "clients of one model" in refusal(archive(tmp_path, content)).expected


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, files(**{"chunk-3-dataset.json": json.dumps(DATASET_3) + " " * 50_000}))
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(path).expected == "expected a sound tar file"


def test_a_window_in_which_nobody_is_active_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, files())
    assert (
        "expected a client that is active from 1200 to 1800 s"
        in refusal(path, LoadOptions(window=(1200, 1800))).expected
    )


def test_parameters_that_give_an_absurd_number_of_requests_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlpm.workload.traces.servegen.MOST_DRAWN", 1000)
    path = folder(tmp_path, files())
    assert "at most 1000 requests" in refusal(path).expected
