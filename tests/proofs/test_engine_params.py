"""An engine's own numbers: which bounds it gets."""

from __future__ import annotations

from pathlib import Path

from dlpm.engine_profile import read_profile
from dlpm_proofs.engine_params import guarantees

GOOD = """
memory = "{memory}"
clients = 3
[weights]
extend = 1
output = 2
[quantum]
default = 8
[limits]
max_input = 1
kv_tokens = 64
"""


def written(folder: Path, text: str) -> Path:
    """A parameter file with this text."""
    path = folder / "engine.toml"
    path.write_text(text)
    return path


def test_a_reserving_engine_gets_the_printed_theorems(tmp_path: Path) -> None:
    found = guarantees(read_profile(written(tmp_path, GOOD.format(memory="reserving"))))
    printed = [one for one in found if one.claim.startswith("as printed: ") and "T5" not in one.theorem]
    assert [one.theorem for one in printed] == ["T2/reserving", "T3/reserving, T4/reserving"]
    assert all(one.holds for one in printed)
    # U = 1 * 1 + 2 * 64 = 129, and 2 (129 + 8) = 274.
    assert "-U = -129" in printed[0].claim and "= 274" in printed[1].claim


def test_an_optimistic_engine_does_not_get_theorem_4_1_as_printed_but_the_gap_that_is_true(tmp_path: Path) -> None:
    found = {one.theorem: one for one in guarantees(read_profile(written(tmp_path, GOOD.format(memory="optimistic"))))}
    assert not found["T2/optimistic"].holds
    assert not found["T3/optimistic"].holds and "reserving memory" in found["T3/optimistic"].reason
    # Sum over s <= 63 of 63 div s is 273, so U* = 63 + 2 * 273 = 609 and the gap is 2 (8 + 608).
    assert sum(63 // s for s in range(1, 64)) == 273
    assert "at most 1232" in found["T3*/optimistic, T4*/optimistic"].claim


def test_an_optimistic_engine_with_small_batches_keeps_the_printed_number_by_another_theorem(tmp_path: Path) -> None:
    text = GOOD.format(memory="optimistic") + "max_output = 4\nmax_running = 2\n"
    found = {one.theorem: one for one in guarantees(read_profile(written(tmp_path, text)))}
    assert found["T3*/optimistic"].holds and "not by the paper's proof" in found["T3*/optimistic"].reason


def test_the_bundled_examples_are_read(repository: Path) -> None:
    for path in sorted((repository / "examples" / "engines").glob("*.toml")):
        assert guarantees(read_profile(path))


def test_an_engine_as_shipped_gets_the_theorem_of_its_composition_and_not_the_printed_ones(repository: Path) -> None:
    for name in ("vllm", "sglang"):
        found = guarantees(read_profile(repository / "examples" / "engines" / f"{name}.toml"))
        theorems = [one.theorem for one in found if one.holds]
        assert "ENGINE/optimistic" in theorems and "T3 with ENGINE/optimistic, T4 with ENGINE/optimistic" in theorems
        assert [one.theorem for one in found if not one.holds] == ["T2/optimistic", "T3/optimistic", "T5/printed"]


def test_a_late_reserving_engine_is_told_that_the_paper_s_proof_is_not_about_it(tmp_path: Path) -> None:
    text = GOOD.format(memory="reserving").replace("max_input = 1", "max_input = 1\nmax_running = 60")
    found = {one.theorem: one for one in guarantees(read_profile(written(tmp_path, text + "[late]\nsteps = 3\n")))}
    # U* = 1 + 2 * 63, and 60 requests may yield 3 steps unheard, 2 each.
    assert found["ENGINE/reserving"].claim.endswith(f"below {1 - 127 - 360}")
    assert not found["E8/outputs"].holds and "charges every step at once" in found["E8/outputs"].reason


def test_a_step_of_chunks_may_yield_nothing_so_the_wait_is_counted_in_extend_tokens(tmp_path: Path) -> None:
    text = GOOD.format(memory="reserving").replace("max_input = 1", "max_input = 1\nmax_running = 60")
    at_once, chunked = (
        next(one for one in guarantees(read_profile(written(tmp_path, text + more))) if one.theorem == "T5/reserving")
        for more in ("", "[chunked_prefill]\nbudget = 60\n")
    )
    # (3 - 1) (8 + 126 + 8 + 126) = 536 is served to the others, in outputs of 2 or extend tokens of 1.
    assert "at most 536 before" in at_once.claim and "at most 268 steps" in at_once.claim
    assert "at most 536 steps" in chunked.claim
