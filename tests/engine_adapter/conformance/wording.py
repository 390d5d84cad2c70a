"""What each rule says when it is broken, and whom it names: the words a user reads, held to in every test of a fault.

In the words, ``#`` stands for a number and ``'N'`` for one name or several.
"""

from __future__ import annotations

import re
from typing import Any

from dlpm_engine.conformance.report import Violation
from tests.engine_adapter.conformance.logs import Log

_FREE = "it may run and fits into # free tokens"
_GAP = "more service for any client than for 'N' while it is backlogged"
_OUTPUT = "output tokens of 'N'"

WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "accepted-limit": (("at most # tokens of 'N' in one step", "#"),),
    "accepted-surplus": (
        ("'N' finished: it accepted more tokens than it got", "it still runs"),
        ("more than the # that 'N' got, or nothing about it", "#"),
    ),
    "admit-in-order": (
        (f"'N' of 'N' admitted before: it comes first, {_FREE.removeprefix('it ')}", "'N' of 'N'"),
        ("an order event of step # that names 'N' before it is admitted", "none"),
    ),
    "admit-queued": (
        ("a request in the waiting queue", "'N', which is not there"),
        ("a request in the waiting queue", "'N', which is running"),
    ),
    "arrive-in-limits": (("input of at most # tokens", "#"), ("input + max_output of at most # tokens", "#")),
    "arrive-once": (("a new name", "'N', which is queued"), ("a new name", "'N', which is running")),
    "charge-chunk": (("# - # = # for # extend tokens", "#"),),
    "charge-extend": (("# - # = # for # extend tokens", "#"),),
    "charge-output": (
        (f"# - # = # for # {_OUTPUT}", "#"),
        (f"# - # = # for # {_OUTPUT}", "no counter"),
        ("# for 'N': #, did the latest # steps not come late", "#"),
        ("# for 'N': #, did the latest # steps not come late", "no counter"),
    ),
    "charge-preempt": (("#", "#"),),
    "charge-recompute": (("# - # = # for # extend tokens", "#"),),
    "charge-refund": (
        ("# + # = # for # tokens back", "#"),
        ("# + # = # for # tokens back", "no counter"),
        ("counters of those who get something back", "'N'"),
    ),
    "chunk-budget": (("at most # tokens, all that is left of # in this step", "#"),),
    "chunk-due": (("a chunk of 'N': # tokens are left", "none"),),
    "chunk-gate": (
        ("no chunk of 'N' at a deficit of #", "'N' goes on"),
        ("no chunk on debt in a step in which something else runs", "'N' as well"),
    ),
    "chunk-one": (("no second prompt while 'N' is half computed", "'N' admitted"),),
    "chunk-left": (
        ("a chunk of a running request", "'N', which is queued"),
        ("at most # tokens of 'N', all that is left", "#"),
        ("no chunk of 'N': its prompt is computed", "# tokens"),
    ),
    "chunk-once": (("one chunk of 'N' in step #", "another"),),
    "chunk-order": (
        ("a chunk of 'N' first: it is half computed", "'N' admitted"),
        ("a chunk of 'N' first: it is half computed", "'N' goes on"),
    ),
    "chunk-size": (("# tokens of 'N': no less and no more", "#"),),
    "copied-memory": (("at most M = # tokens of what runs and of what is copied out, 'N' first", "at least #"),),
    "copied-tokens": (("at most # tokens (# input, # generated)", "#"),),
    "copy-order": (("a copy that begins at # or later and ends no earlier than it begins", "one from # to #"),),
    "cpu-memory": (("at most C = # tokens in CPU memory", "at least #"),),
    "decode-after-copy": (("no output of 'N' before #", "output at #"),),
    "deficit-ceiling": (("a deficit of at most #", "#"),),
    "deficit-floor": (("a deficit above -U = #", "#"),),
    "deliver-kept": (("at most # updates, which it kept back", "#"),),
    "dispatch-first": (
        ("a dispatch before the arrival", "an arrival at worker #"),
        ("an arrival at worker #", "an arrival at worker #"),
    ),
    "dispatch-known-worker": (("a worker below #", "#"),),
    "dispatch-matched": (
        ("workers in order, each sent something before", "#, which was sent nothing"),
        ("workers in order, each sent something before", "[#, #]"),
    ),
    "dispatch-once": (("a request that is not in flight", "'N', which is"),),
    "dispatch-same-request": (("client 'N' and # input tokens, as dispatched", "'N' and #"),),
    "extend-positive": (("extend >= #", "#"),),
    "fcfs-head": (("'N' of 'N', the earliest in the queue", "'N'"),),
    "finish-running": (("a running request", "'N', which is not there"), ("a running request", "'N', which is queued")),
    "finish-with-output": (("output since its admission", "none"),),
    "fixpoint-fit": (
        (f"'N' of 'N' admitted before the forward: {_FREE}", "'N' still waiting"),
        (f"'N' of 'N' admitted before the forward: {_FREE}", "'N' and # more still waiting"),
    ),
    "fixpoint-refill": (
        ("a refill before the forward: nobody who is queued has credit", "none, while 'N' wait"),
        (
            "a refill before the forward: since line # nobody who waits anywhere has credit, as the keeper knows",
            "none, while # wait here",
        ),
    ),
    "forward-once": (("one forward in step #", "another"),),
    "free-memory": (("free tokens from # to #", "#"),),
    "gap-any": ((f"at most #(U+Q) = # {_GAP}", "'N' got # more since line #"),),
    "gap-backlogged": ((f"at most #(U+Q) = # {_GAP}", "'N' got # more since line #"),),
    "gate": (("no admission of 'N' at a deficit of #", "request 'N' admitted"),),
    "idle-forward": (("a request in the batch", "a forward step without one"),),
    "known-client": (
        ("counters of clients that have arrived", "'N'"),
        ("deficits of clients that have arrived", "'N'"),
    ),
    "max-running": (("at most # running requests", "#"),),
    "memory-overbooked": (("at most M = # tokens held or reserved by the running requests", "at least #"),),
    "move-credit": (("no move to worker #, where 'N' has #", "'N' moved from worker #"),),
    "move-needless": (("no move to worker #, where 'N' waits with # of credit", "'N' moved from worker #"),),
    "order-arrival": (("'N' before 'N': it arrived first", "it comes after it"),),
    "order-covers-queue": (
        ("the # requests of the waiting queue, among them 'N'", "# of them"),
        ("the # requests of the waiting queue", "'N', not in the queue"),
    ),
    "order-longest-first": (
        ("'N' before 'N', which matches #: it matches # tokens", "it comes after it"),
        ("'N' before 'N', which matches #: it matches # tokens, too, and arrived before it", "it comes after it"),
    ),
    "output-complete": (("output of all # running requests", "none of 'N'"),),
    "output-in-limit": ((f"at most # {_OUTPUT}", "#"),),
    "output-running": (("output of running requests only", "output of 'N', not running"),),
    "preempt-running": (("a running request", "'N', which is queued"),),
    "preempt-victim": (
        ("'N', whom the rule fewest_outputs picks before 'N'", "'N'"),
        ("'N', whom the rule last picks before 'N'", "'N'"),
    ),
    "prefill-first": (("no output of 'N': # tokens of its prompt are left", "#"),),
    "recompute-payer": (
        ("'N' pays: it had most requests running", "'N'"),
        ("'N' pays: it had most requests running", "none"),
        ("no other payer", "'N'"),
    ),
    "refill-alike": (("# + # = #, as the others get", "#"),),
    "refill-amount": (("# + # = #", "#"),),
    "refill-credit": (
        ("no refill at a deficit of #", "#"),
        ("no refill of 'N', which has # as the keeper knows", "#"),
    ),
    "refill-due": (
        ("no refill while 'N' is queued and has # of credit", "a refill"),
        ("no refill while nobody is queued", "a refill"),
        ("no refill while 'N' waits somewhere and has #, as the keeper knows", "a refill"),
        ("no refill while nobody waits anywhere", "a refill"),
    ),
    "refill-forgot": (("'N' among those refilled: at or below #", "not refilled"),),
    "refill-idle": (
        ("nothing for 'N': nothing of it is queued or running", "a quantum"),
        ("nothing for 'N': nothing of it is queued or running, and it has no debt", "a quantum"),
    ),
    "refill-range": (("# + a quantum from # to #", "#"),),
    "refund-conserved": (("# tokens given back for # charged and # computed", "#"),),
    "refund-paid": (("at most # tokens back so far, for # charged among # clients", "#"),),
    "refill-twice": (("# + # = #", "#"),),
    "resident": (("matched + extend = # (# input, # generated before)", "# + # = #"),),
    "resume-first": (("no admission while 'N' is away", "'N' admitted"),),
    "resume-swapped": (("a request that was swapped out", "'N', which was not"),),
    "router-charge": (
        ("a counter of #: # less # for # input tokens", "#"),
        ("a counter of #: # less # that moved from worker #", "#"),
    ),
    "router-credit": (
        ("one of the workers [#, #], which have credit", "#"),
        ("one of the workers [#], which have credit", "#"),
    ),
    "router-locality": (("one of [#], with the prefix and with credit", "#"),),
    "router-refill": (("a counter of #: # less # for # input tokens", "#"),),
    "router-shortest": (("worker #, with # requests", "#, with #"),),
    "router-tie": (("worker #, the lowest of those with #", "#"),),
    "shared-bill": (
        ("from # to # tokens charged, where the payer is alone", "#"),
        ("from # to # tokens charged, where the payer is first", "#"),
        ("from # to # tokens charged, where the payer is split", "#"),
    ),
    "split-ceiling": (("a deficit of at most #, for # clients that split", "#"),),
    "router-turn": (("worker #, whose turn it is", "#"),),
    "shared-view": (
        ("# for 'N' before its charge", "#: updates are missing that it must have heard of"),
        ("# for 'N' before its charge", "#: updates count twice"),
        ("# for 'N' before its charge", "#: updates count that are still on their way"),
    ),
    "step-order": (("a step of at least #", "#"),),
    "swap-charge": (("#", "#"),),
    "time-order": (("a time of at least #", "#"),),
    "vtc-charge-input": (("# + # = # for # tokens of input", "#"),),
    "vtc-charge-output": ((f"# + # = # for # {_OUTPUT}", "#"),),
    "vtc-charge-preempt": (("#", "#"),),
    "vtc-first-of-client": (("'N', the earliest of 'N' in the queue", "'N'"),),
    "vtc-least-served": (("a request of 'N', whose counter is #", "'N' of 'N', whose counter is #"),),
    "vtc-lift": (("#: 'N' came back and is lifted to #", "#, as without the lift"),),
    "work-conserving": (("a forward in step #: # requests wait, # run", "step # without one"),),
}

OF_NO_REQUEST = {
    "charge-output",
    "deficit-ceiling",
    "deficit-floor",
    "deliver-kept",
    "fixpoint-refill",
    "forward-once",
    "gap-any",
    "gap-backlogged",
    "idle-forward",
    "known-client",
    "order-covers-queue",
    "refill-alike",
    "refill-amount",
    "refill-credit",
    "refill-due",
    "refill-forgot",
    "refill-idle",
    "refill-range",
    "refill-twice",
    "shared-view",
    "step-order",
    "time-order",
    "vtc-charge-output",
    "work-conserving",
}
"""Rules that are about a client or a step."""

OF_NO_CLIENT = {
    "deliver-kept",
    "dispatch-first",
    "forward-once",
    "idle-forward",
    "known-client",
    "order-covers-queue",
    "step-order",
    "time-order",
    "work-conserving",
}
"""Rules that are about a step, or about somebody who is unknown."""

OF_ANOTHER_CLIENT = {
    "admit-in-order",
    "charge-recompute",
    "charge-refund",
    "fcfs-head",
    "recompute-payer",
    "refund-paid",
    "vtc-least-served",
}
"""Rules whose violation shows the client that was passed over, should pay, or gets something back."""


def general(text: str) -> str:
    """The words of a text."""
    named = re.sub(r"'[^']*'", "'N'", re.sub(r"-?\d+", "#", text))
    return re.sub(r"'N'(, 'N')+", "'N'", named)


def assert_well_described(log: Log, violation: Violation) -> None:
    """The violation says what its rule says, and names the line's request and its client."""
    rule = violation.rule
    assert (general(violation.expected), general(violation.found)) in WORDS[rule], violation
    _assert_numbers_agree(violation)
    line: Any = log[violation.line - 1]
    said = violation.expected + violation.found
    assert violation.time_us == line.get("time_us"), violation
    if (rule == "vtc-lift" and "request" not in line) or rule in OF_NO_REQUEST:
        assert violation.request is None, violation
    elif "request" in line:
        assert violation.request == line["request"], violation
    else:
        assert violation.request is not None, violation
        assert f"{violation.request!r}" in said, violation
    for ending, event in (("' admitted", "admit"), ("' goes on", "chunk")):
        assert not violation.found.endswith(ending) or line["event"] == event, violation
    if rule in OF_NO_CLIENT or said.startswith("no refill while nobody"):
        assert violation.client is None, violation
        return
    clients = {other["request"]: other["client"] for other in map(dict[str, Any], log) if "client" in other}
    if violation.request is None:
        assert violation.client is not None, violation
    elif violation.request not in clients:
        assert violation.client is None, violation
    elif rule in OF_ANOTHER_CLIENT:
        assert violation.client is not None, violation
    else:
        assert violation.client in (clients[violation.request], None if _gone(log, violation) else ""), violation
    named = re.findall(r"(?:of|for|while|nothing for|client) '([^']*)'", violation.expected)
    if violation.request is None and named:
        assert violation.client in named, violation
    if violation.client is not None and violation.worker is None and line.get("event") != "dispatch":
        policy = log[0]["policy"]
        assert (violation.client in violation.ledger) is (policy in ("dlpm", "vtc")), violation


def _assert_numbers_agree(violation: Violation) -> None:
    """Numbers in the words of one violation are those of one calculation."""
    said = violation.expected
    if sum_ := re.match(r"(-?\d+) ([+-]) (-?\d+) = (-?\d+)", said):
        left, sign, right, total = sum_.groups()
        assert int(left) + int(f"{sign}1") * int(right) == int(total), violation
        assert violation.rule == "refill-alike" or violation.found != total, violation
    if tie := re.search(r"matches (\d+): it matches (\d+)", said):
        assert (tie[1] == tie[2]) is said.endswith("too, and arrived before it"), violation
    if lift := re.match(r"(\d+): .* is lifted to (\d+)", said):
        # What was charged at this event is on top of the lift; without the lift, on top of less.
        assert int(lift[1]) - int(lift[2]) >= 0, violation
        assert int(violation.found.split(",")[0]) < int(lift[1]), violation


def _gone(log: Log, violation: Violation) -> bool:
    """Whether the request that is named has finished before, so that nothing is remembered of it."""
    return any(
        line.get("event") == "finish" and line.get("request") == violation.request for line in log[: violation.line - 1]
    )
