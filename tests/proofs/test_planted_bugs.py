"""The proofs are about the code: a bug planted in the reference turns `dlpm verify` red, with nothing else touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

VERIFY = "from dlpm_engine.cli.main import run; run()"


@dataclass(frozen=True)
class Bug:
    """One line of the reference as it is and as it must not be, and a theorem that notices."""

    name: str
    file: str
    right: str
    wrong: str
    theorem: str


BUGS = (
    Bug(
        "the gate lets 0 through",
        "ledger.py",
        "return self.deficits[client] > 0",
        "return self.deficits[client] >= 0",
        "T2*/reserving",
    ),
    Bug(
        "a refill asks nobody",
        "ledger.py",
        "            if self.deficits[client] > 0:  # l. 5\n                return {}\n",
        "            pass\n",
        "T3/reserving",
    ),
    Bug(
        "a refill pays those with credit, too",
        "ledger.py",
        "            if self.deficits[client] <= 0:  # l. 7\n",
        "            if True:\n",
        "T1",
    ),
    Bug("a refill pays one too much", "ledger.py", "+= self.quanta.of(client)", "+= self.quanta.of(client) + 1", "T1"),
    Bug("a refill forgets clients at exactly 0", "ledger.py", "<= 0:  # l. 7", "< 0:  # l. 7", "T3/reserving"),
    Bug(
        "a client that comes back is forgiven",
        "ledger.py",
        "        if client not in self.deficits:\n            self.deficits[client] = 0",
        "        self.deficits[client] = 0",
        "T4/reserving",
    ),
    Bug(
        "extend tokens are charged as output",
        "ledger.py",
        "-= self.cost.extend(tokens)",
        "-= self.cost.output(tokens)",
        "T3/reserving",
    ),
    Bug(
        "only one output token a client is charged",
        "ledger.py",
        "-= self.cost.output(count)",
        "-= self.cost.output(1)",
        "T4/reserving",
    ),
    Bug(
        "the quantum of a client is the default",
        "quanta.py",
        "return self.clients.get(client, self.default)",
        "return self.default",
        "T1",
    ),
    Bug(
        "a visit admits without a second look at the gate",
        "policies/dlpm.py",
        "    if ledger.has_credit(client):  # l. 21",
        "    if True:  # l. 21",
        "T2*/reserving",
    ),
    Bug(
        "a visit does not charge",
        "policies/dlpm.py",
        "            ledger.charge_extend(client, extend)  # l. 23",
        "            pass",
        "T3/reserving",
    ),
    Bug(
        "a pass takes a refill for nothing",
        "policies/dlpm.py",
        "if outcome.refilled or outcome.extend is not None:",
        "if outcome.extend is not None:",
        "T6/fixpoint",
    ),
    Bug(
        "the admission phase makes one pass",
        "policies/dlpm.py",
        "        while happened:  # l. 17\n            order, happened",
        "        if happened:  # l. 17\n            order, happened",
        "T6/fixpoint",
    ),
    Bug(
        "an admission phase is never due",
        "policies/dlpm.py",
        "        return not any(self.ledger.has_credit(client) for client in queued_clients)",
        "        return False",
        "T6/fixpoint",
    ),
    Bug(
        "a refill pays only those who wait",
        "ledger.py",
        "        for client in self.deficits:  # l. 6\n",
        "        for client in list(queued_clients):  # l. 6\n",
        "T5/reserving",
    ),
    Bug(
        "a reservation is one token short",
        "memory.py",
        "        return output_left\n",
        "        return output_left - 1\n",
        "M1",
    ),
    Bug(
        "VTC lifts nobody",
        "policies/vtc.py",
        "if lowest is not None and lowest > counter:",
        "if False:",
        "T8/reserving",
    ),
    Bug(
        "VTC lowers whoever comes back",
        "policies/vtc.py",
        "if lowest is not None and lowest > counter:",
        "if lowest is not None:",
        "T8/reserving",
    ),
    Bug(
        "VTC charges extend tokens",
        "policies/vtc.py",
        "return None if step.try_admit(request) is None else request.resident",
        "return step.try_admit(request)",
        "T8/reserving",
    ),
    Bug(
        "VTC serves who came first",
        "policies/vtc.py",
        "queued = sorted(earliest, key=lambda client: earliest[client][0].rank)",
        "queued = sorted(earliest, key=lambda client: earliest[client][0].rank)[:1]",
        "T8/reserving",
    ),
    Bug(
        "what can never fit is let into the queue",
        "worker.py",
        "if request.input_tokens + request.max_output > self.config.kv_tokens:",
        "if request.input_tokens > self.config.kv_tokens:",
        "M1",
    ),
    Bug(
        "the policy does not hear who leaves",
        "worker.py",
        "            self.policy.leave(client)",
        "            pass",
        "M1",
    ),
    Bug(
        "the policy does not hear who waits when a request comes",
        "worker.py",
        "self.policy.arrive(request.client, self.queued_clients())",
        "self.policy.arrive(request.client, ())",
        "M1",
    ),
    Bug("a preempted request is lost", "worker.py", "        self._enqueue(run.queued)\n", "", "M2"),
    Bug(
        "a watermark lends memory that is not there",
        "memory.py",
        "return extend + (self.watermark if running else 0) <= free",
        "return extend - (self.watermark if running else 0) <= free",
        "M2",
    ),
    Bug(
        "an input may fill all of memory",
        "bounds.py",
        "    longest = min(max_input, kv_tokens - 1)\n",
        "    longest = min(max_input, kv_tokens)\n",
        "T2*/limits",
    ),
    Bug(
        "the optimistic sum forgets its last step",
        "bounds.py",
        "last = room if max_output is None else min(max_output, room)",
        "last = room if max_output is None else min(max_output, room) - 1",
        "T2*/optimistic",
    ),
)


def verify(reference: Path, theorem: str) -> subprocess.CompletedProcess[str]:
    """`dlpm verify` of one theorem on another copy of the reference."""
    path = os.pathsep.join(filter(None, (str(reference), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", VERIFY, "verify", "--theorem", theorem, "--no-mutants", "--fail-fast", "--jobs", "1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path, repository: Path) -> Path:
    """A copy of the reference, in front of the installed one."""
    shutil.copytree(repository / "reference" / "dlpm", tmp_path / "dlpm", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_bug_planted_in_the_reference_turns_verify_red(bug: Bug, copied: Path) -> None:
    path = copied / "dlpm" / bug.file
    source = path.read_text(encoding="utf-8")
    assert source.count(bug.right) == 1, "the line to break is not there any more: plant the bug elsewhere"
    path.write_text(source.replace(bug.right, bug.wrong), encoding="utf-8")
    found = verify(copied, bug.theorem)
    assert found.returncode == 1, found.stdout + found.stderr
    assert f"{bug.theorem}: not as expected (proved)" in found.stdout


def test_the_same_copy_without_a_bug_stays_green(copied: Path) -> None:
    found = verify(copied, "T1")
    assert found.returncode == 0, found.stdout + found.stderr
