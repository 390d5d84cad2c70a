"""What the checker keeps of a log: its live requests and its clients, nothing that grows with the log's length."""

from __future__ import annotations

from collections import deque

import orjson

QUEUED = 0
RUNNING = 1
GONE = 2

RECENT_EVENTS = 6
"""How many of its own events are remembered for each client, for the report of a violation."""


class ClientState:
    """One client at one worker, as the log so far implies it.

    Attributes:
        id: its name.
        quantum: what a refill pays it, or 0 for a policy without refills.
        deficit: its counter (a deficit under DLPM, a virtual counter under VTC), in weighted tokens.
        doubtful: a violation has left its counter unknown; the next one that the log names is taken as it is.
        queued: its requests in the waiting queue.
        running: its requests in the running batch.
        service: weighted tokens it has received.
        broken_floors: the floors that its deficit is below, which has been reported.
        recent: its last events, as line numbers and lines.
        backlog_line: the line from which it has been backlogged without interruption, or 0.
        peaks: while backlogged, for each other client that may have been served since, the largest value of (own
            service - the other's service) in this backlog; see `gap.py`.
        peak_lines: for each of these, the line before which it was reached.
        alarm: the total at which its row must be looked at; see `gap.py`.
    """

    __slots__ = (
        "alarm",
        "backlog_line",
        "broken_floors",
        "deficit",
        "doubtful",
        "id",
        "peak_lines",
        "peaks",
        "quantum",
        "queued",
        "recent",
        "running",
        "service",
    )

    def __init__(self, client_id: str, quantum: int) -> None:
        """A client that arrives for the first time starts at 0 [DLPM Alg. 1 l. 12]."""
        self.id = client_id
        self.quantum = quantum
        self.deficit = 0
        self.doubtful = False
        self.queued = 0
        self.running = 0
        self.service = 0
        self.broken_floors: set[str] = set()
        self.recent: deque[tuple[int, bytes]] = deque(maxlen=RECENT_EVENTS)
        self.backlog_line = 0
        self.peaks: dict[ClientState, int] = {}
        self.peak_lines: dict[ClientState, int] = {}
        self.alarm = 0


class RequestState:
    """One live request.

    Attributes:
        id: its name.
        client: whose it is.
        input: prompt tokens.
        max_output: most output tokens.
        rank: its place in the order of arrival at this worker; kept through a preemption.
        status: `QUEUED`, `RUNNING` or `GONE`.
        generated: output tokens before its latest admission, corrected by steps that gave it other than one.
        joined: forward steps that the worker had done at its latest admission.
        held: tokens it certainly holds or has reserved while it runs; see `memory.py`.
        extend: extend tokens of its latest admission.
        due: the forward step after which it has its maximum output.
        preempted_in: the step in which it was last preempted, or -1.
        one_token: what an output event says of it if it gets one token.
        order_number: the `order` event that named it last.
        position: its place there.
        reported: it has been reported as waiting although it certainly fits.
    """

    __slots__ = (
        "client",
        "due",
        "extend",
        "generated",
        "held",
        "id",
        "input",
        "joined",
        "max_output",
        "one_token",
        "order_number",
        "position",
        "preempted_in",
        "rank",
        "reported",
        "status",
    )

    def __init__(self, request_id: str, client: ClientState, input_tokens: int, max_output: int, rank: int) -> None:
        """A request that has just arrived."""
        self.id = request_id
        self.client = client
        self.input = input_tokens
        self.max_output = max_output
        self.rank = rank
        self.status = QUEUED
        self.generated = 0
        self.joined = 0
        self.held = 0
        self.extend = 0
        self.due = 0
        self.preempted_in = -1
        self.one_token = orjson.dumps(request_id) + b":1"
        self.order_number = 0
        self.position = 0
        self.reported = False
