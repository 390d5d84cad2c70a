"""What a run was worth: service, fairness, latency and cache hits, gathered from its events in one pass.

`RunMetrics` is an event sink: hand its `on_event` to a worker, or feed it a log. The definitions are the paper's [DLPM
§6.1] where it has one; the gap over every interval is in `dlpm.gap`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import Admit, Arrive, Event, Finish, Output, Preempt, Refill
from dlpm.gap import BothGaps, Gaps
from dlpm.request import ClientId, RequestId
from dlpm.service_curve import ServiceLine
from dlpm.summary import ClientSummary, CurvePoint, RunSummary, jain_index, quantiles

GAP_CLIENTS = 64
"""How many clients, the first to arrive, are watched for service gaps unless told otherwise."""


class _Request:
    """What is remembered of a request until it finishes."""

    __slots__ = ("arrived_us", "client", "input", "waits_for_first_token")

    def __init__(self, client: _Client, tokens: int, arrived_us: int) -> None:
        """As it arrived, with ``tokens`` of input."""
        self.client = client
        self.input = tokens
        self.arrived_us = arrived_us
        self.waits_for_first_token = True


class _Client:
    """Running totals of one client."""

    __slots__ = (
        "extend", "finished", "first_arrival", "first_arrival_us", "input", "last_finish", "last_finish_us", "latency",
        "line", "matched", "name", "preemptions", "queued", "requests", "running", "ttft", "watched",
    )  # fmt: skip

    def __init__(self, name: ClientId, step: int, time_us: int, watched: bool) -> None:
        """As its first request arrives, after forward step ``step``."""
        self.name = name
        self.watched = watched
        self.line = ServiceLine(step)
        self.queued = 0
        self.running = 0
        self.requests = 0
        self.finished = 0
        self.preemptions = 0
        self.input = 0
        self.matched = 0
        self.extend = 0
        self.first_arrival = step
        self.first_arrival_us = time_us
        self.last_finish = step
        self.last_finish_us = time_us
        self.ttft = array("q")
        self.latency = array("q")


class RunMetrics:
    """Consumes the events of a run in order, and sums them up.

    The events must be those of a valid run (`dlpm check` says so of a log): an output names running requests only.
    Where events carry no time, what needs time is ``None`` in the summary.

    Backlogged, in `RunSummary.gaps_in_queue`: a client has a request in the waiting queue, from the arrival or
    preemption that puts the first one there until the admission of the last, whose own service falls outside. In
    `RunSummary.gaps_at_refills` it is the weaker notion under which the theorems are proven, so more intervals count:
    a client has a request in the queue at every refill of the interval, whatever happens between refills.

    Several workers can share one collector: an interval then runs over the outputs of all, and backlogged means on any.

    Cost: an output in which every running request yields one token is O(1) Python steps (and one pass over its tokens
    at C speed), plus O(watched clients) for each client whose running batch changed since the output before; any other
    output is O(tokens + clients * watched clients). Arrival, admission and preemption are O(watched clients), finish is
    O(1), and a refill O(watched clients) for each watched client without a queued request. Memory is O(requests +
    forward steps + watched clients squared).
    """

    def __init__(self, cost: CostModel, *, gap_clients: int | None = GAP_CLIENTS) -> None:
        """An empty run. The first ``gap_clients`` clients to arrive are watched for service gaps (``None``: all)."""
        self._cost = cost
        self._gap_clients = gap_clients
        self._clients: dict[ClientId, _Client] = {}
        self._requests: dict[RequestId, _Request] = {}
        self._running = 0
        self._refills = 0
        self._workers: set[int | None] = set()
        self._timed = True
        self._start_us: int | None = None
        self._end_us = 0
        self._step = 0
        self._step_end_us = array("q")
        self._awaited: dict[RequestId, _Request] = {}
        self._stale: dict[ClientId, _Client] = {}
        self._in_queue = BothGaps()
        self._at_refills = BothGaps()
        self._watchers = (self._in_queue, self._at_refills)

    def on_event(self, event: Event) -> None:
        """Take the next event of the run. Events that carry no service and no membership are passed over.

        Raises:
            InputError: if an event names a request that has not arrived, or has finished.
        """
        if isinstance(event, Output):
            self._output(event)
        elif isinstance(event, Admit):
            self._admit(event)
        elif isinstance(event, Finish):
            self._finish(event)
        elif isinstance(event, Arrive):
            self._arrive(event)
        elif isinstance(event, Refill):
            self._refill(event)
        elif isinstance(event, Preempt):
            self._preempt(event)

    def summary(self, curve_points: int = 200) -> RunSummary:
        """All numbers of the run so far, with ``curve_points`` (>= 2) points on each client's service curve.

        O(requests log requests + clients * points * log requests + watched clients squared). It may be asked for at any
        time, and more than once.
        """
        clients = {name: self._client_summary(client, curve_points) for name, client in self._clients.items()}
        active = self._all_active()
        jain = jain_actual = None
        if active is not None:
            shares = [client.line.after(active[1]) - client.line.after(active[0]) for client in self._clients.values()]
            jain = jain_index([share.perceived for share in shares])
            jain_actual = jain_index([share.actual for share in shares])
        timed = self._timed and self._start_us is not None
        return RunSummary(
            requests=sum(client.requests for client in clients.values()),
            finished=sum(client.finished for client in clients.values()),
            preemptions=sum(client.preemptions for client in clients.values()),
            refills=self._refills,
            forward_steps=self._step,
            start_us=self._start_us if timed else None,
            end_us=self._end_us if timed else None,
            input_tokens=sum(client.input_tokens for client in clients.values()),
            matched_tokens=sum(client.matched_tokens for client in clients.values()),
            extend_tokens=sum(client.extend_tokens for client in clients.values()),
            output_tokens=sum(client.output_tokens for client in clients.values()),
            service=sum(client.service for client in clients.values()),
            perceived_service=sum(client.perceived_service for client in clients.values()),
            all_active_steps=active,
            jain=jain,
            jain_actual=jain_actual,
            ttft=quantiles(value for client in clients.values() for value in client.ttft_us),
            latency=quantiles(value for client in clients.values() for value in client.latency_us),
            watched_clients=sum(1 for client in self._clients.values() if client.watched),
            gaps_in_queue=self._in_queue.gaps(),
            gaps_at_refills=self._at_refills.gaps() if self._refills and len(self._workers) == 1 else None,
            clients=clients,
        )

    def gaps_in_queue(self) -> Gaps:
        """`RunSummary.gaps_in_queue` so far, to follow a run as it goes. O(watched clients squared)."""
        return self._in_queue.gaps()

    # -- events ----------------------------------------------------------------------------------------------------

    def _arrive(self, event: Arrive) -> None:
        """A request joins the queue; its client, if new, joins the run."""
        now_us = self._time(event)
        sent_us = now_us if event.arrived_us is None else event.arrived_us
        if self._start_us is None or sent_us < self._start_us:
            self._start_us = sent_us
        self._workers.add(event.worker)
        client = self._clients.get(event.client)
        if client is None:
            watched = self._gap_clients is None or len(self._clients) < self._gap_clients
            client = self._clients[event.client] = _Client(event.client, self._step, sent_us, watched)
            if watched:
                self._at_refills.backlogged(client.name)
        self._requests[event.request] = _Request(client, event.input, sent_us)
        client.requests += 1
        self._enqueue(client)

    def _admit(self, event: Admit) -> None:
        """A request joins the running batch: its client leaves the backlog with its last one, then receives service."""
        self._time(event)
        request = self._known(event.request)
        client = request.client
        client.queued -= 1
        client.running += 1
        self._running += 1
        self._stale[client.name] = client
        client.matched += event.matched
        client.extend += event.extend
        actual = self._cost.extend(event.extend)
        perceived = 0
        if request.waits_for_first_token and event.request not in self._awaited:
            self._awaited[event.request] = request
            client.input += request.input
            perceived = self._cost.extend(request.input)
        client.line.jump(self._step, actual, perceived)
        if client.watched:
            if not client.queued:
                self._in_queue.idle(client.name)
            for gaps in self._watchers:
                gaps.serve(client.name, actual)

    def _output(self, event: Output) -> None:
        """One forward step of one worker."""
        now_us = self._time(event)
        tokens = event.tokens
        size = len(tokens)
        if size == self._running and list(tokens.values()).count(1) == size:
            # As many as are running, and only running ones are named: all are, with a token each.
            for client in self._stale.values():
                self._change_rate(client, self._cost.output(client.running))
            self._stale.clear()
        else:
            self._uneven_output(event)
        self._step += 1
        self._step_end_us.append(now_us)
        for gaps in self._watchers:
            gaps.step()
        if self._awaited:
            for name in [name for name in self._awaited if tokens.get(name)]:
                request = self._awaited.pop(name)
                request.waits_for_first_token = False
                request.client.ttft.append(now_us - request.arrived_us)

    def _uneven_output(self, event: Output) -> None:
        """A forward step in which not every running request yields one token: its rates hold for this step only."""
        received: dict[ClientId, int] = {}
        for name, count in event.tokens.items():
            client = self._known(name).client
            received[client.name] = received.get(client.name, 0) + count
        for client in self._clients.values():
            self._change_rate(client, self._cost.output(received.get(client.name, 0)))
        self._stale = dict(self._clients)

    def _finish(self, event: Finish) -> None:
        """A request leaves the run with all its output."""
        now_us = self._time(event)
        request = self._known(event.request)
        client = request.client
        del self._requests[event.request]
        self._awaited.pop(event.request, None)  # If it was cut off before its first token.
        client.running -= 1
        self._running -= 1
        self._stale[client.name] = client
        client.finished += 1
        client.last_finish = self._step
        client.last_finish_us = now_us
        client.latency.append(now_us - request.arrived_us)

    def _preempt(self, event: Preempt) -> None:
        """A request goes back to the queue."""
        self._time(event)
        client = self._known(event.request).client
        client.running -= 1
        self._running -= 1
        self._stale[client.name] = client
        client.preemptions += 1
        self._enqueue(client)

    def _refill(self, event: Refill) -> None:
        """Quanta were paid out: whoever had nothing in the queue has its refill-wise backlog broken here."""
        self._time(event)
        self._refills += 1
        for client in self._clients.values():
            if client.watched and not client.queued:
                self._at_refills.idle(client.name)
                self._at_refills.backlogged(client.name)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _enqueue(self, client: _Client) -> None:
        """One more request of ``client`` waits."""
        client.queued += 1
        if client.queued == 1 and client.watched:
            self._in_queue.backlogged(client.name)

    def _change_rate(self, client: _Client, rate: int) -> None:
        """From this forward step on, each is worth ``rate`` to ``client``."""
        if client.line.rate != rate:
            client.line.change_rate(self._step, rate)
            if client.watched:
                for gaps in self._watchers:
                    gaps.rate(client.name, rate)

    def _known(self, name: RequestId) -> _Request:
        """The request of that name, which has arrived and not finished."""
        request = self._requests.get(name)
        if request is None:
            raise InputError(f"expected a request that arrived and has not finished, found {name!r}", field="request")
        return request

    def _time(self, event: Event) -> int:
        """When the event happened; 0, and a run without times, if it does not say."""
        if event.time_us is None:
            self._timed = False
            return 0
        self._end_us = event.time_us
        return event.time_us

    # -- summary ---------------------------------------------------------------------------------------------------

    def _all_active(self) -> tuple[int, int] | None:
        """Forward steps between which all clients were active [DLPM §6.1], or ``None`` if there is no such time.

        From the latest first arrival of a client to the earliest last finish; a client with unfinished requests is
        still active.
        """
        if not self._clients:
            return None
        start = max(client.first_arrival for client in self._clients.values())
        end = min(
            client.last_finish if client.finished == client.requests else self._step
            for client in self._clients.values()
        )
        return (start, end) if start < end else None

    def _client_summary(self, client: _Client, curve_points: int) -> ClientSummary:
        """The numbers of one client."""
        service = client.line.now(self._step)
        decoded = service.actual - self._cost.extend(client.extend)
        return ClientSummary(
            requests=client.requests,
            finished=client.finished,
            preemptions=client.preemptions,
            input_tokens=client.input,
            matched_tokens=client.matched,
            extend_tokens=client.extend,
            output_tokens=decoded // self._cost.output_weight,
            service=service.actual,
            perceived_service=service.perceived,
            first_arrival_us=client.first_arrival_us if self._timed else None,
            last_finish_us=client.last_finish_us if self._timed and client.finished else None,
            ttft_us=tuple(sorted(client.ttft)) if self._timed else (),
            latency_us=tuple(sorted(client.latency)) if self._timed else (),
            curve=tuple(self._curve(client.line, curve_points)),
        )

    def _curve(self, line: ServiceLine, points: int) -> Iterator[CurvePoint]:
        """Exact service at moments evenly spread over the run: in time, or in forward steps if it has no time."""
        if points < 2:
            raise InputError(f"expected at least 2 points, found {points}", field="curve_points")
        start_us = self._start_us or 0
        for index in range(points):
            if self._timed:
                time_us = start_us + (self._end_us - start_us) * index // (points - 1)
                step = bisect_right(self._step_end_us, time_us)
            else:
                time_us = None
                step = self._step * index // (points - 1)
            here = line.after(step)
            yield CurvePoint(step, time_us, here.actual, here.perceived)
