"""Forward steps: who gets output, and what it costs.

Output events are most of a log's bytes, and most of them can be foretold: one token for each running request, in the
order in which they were admitted. A line that says just that, byte for byte, is read without taking its tokens apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.findings import names
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.odd import OddLineError
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.worker_state import WorkerState

_TOKENS = b'"tokens":{'
_AS_FORETOLD = b'"tokens":null'
_ONE_TYPE = {int}
_TRIALS = 64
"""After so many lines, foretelling goes on only if most of them came out right."""


class Forward:
    """The forward steps of one worker."""

    def __init__(self, state: WorkerState, batch: Batch, discipline: Discipline) -> None:
        """No forward step yet."""
        self._state = state
        self._batch = batch
        self._discipline = discipline
        self._right = 0
        self._tried = 0

    def shortened(self, raw: bytes) -> bytes | None:
        """The line with null in place of its tokens, if they are one for each running request, as foretold.

        What it says must be taken by `even_output`, and only if ``tokens`` is null in it: the bytes could stand
        elsewhere in the line. ``None`` if they are not as foretold, or if that is not worth trying. O(len(raw)).
        """
        if self._tried > _TRIALS and self._right * 2 < self._tried:
            return None
        self._tried += 1
        start = raw.find(_TOKENS)
        foretold = self._state.foretold_tokens()
        if start < 0 or not raw.startswith(foretold, start):
            return None
        self._right += 1
        return raw[:start] + _AS_FORETOLD + raw[start + len(foretold) :]

    def even_output(self, event: Line) -> None:
        """A forward step that gives each running request one token. O(clients in the batch)."""
        deficits = event.get("deficits", {})
        if type(deficits) is not dict:
            raise OddLineError
        self._begin(empty=not self._state.running)
        if "accepted" in event:
            self._accepts(event["accepted"], None)
        self._take_in(deficits, None, sound=True)

    def output(self, event: Line) -> None:
        """A forward step. O(running requests)."""
        tokens = event["tokens"]
        deficits = event.get("deficits", {})
        if type(tokens) is not dict or type(deficits) is not dict:
            raise OddLineError
        counts = list(tokens.values())
        if counts and (set(map(type, counts)) != _ONE_TYPE or min(counts) < 0):
            raise OddLineError
        self._begin(empty=self._is_idle(tokens))
        if "accepted" in event:
            self._accepts(event["accepted"], tokens)
        if self._all_yield() and tokens.keys() == self._state.running.keys() and counts.count(1) == len(counts):
            self._take_in(deficits, None, sound=True)
        else:
            sound = self._check_tokens(tokens)
            self._take_in(deficits, self._served(tokens), sound=sound)

    def _is_idle(self, tokens: Mapping[str, int]) -> bool:
        """Whether the step with these tokens computes nothing."""
        return not tokens and not self._state.running

    def _all_yield(self) -> bool:
        """Whether every running request gets output in the coming forward step."""
        return True

    def _yields(self, request: RequestState) -> bool:
        """Whether a running request gets output in the coming forward step."""
        return True

    def _accepts(self, accepted: Mapping[str, int], tokens: Mapping[str, int] | None) -> None:
        """More was accepted of some requests than they got (``tokens``, or one each); it only has to be readable."""
        self._state.findings.strictly_parsed()

    def _begin(self, *, empty: bool) -> None:
        """Admission is over, and the step has had no forward before this one."""
        state = self._state
        if empty:
            state.violation("idle-forward", expected="a request in the batch", found="a forward step without one")
        elif state.forward_step == state.step:
            state.violation("forward-once", expected=f"one forward in step {state.step}", found="another")
        self._discipline.forwards()

    def _take_in(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None, *, sound: bool) -> None:
        """Count the forward step, and let the policy's rules charge it."""
        state = self._state
        state.forwards += 1
        state.forward_step = state.step
        self._batch.check_output_limit()
        if sound:
            self._discipline.outputs(deficits, served)
        else:
            self._discipline.adopts_outputs(deficits)
        self._batch.forwarded()
        state.recent_outputs.append((state.findings.line, state.findings.raw))

    def _check_tokens(self, tokens: Mapping[str, int]) -> bool:
        """Output goes to those who run, and to all of them; whether it does. O(running requests)."""
        state = self._state
        idle = [request for name, request in state.running.items() if not tokens.get(name) and self._yields(request)]
        wrong = [name for name in tokens if name not in state.running and name not in state.strays]
        if wrong:
            request = state.queued.get(wrong[0])
            state.violation(
                "output-running",
                expected="output of running requests only",
                found=f"output of {names(wrong)}, not running",
                client=request.client if request is not None else None,
                request=wrong[0],
            )
            for name in wrong:
                queued = state.queued.get(name)
                if queued is not None:
                    self._batch.discard(queued)
                state.strays[name] = queued.client if queued is not None else None
        if idle:
            state.violation(
                "output-complete",
                expected=f"output of all {len(state.running)} running requests",
                found=f"none of {names(request.id for request in idle)}",
                client=idle[0].client,
                request=idle[0].id,
            )
            for request in idle:
                self._batch.discard(request)
                state.strays[request.id] = request.client
        return not wrong and not idle

    def _served(self, tokens: Mapping[str, int]) -> dict[ClientState, int]:
        """Tokens of each client; requests that got more than one are brought up to date. O(running requests)."""
        state = self._state
        served: dict[ClientState, int] = {}
        for name, count in tokens.items():
            request = state.running.get(name)
            client = request.client if request is not None else state.strays.get(name)
            if client is not None and count:
                served[client] = served.get(client, 0) + count
            if request is not None and count != 1:
                self._batch.gets_more(request, count - 1)
        return served
