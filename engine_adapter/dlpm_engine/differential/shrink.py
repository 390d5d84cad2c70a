"""Shrinking: from a case on which two engines differ to the smallest one that still makes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from dlpm.batch import AT_ADMISSION
from dlpm.errors import InputError
from dlpm.request import Request
from dlpm_engine.adapter import RESERVING, EngineConfig
from dlpm_engine.differential.case import STEP_US, Case

Fails = Callable[[Case], bool]
"""Whether two engines still differ on a case."""


@dataclass(slots=True)
class _Budget:
    """How long shrinking may go on."""

    deadline: float

    def left(self) -> bool:
        """Whether there is time for one more try."""
        return time.monotonic() < self.deadline


def shrink(case: Case, fails: Fails, seconds: float = 20.0) -> Case:
    """A case as small as `shrink` can make it on which ``fails`` still holds; it holds on ``case`` itself.

    Removes requests (halves, quarters, ... single ones), then simplifies parameters, then each request, and begins
    again while anything helped. Deterministic, but for the time limit.
    """
    budget = _Budget(time.monotonic() + seconds)
    progress = True
    while progress and budget.left():
        progress = False
        for simplify in (_fewer_requests, _simpler_config, _simpler_requests):
            smaller = simplify(case, fails, budget)
            progress = progress or smaller != case
            case = smaller
    return replace(case, name=case.name if case.name.endswith(SHRUNK) else case.name + SHRUNK)


SHRUNK = ", shrunk"
"""What the name of a shrunk case ends in."""

_MOST_REFILLS = 1000


def _fewer_requests(case: Case, fails: Fails, budget: _Budget) -> Case:
    """Remove runs of requests, long runs first."""
    length = max(1, len(case.requests) // 2)
    while budget.left():
        start = 0
        while start < len(case.requests) and len(case.requests) > 1 and budget.left():
            candidate = _without(case, start, length)
            if candidate.requests and fails(candidate):
                case = candidate
            else:
                start += length
        if length == 1:
            break
        length = max(1, min(length // 2, len(case.requests)))
    return case


def _without(case: Case, start: int, length: int) -> Case:
    """The case without some requests; their children no longer wait for them."""
    kept = case.requests[:start] + case.requests[start + length :]
    names = {request.id for request in kept}
    freed = (
        replace(request, parents=tuple(parent for parent in request.parents if parent in names)) for request in kept
    )
    return replace(case, requests=tuple(freed))


def _try(case: Case, candidates: Iterator[Case], fails: Fails, budget: _Budget) -> Case:
    """The first of ``candidates`` that fails, or ``case``."""
    for candidate in candidates:
        if not budget.left():
            break
        if candidate != case and fails(candidate):
            return candidate
    return case


def _simpler_config(case: Case, fails: Fails, budget: _Budget) -> Case:
    """Set parameters to plain values, or numbers to smaller ones."""
    for field in fields(EngineConfig):
        case = _try(case, _config_candidates(case, field.name), fails, budget)
    return case


def _config_candidates(case: Case, name: str) -> Iterator[Case]:
    """Simpler values of one parameter, simplest first."""
    value = getattr(case.config, name)
    plain: dict[str, tuple[object, ...]] = {
        "quanta": ({},),
        "max_running": (None,),
        "memory": (RESERVING,),
        "visibility": (AT_ADMISSION,),
        "watermark": (0,),
    }
    choices = plain.get(name)
    if choices is None:
        choices = tuple(_smaller(value, 1)) if isinstance(value, int) else ()
    hashed = any(request.blocks for request in case.requests)
    heaviest = max(case.config.extend_weight, case.config.output_weight)
    for choice in choices:
        if name == "block_size" and hashed:
            continue
        if name == "quantum" and isinstance(choice, int) and heaviest // choice > _MOST_REFILLS:
            continue
        try:
            # Only the named parameter changes; its value has the type that the parameter has.
            config = replace(case.config, **{name: choice})  # type: ignore[arg-type]
        except InputError:
            continue
        yield replace(case, config=config)


def _smaller(value: int, least: int) -> Iterator[int]:
    """Smaller numbers than ``value``, down to ``least``, the boldest first."""
    distance = value - least
    while distance > 0:
        yield value - distance
        distance //= 2


def _simpler_requests(case: Case, fails: Fails, budget: _Budget) -> Case:
    """Simplify one request after the other."""
    for place in range(len(case.requests)):
        for candidates in _REQUEST_CANDIDATES:
            request = case.requests[place]
            variants = (_with(case, place, variant) for variant in candidates(request, case))
            case = _try(case, variants, fails, budget)
    return case


def _with(case: Case, place: int, request: Request) -> Case:
    """The case with one request exchanged."""
    return replace(case, requests=(*case.requests[:place], request, *case.requests[place + 1 :]))


def _earlier(request: Request, case: Case) -> Iterator[Request]:
    """No parents, no thinking time, an earlier arrival."""
    yield replace(request, parents=(), think_us=0)
    for step in _smaller(request.arrival_us // STEP_US, 0):
        yield replace(request, arrival_us=step * STEP_US)


def _less_output(request: Request, case: Case) -> Iterator[Request]:
    """Fewer output tokens, and no more reserved than needed; the reply is cut or dropped."""
    without = replace(request, reply=(), reply_blocks=())
    yield replace(without, output_tokens=1, max_output=1)
    yield without
    for tokens in _smaller(request.output_tokens, 1):
        if request.reply_blocks:
            break
        yield replace(request, output_tokens=tokens, max_output=tokens, reply=request.reply[:tokens])
    for tokens in _smaller(request.max_output, request.output_tokens):
        yield replace(request, max_output=tokens)


def _less_input(request: Request, case: Case) -> Iterator[Request]:
    """A shorter prompt: its end cut off, or its beginning; for hashes, whole blocks from the end."""
    if request.prompt:
        for length in _smaller(len(request.prompt), 1):
            yield replace(request, prompt=request.prompt[:length], input_tokens=length)
        for length in _smaller(len(request.prompt), 1):
            yield replace(request, prompt=request.prompt[-length:], input_tokens=length)
    size = case.config.block_size
    if request.blocks and not request.reply_blocks:
        for length in _smaller(len(request.blocks), 1):
            yield replace(request, blocks=request.blocks[:length], input_tokens=length * size)
        yield replace(request, input_tokens=len(request.blocks) * size)


def _other_client(request: Request, case: Case) -> Iterator[Request]:
    """A client that comes earlier in the alphabet."""
    for client in sorted({other.client for other in case.requests}):
        if client >= request.client:
            break
        yield replace(request, client=client)


def _plain_tokens(request: Request, case: Case) -> Iterator[Request]:
    """A prompt of one repeated token, or a reply of one."""
    if request.prompt:
        yield replace(request, prompt=(0,) * len(request.prompt))
    if request.reply:
        yield replace(request, reply=(0,) * len(request.reply))


_REQUEST_CANDIDATES = (_less_output, _less_input, _earlier, _other_client, _plain_tokens)
