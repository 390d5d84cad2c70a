"""Workload files: what is written is read back, and what the format does not allow is refused where it stands."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files as package_files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dlpm.errors import InputError
from dlpm.jsonl import JsonValue
from dlpm.request import Workload
from dlpm.workload import read, write
from dlpm.workload.files import HEADER_FIELDS, REQUEST_FIELDS, SCHEMA, read_document
from tests.reference.test_jsonl import VALUES
from tests.reference.workload.strategies import workloads

HEADER = '{"schema": "dlpm.workload/1", "block_size": 4}'
GOOD = '{"id": "a", "client": "A", "arrival": 0, "blocks": [7, 8], "input": 8, "output": 3}'


def validator() -> Draft202012Validator:
    schema = json.loads((package_files("dlpm") / "schemas" / "workload.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


VALIDATOR = validator()


def request_line(**changes: JsonValue) -> str:
    """The good line with some fields changed, or left out where the change is `None`."""
    values = {**json.loads(GOOD), **changes}
    return json.dumps({name: value for name, value in values.items() if value is not None})


def read_lines(folder: Path, *lines: str) -> Workload:
    path = folder / "w.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read(path)


def refusal(folder: Path, *lines: str) -> tuple[int | None, str | None, str]:
    with pytest.raises(InputError) as raised:
        read_lines(folder, *lines)
    error = raised.value
    assert error.source == str(folder / "w.jsonl")
    assert "\n" not in str(error)
    return error.line, error.field, error.expected


@given(workloads(), st.sampled_from(["w.jsonl", "w.jsonl.gz"]))
def test_a_workload_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, workload: Workload, name: str
) -> None:
    path = tmp_path_factory.mktemp("workload") / name
    write(path, workload)
    assert read(path) == workload


@given(workloads())
def test_every_line_that_is_written_is_valid_under_the_schema(
    tmp_path_factory: pytest.TempPathFactory, workload: Workload
) -> None:
    path = tmp_path_factory.mktemp("workload") / "w.jsonl"
    write(path, workload)
    for line in path.read_text("utf-8").splitlines():
        assert list(VALIDATOR.iter_errors(json.loads(line))) == []


EXTRAS = st.dictionaries(st.text().filter(lambda name: name not in HEADER_FIELDS | REQUEST_FIELDS), VALUES, max_size=3)


@given(workloads(), EXTRAS, st.data())
def test_fields_that_the_format_does_not_know_are_kept(
    tmp_path_factory: pytest.TempPathFactory, workload: Workload, header: dict[str, JsonValue], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("workload") / "w.jsonl"
    extra = {request.id: data.draw(EXTRAS) for request in workload.requests}
    write(path, workload, header_extra=header, request_extra=extra)
    document = read_document(path)
    assert document.workload == workload
    assert document.header_extra == header
    assert document.request_extra == {identity: fields for identity, fields in extra.items() if fields}


def test_an_extra_cannot_overwrite_a_known_field(tmp_path: Path) -> None:
    workload = read_lines(tmp_path, HEADER, GOOD)
    write(tmp_path / "x.jsonl", workload, header_extra={"block_size": 99}, request_extra={"a": {"output": 99}})
    assert read(tmp_path / "x.jsonl") == workload


def test_the_schema_in_the_documentation_is_the_one_in_the_package(repository: Path) -> None:
    packaged = (package_files("dlpm") / "schemas" / "workload.schema.json").read_bytes()
    assert (repository / "docs" / "schemas" / "workload.schema.json").read_bytes() == packaged


def test_the_schema_names_the_fields_that_the_reader_knows() -> None:
    definitions = json.loads((package_files("dlpm") / "schemas" / "workload.schema.json").read_text("utf-8"))["$defs"]
    assert set(definitions["header"]["properties"]) == HEADER_FIELDS
    assert set(definitions["request"]["properties"]) == REQUEST_FIELDS


def test_what_a_line_leaves_out_has_its_documented_value(tmp_path: Path) -> None:
    (request,) = read_lines(tmp_path, HEADER, request_line(blocks=None, input=None, prompt=[5, 6])).requests
    assert (request.input_tokens, request.max_output, request.think_us) == (2, request.output_tokens, 0)
    assert (request.blocks, request.reply, request.reply_blocks, request.parents) == ((), (), (), ())


@pytest.mark.parametrize(
    ("written", "microseconds"),
    [
        ("0.0000005", 1),
        ("0.00000049999", 0),
        ("1.0000015", 1_000_002),
        ("12.3456789", 12_345_679),
        ("3", 3_000_000),
        ("1e-6", 1),
        ("0.1", 100_000),
        ("1700000000.123456", 1_700_000_000_123_456),
        ("4294967296", 2**32 * 1_000_000),
    ],
)
def test_arrivals_are_rounded_half_up_to_microseconds_from_their_decimals(
    tmp_path: Path, written: str, microseconds: int
) -> None:
    line = GOOD.replace('"arrival": 0', f'"arrival": {written}')
    assert read_lines(tmp_path, HEADER, line).requests[0].arrival_us == microseconds


def test_a_prompt_shorter_than_a_block_may_have_no_hash(tmp_path: Path) -> None:
    (request,) = read_lines(tmp_path, HEADER, request_line(blocks=[], input=3)).requests
    assert (request.blocks, request.prompt, request.input_tokens) == ((), (), 3)


Wrong = tuple[str, str | None, str]

NOT_STRICT_JSON: list[Wrong] = [
    ("not json", None, "expected a JSON object"),
    ("[1]", None, "expected a JSON object, found [1]"),
    (GOOD[:-1], None, "expected a JSON object"),
    (GOOD.replace('"arrival": 0', '"arrival": NaN'), None, "NaN, which is not a JSON number"),
    (GOOD.replace('"arrival": 0', '"arrival": Infinity'), None, "Infinity, which is not a JSON number"),
    (GOOD.replace('"output": 3', '"output": 3, "output": 4'), None, 'the key "output" twice'),
]

# What one line alone shows, so that the schema refuses it as well.
WRONG_FIELD: list[Wrong] = [
    (request_line(id=None), "id", "expected a non-empty string, found no such field"),
    (request_line(id=""), "id", 'expected a non-empty string, found ""'),
    (request_line(id=17), "id", "expected a non-empty string, found 17"),
    (request_line(client=None), "client", "expected a non-empty string, found no such field"),
    (request_line(client=["A"]), "client", 'expected a non-empty string, found ["A"]'),
    (request_line(arrival=None), "arrival", "expected a number from 0 to 4294967296, found no such field"),
    (request_line(arrival=-0.5), "arrival", "expected a number from 0 to 4294967296, found -0.5"),
    (request_line(arrival="0"), "arrival", 'expected a number from 0 to 4294967296, found "0"'),
    (request_line(arrival=True), "arrival", "expected a number from 0 to 4294967296, found true"),
    (request_line(arrival=1e300), "arrival", "expected a number from 0 to 4294967296, found 1e+300"),
    (request_line(arrival=2**70), "arrival", "expected a number from 0 to 4294967296"),
    (request_line(output=None), "output", "expected a whole number from 1 to 2147483647, found no such field"),
    (request_line(output=0), "output", "expected a whole number from 1 to 2147483647, found 0"),
    (request_line(output=-3), "output", "expected a whole number from 1 to 2147483647, found -3"),
    (request_line(output=True), "output", "expected a whole number from 1 to 2147483647, found true"),
    (request_line(output="3"), "output", 'expected a whole number from 1 to 2147483647, found "3"'),
    (request_line(output=2**70), "output", "expected a whole number from 1 to 2147483647"),
    (request_line(input=None), "input", "expected a whole number from 1 to 2147483647, found no such field"),
    (request_line(input=0), "input", "expected a whole number from 1 to 2147483647, found 0"),
    (request_line(input=2**70), "input", "expected a whole number from 1 to 2147483647"),
    (request_line(max_output=None, prompt=[1]), "prompt", 'expected either "prompt" or "blocks", found both'),
    (request_line(blocks=None), "prompt", 'expected either "prompt" or "blocks", found neither'),
    (request_line(blocks=None, input=None, prompt=[]), "prompt", "expected at least one token id, found none"),
    (request_line(blocks=None, prompt=[1, -1]), "prompt[1]", "expected a whole number from 0 to 2147483647, found -1"),
    (request_line(blocks=None, prompt=[0.5]), "prompt[0]", "expected a whole number from 0 to 2147483647, found 0.5"),
    (request_line(blocks=None, prompt="text"), "prompt", 'expected a list of whole numbers, found "text"'),
    (request_line(blocks=[7, 2**64]), "blocks[1]", "expected a whole number from 0 to 18446744073709551615"),
    (request_line(blocks=[True, 8]), "blocks[0]", "found true"),
    (request_line(reply=[1, 2, 3]), "reply", 'expected "reply_blocks" beside "blocks", or neither'),
    (
        request_line(blocks=None, input=None, prompt=[1], reply_blocks=[]),
        "reply_blocks",
        'expected "reply" beside "prompt", or neither',
    ),
    (request_line(think=-1), "think", "expected a number from 0 to 4294967296, found -1"),
    (request_line(after="a"), "after", 'expected a list of strings, found "a"'),
    (request_line(after=[3]), "after[0]", "expected a non-empty string, no two equal, found 3"),
]

# What only another field or line shows; and that 3.0 is an integer to JSON Schema, which knows nothing of surrogates.
WRONG_TOGETHER: list[Wrong] = [
    (GOOD.replace('"id": "a"', '"id": "\\ud800"'), "id", "expected a non-empty string"),
    (request_line(output=3.0), "output", "expected a whole number from 1 to 2147483647, found 3.0"),
    (request_line(max_output=2), "max_output", "expected a whole number from 3 to 2147483647, found 2"),
    (request_line(blocks=None, prompt=[1, 2, 3]), "input", "expected 3, the length of the prompt, found 8"),
    (request_line(blocks=[7]), "blocks", "expected 2 hashes for 8 tokens in blocks of 4, found 1"),
    (request_line(blocks=[7, 8, 9]), "blocks", "expected 2 hashes for 8 tokens in blocks of 4, found 3"),
    (request_line(blocks=[7], input=9), "blocks", "expected 2 or 3 hashes for 9 tokens in blocks of 4, found 1"),
    (
        request_line(blocks=None, input=None, prompt=[1], reply=[1, 2]),
        "reply",
        "expected 3 token ids, as output says, found 2",
    ),
    (
        request_line(reply_blocks=[9]),
        "reply_blocks",
        "expected 0 hashes of the full blocks that the reply completes, found 1",
    ),
    (request_line(after=["a"]), "after[0]", 'expected the id of a request on an earlier line, found "a"'),
    (request_line(after=["b"]), "after[0]", 'expected the id of a request on an earlier line, found "b"'),
]


@pytest.mark.parametrize(("line", "field", "expected"), [*NOT_STRICT_JSON, *WRONG_FIELD, *WRONG_TOGETHER])
def test_a_wrong_request_is_refused_at_its_line_and_field(
    tmp_path: Path, line: str, field: str | None, expected: str
) -> None:
    at, name, message = refusal(tmp_path, HEADER, line)
    assert (at, name) == (2, field)
    assert expected in message
    later = line.replace('"id": "a"', '"id": "z"') if field != "after[0]" else line
    assert refusal(tmp_path, HEADER, "", request_line(id="first"), later)[0] == 4


def test_an_id_that_comes_twice_is_refused_at_the_second(tmp_path: Path) -> None:
    expected = 'expected an id that no earlier line has, found "a"'
    assert refusal(tmp_path, HEADER, GOOD, request_line(id="b"), GOOD) == (4, "id", expected)


def test_a_parent_on_a_later_line_is_refused_so_that_no_cycle_can_be_written(tmp_path: Path) -> None:
    first, second = request_line(after=["b"]), request_line(id="b", after=["a"])
    expected = 'expected the id of a request on an earlier line, found "b"'
    assert refusal(tmp_path, HEADER, first, second) == (2, "after[0]", expected)


def test_a_parent_named_twice_is_refused(tmp_path: Path) -> None:
    line = request_line(id="b", after=["a", "a"])
    assert refusal(tmp_path, HEADER, GOOD, line)[:2] == (3, "after[1]")


@pytest.mark.parametrize(
    ("header", "field", "expected"),
    [
        (GOOD, "schema", f'expected "{SCHEMA}", found no such field'),
        ('{"schema": "dlpm.workload/2", "block_size": 4}', "schema", f'expected "{SCHEMA}", found "dlpm.workload/2"'),
        ('{"schema": "dlpm.events/1"}', "schema", f'expected "{SCHEMA}", found "dlpm.events/1"'),
        (f'{{"schema": "{SCHEMA}"}}', "block_size", "expected a whole number from 1 to 1048576, found no such field"),
        (f'{{"schema": "{SCHEMA}", "block_size": 0}}', "block_size", "found 0"),
        (f'{{"schema": "{SCHEMA}", "block_size": "16"}}', "block_size", 'found "16"'),
        (f'{{"schema": "{SCHEMA}", "block_size": 4, "name": 3}}', "name", "expected a non-empty string, found 3"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, header: str, field: str, expected: str) -> None:
    at, name, message = refusal(tmp_path, header, GOOD)
    assert (at, name) == (1, field)
    assert expected in message


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "")[2] == f"expected a header with schema {SCHEMA}, found an empty file"


def test_a_header_without_requests_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, HEADER)[2] == "expected at least one request"


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n{GOOD}\n".encode())[:-4])
    with pytest.raises(InputError, match="truncated"):
        read(path)


@pytest.mark.parametrize("line", [line for line, _, _ in WRONG_FIELD])
def test_the_schema_refuses_what_is_wrong_within_one_line(line: str) -> None:
    assert not VALIDATOR.is_valid(json.loads(line))


def test_the_example_in_the_documentation_is_a_valid_file(tmp_path: Path, repository: Path) -> None:
    text = (repository / "docs" / "formats" / "workload.md").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    {")]
    workload = read_lines(tmp_path, *lines)
    assert [request.id for request in workload.requests] == ["r1", "r2", "r3"]
    assert workload.requests[2].parents == ("r2",)
    for line in lines:
        assert list(VALIDATOR.iter_errors(json.loads(line))) == []
