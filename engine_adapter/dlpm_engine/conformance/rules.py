"""Every rule that a log is held to: its id, one sentence, where it comes from, and which logs it is for."""

from __future__ import annotations

from collections.abc import Mapping

from dlpm_engine.conformance.extensions.registry import EXTENSIONS
from dlpm_engine.conformance.promises import EXTENSION_BOUNDS
from dlpm_engine.conformance.rule import ANY, D2LPM, DLPM, FCFS, KNOWN, LPM, VTC, Rule


def _router_rule(rule_id: str, sentence: str, source: str, routers: tuple[str, ...]) -> Rule:
    """A rule about a cluster's router, whatever the policy of its workers."""
    return Rule(rule_id, sentence, source, policies=(), routers=routers)


_ALL = (
    # The stream of events.
    Rule("step-order", "The step of a worker never goes back.", "events format"),
    Rule("time-order", "Time never goes back in a log.", "events format"),
    Rule("dispatch-first", "A request arrives at the worker that the router sent it to.", "events format"),
    # The life of a request.
    Rule("arrive-once", "A request arrives once while it is queued or running.", "DLPM Alg. 1 ll. 11-13"),
    Rule("arrive-in-limits", "A request keeps to the stated limits on input, output and memory.", "DLPM Table 1"),
    Rule("admit-queued", "Only a request in the waiting queue is admitted.", "DLPM Alg. 1 ll. 18-24"),
    Rule("extend-positive", "Every admission computes at least one token.", "DLPM §4.1"),
    Rule("resident", "Matched and extend tokens together are the tokens a request needs in memory.", "DLPM §3"),
    Rule("output-running", "Only running requests get output tokens.", "DLPM Alg. 1 ll. 25-26"),
    Rule("output-complete", "Every running request gets output in every forward step.", "DLPM Alg. 1 ll. 25-26"),
    Rule("output-in-limit", "No request generates more than its maximum output.", "DLPM Table 1"),
    Rule("idle-forward", "No forward step runs on an empty batch.", "DLPM §3, property 3"),
    Rule("forward-once", "A step has one forward.", "DLPM Alg. 1 ll. 15-27"),
    Rule("finish-running", "Only a running request finishes.", "DLPM Alg. 1 l. 27"),
    Rule("finish-with-output", "A request has got output since its admission when it finishes.", "DLPM Alg. 1 l. 27"),
    Rule("preempt-running", "Only a running request is preempted.", "events format"),
    Rule("known-client", "A counter belongs to a client that has arrived.", "DLPM Alg. 1 l. 12", (*DLPM, *VTC)),
    # Memory and batch.
    Rule("max-running", "The running batch is no larger than its stated limit.", "DLPM Alg. 1 l. 21"),
    Rule("memory-overbooked", "Under reserving memory, running requests never hold more than M.", "DLPM App. A.1"),
    Rule("free-memory", "Free memory is what M leaves beside the running requests.", "events format"),
    Rule(
        "work-conserving",
        "A step with requests runs a forward, and no step is left out while there are requests.",
        "DLPM §3, property 3",
        KNOWN,
    ),
    # Deficit Longest Prefix Match.
    Rule("gate", "A client is admitted only while its deficit is positive.", "DLPM Alg. 1 l. 21", DLPM),
    Rule("charge-extend", "An admission costs its extend tokens, no more, no less.", "DLPM Alg. 1 l. 23", DLPM),
    Rule("charge-output", "A forward step costs each client its output tokens.", "DLPM Alg. 1 l. 26", DLPM),
    Rule("charge-preempt", "A preemption neither charges nor refunds.", "DLPM Alg. 1", DLPM),
    Rule(
        "refill-due", "No refill while a queued client has credit, nor with nobody queued.", "DLPM Alg. 1 ll. 4-5", DLPM
    ),
    Rule("refill-credit", "A refill pays no client that still has credit.", "DLPM Alg. 1 l. 7", DLPM),
    Rule("refill-twice", "A refill pays a client its quantum once, not twice.", "DLPM Alg. 1 l. 7", DLPM),
    Rule("refill-amount", "A refill pays each client exactly its quantum.", "DLPM Alg. 1 l. 7", DLPM),
    Rule("refill-forgot", "A refill forgets no registered client at or below 0.", "DLPM Alg. 1 ll. 6-7", DLPM),
    Rule("fixpoint-refill", "No forward while a refill is due.", "DLPM Alg. 1 ll. 17-20", DLPM),
    Rule("deficit-ceiling", "No deficit is above its client's quantum.", "DLPM App. A.1 eq. 1", DLPM, theorem=True),
    Rule("deficit-floor", "Every deficit stays above -U.", "DLPM App. A.1 eq. 2", DLPM, theorem=True),
    Rule(
        "deficit-floor-proven",
        "No deficit is below the floor proven for this memory and these limits.",
        "docs/theorems.md, T2",
        DLPM,
        theorem=True,
    ),
    Rule(
        "gap-backlogged",
        "Over any interval, the service of two backlogged clients differs by at most 2(U+Q).",
        "DLPM Thm 4.1",
        DLPM,
        theorem=True,
    ),
    Rule(
        "gap-any",
        "Over any interval, no client gets over 2(U+Q) more service than a backlogged one.",
        "DLPM Thm 4.2",
        DLPM,
        theorem=True,
    ),
    # The considered order (level `full`).
    Rule("order-covers-queue", "The considered order names the waiting queue.", "DLPM Alg. 1 l. 18", KNOWN),
    Rule(
        "order-longest-first",
        "The considered order is longest match first, ties by arrival.",
        "DLPM Alg. 1 l. 16",
        (*DLPM, *LPM),
    ),
    Rule("order-arrival", "The considered order is the order of arrival.", "first come, first served", FCFS),
    Rule(
        "admit-in-order",
        "No admission passes over an earlier request that may run and certainly fits.",
        "DLPM Alg. 1 ll. 18-24",
        (*DLPM, *LPM),
    ),
    Rule(
        "fixpoint-fit",
        "No forward while a request that may run and certainly fits still waits.",
        "DLPM Alg. 1 ll. 17-24",
        KNOWN,
    ),
    # First come, first served.
    Rule("fcfs-head", "The earliest request in the queue is admitted first.", "first come, first served", FCFS),
    # Virtual token counter.
    Rule("vtc-least-served", "A client with the least counter among the queued is served.", "VTC Alg. 2", VTC),
    Rule("vtc-first-of-client", "Within a client the earliest request is served first.", "VTC Alg. 2", VTC),
    Rule("vtc-charge-input", "An admission costs the whole input, cached or not.", "VTC Alg. 2", VTC),
    Rule("vtc-charge-output", "A forward step costs each client its output tokens.", "VTC Alg. 2", VTC),
    Rule("vtc-lift", "A client that comes back is lifted to those that stayed.", "VTC Alg. 2", VTC),
    Rule("vtc-charge-preempt", "A preemption neither charges nor refunds.", "VTC Alg. 2", VTC),
    Rule(
        "vtc-apart",
        "The counters of two queued clients are at most max(w_p L, w_q M) apart.",
        "VTC Thm 4.4, its lemma",
        VTC,
        theorem=True,
    ),
    # The router of a cluster.
    _router_rule("dispatch-once", "A request is dispatched once while it is in flight.", "DLPM Alg. 2 ll. 12-18", ANY),
    _router_rule("dispatch-known-worker", "A request is sent to a worker that exists.", "DLPM Alg. 2 l. 15", ANY),
    _router_rule("dispatch-matched", "Only a worker that was sent something has a prefix.", "DLPM Alg. 2 l. 18", ANY),
    _router_rule("dispatch-same-request", "What arrives at a worker is what was dispatched.", "events format", ANY),
    _router_rule(
        "router-charge",
        "A dispatch costs its input tokens at that worker, a finish its output tokens, and nothing else costs.",
        "DLPM Alg. 2 ll. 16, 22",
        D2LPM,
    ),
    _router_rule(
        "router-refill",
        "Every counter of a client gets its worker quantum at once, as often as none has credit and no more.",
        "DLPM Alg. 2 ll. 5-6",
        D2LPM,
    ),
    _router_rule("router-credit", "A client is sent only where it has credit.", "DLPM Alg. 2 ll. 4, 7", D2LPM),
    _router_rule(
        "router-locality", "A worker with the longest prefix and credit comes first.", "DLPM Alg. 2 ll. 7-8", D2LPM
    ),
    _router_rule(
        "router-shortest",
        "Among these the one with the fewest requests in flight is chosen.",
        "DLPM Alg. 2 l. 8",
        (*D2LPM, "least-loaded"),
    ),
    _router_rule("router-tie", "Among equals it is the lowest index.", "decided here", (*D2LPM, "least-loaded")),
    _router_rule(
        "router-turn",
        "Each request goes to the next worker in turn.",
        "DLPM §6.1",
        ("round-robin", "per-client-round-robin"),
    ),
    # Extensions.
    *EXTENSION_BOUNDS,
    *(rule for extension in EXTENSIONS.values() for rule in extension.rules),
)

RULES: Mapping[str, Rule] = {rule.id: rule for rule in _ALL}
"""Every rule by its id, in the order of docs/rules.md."""

POLICIES = KNOWN
"""The policies that have rules of their own; a log of any other policy is held to the rules for ``any``."""


def rules_for(policy: str, router: str | None = None) -> tuple[Rule, ...]:
    """The rules that a log of ``policy`` is held to, and those of the ``router`` in front of it. O(rules).

    A log that states extensions is held to those of its mode as well.
    """
    return tuple(
        rule
        for rule in RULES.values()
        if rule.policies == ANY
        or policy in rule.policies
        or (router is not None and (rule.routers == ANY or router in rule.routers))
    )
