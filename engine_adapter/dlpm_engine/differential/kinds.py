"""The kinds of decision that a campaign must have reached before its result means anything."""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "admitted cold": "an admission with nothing cached",
    "admitted from cache": "an admission with a part of its prompt cached",
    "admitted whole from cache": "an admission of which only the last token is computed",
    "one-token prompt": "an admission of a prompt of one token",
    "tie on the match": "requests of two clients that match equally many tokens, more than none",
    "match grew in the step": "a match longer at admission than when the order was made",
    "match shrank in the step": "a match shorter at admission than when the order was made",
    "match grew while waiting": "a request matches more than when it was last ordered",
    "match shrank while waiting": "a request matches less than when it was last ordered: evicted, to be matched again",
    "admitted in a later pass": "an admission of a request that stood before one admitted earlier in the step",
    "gated request passed over": "an admission behind a waiting request whose client has no credit",
    "gate at exactly zero": "a counter of exactly zero after a charge",
    "refill before any admission": "a check-refill that fires before anything was admitted in the step",
    "refill in mid-pass": "a check-refill that fires after an admission in the same step",
    "refills in a row": "two check-refills with no admission between them: debt deeper than a quantum",
    "refill of an absent client": "a client with nothing queued gets its quantum",
    "absent client keeps its credit": "a refill passes over a registered client that still has credit",
    "skipped for memory": "an admission behind a waiting request whose client has credit but which does not fit",
    "memory exactly full": "no free token after an admission",
    "batch full": "a client with credit waits because the batch has its largest size",
    "eviction at an admission": "an eviction in the admission phase",
    "eviction for outputs": "an eviction to make room for a forward step",
    "eviction at a finish": "an eviction to make room for a reply",
    "eviction beside locked blocks": "an eviction while requests run",
    "preemption": "a running request leaves the batch for want of memory",
    "preemption before its first forward": "a preemption in the step of the admission: its blocks are discarded",
    "several preemptions in a step": "more than one",
    "re-admission": "a preempted request is admitted again",
    "re-admission from cache": "a preempted request is admitted again and finds some of its blocks",
    "finish in the first step": "a request that generates one token",
    "client returns in debt": "an arrival of a client that was away and has no credit",
    "client returns with credit": "an arrival of a client that was away and has credit left",
    "request refused": "a request that could never fit is refused at submission",
    "left int64": "a counter leaves the range of int64",
}
"""Name, and what a case does that counts for it."""
