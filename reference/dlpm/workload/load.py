"""Any workload a user names, as a `Workload`: a workload file, a public trace, or a synthetic one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

from dlpm.errors import InputError
from dlpm.fields import MAX_SECONDS
from dlpm.files import Opener, open_binary
from dlpm.request import Request, Workload
from dlpm.workload import synthetic
from dlpm.workload.clients import ClientRule, Origin, parse_rule
from dlpm.workload.detect import DLPM, TRACE_FORMATS, detect
from dlpm.workload.files import MAX_BLOCK_SIZE, Document, read_document
from dlpm.workload.traces.row import TraceFormat, TraceOptions, TraceRow
from dlpm.workload.traces.servegen import SERVEGEN

AUTO = "auto"
SYNTHETIC = "synthetic"
PRIVATE_BLOCK_SIZE = 16
"""Block size of the private prompts that stand in where a format says nothing about prefixes."""

_MAX_SCALE = 1_000_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """A workload, and how it came about.

    Attributes:
        workload: the requests, by arrival.
        trace_format: the format it was read in: a trace format's name, ``dlpm`` or ``synthetic``.
        clients: the rule that assigned the clients.
        dropped: rows left out because they had no output (or input).
        raised: requests without output that count as one token, the one that prefill yields.
    """

    workload: Workload
    trace_format: str
    clients: str
    dropped: int = 0
    raised: int = 0


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What a user may say about how a workload is made of a file.

    Attributes:
        clients: a client rule (`dlpm.workload.clients`); ``None`` for the format's own.
        block_size: tokens a block, where the format leaves it open; ``None`` for its own.
        limit: take so many requests only: the first of the file, or the earliest where the format has no such order.
        seed: for what a format leaves to be drawn, and for a synthetic workload that names no seed.
        scale: factor on all recorded times: 0.5 doubles the request rate. Exact: any fraction.
        max_output: the limit on output tokens that requests declare, where it is above what their file says; most
            traces do not record one, and then a request declares what it will generate.
        closed_loop: let a request wait for its parent's finish, where a trace records parents.
        session_gap_us: mean time between session starts, where a trace does not record them.
        shared_system_prompts: assume that sessions whose tools and system prompt are equally long share both, where a
            trace records these lengths; an assumption, which no trace says.
        window: seconds from and to, for parameters to draw requests from.
        opener: how a file is opened.
    """

    clients: str | None = None
    block_size: int | None = None
    limit: int | None = None
    seed: int = 0
    scale: Fraction = Fraction(1)
    max_output: int | None = None
    closed_loop: bool = False
    session_gap_us: int = 60_000_000
    shared_system_prompts: bool = False
    window: tuple[int, int] | None = None
    opener: Opener = open_binary

    def check(self) -> None:
        """Check what does not depend on a file.

        Raises:
            InputError: a number is out of range, or there is no such client rule.
        """
        ranges = (
            ("block_size", self.block_size, MAX_BLOCK_SIZE),
            ("limit", self.limit, None),
            ("max_output", self.max_output, None),
        )
        for field, value, high in ranges:
            if value is not None and (value < 1 or (high is not None and value > high)):
                raise InputError(
                    f"expected a whole number from 1{f' to {high}' if high else ''}, found {value}", field=field
                )
        if not 0 < self.scale <= _MAX_SCALE:
            raise InputError(f"expected a number above 0 and up to {_MAX_SCALE}, found {self.scale}", field="scale")
        if self.session_gap_us < 0:
            raise InputError(f"expected microseconds not below 0, found {self.session_gap_us}", field="session_gap")
        if self.window is not None and not 0 <= self.window[0] < self.window[1]:
            raise InputError(f"expected seconds from-to, found {self.window[0]}-{self.window[1]}", field="window")
        if self.clients is not None:
            parse_rule(self.clients)

    def for_traces(self) -> TraceOptions:
        """What of this the loader of a trace format needs."""
        return TraceOptions(
            opener=self.opener,
            seed=self.seed,
            closed_loop=self.closed_loop,
            session_gap_us=self.session_gap_us,
            shared_system_prompts=self.shared_system_prompts,
            window=self.window,
        )


DEFAULTS = LoadOptions()


def load(source: str | Path, trace_format: str = AUTO, options: LoadOptions = DEFAULTS) -> Workload:
    """The workload that a user names; `load_described` says how it came about.

    Raises:
        InputError: as `load_described`.
    """
    return load_described(source, trace_format, options).workload


def load_described(source: str | Path, trace_format: str = AUTO, options: LoadOptions = DEFAULTS) -> Loaded:
    """The workload that a user names. O(n log n) in its requests, and O(its blocks).

    ``source`` is a path, or a specification such as ``synthetic:tree-of-thoughts:s1:clients=4``. ``trace_format`` is a
    name of `dlpm.workload.detect`, ``synthetic:NAME`` (then ``source`` holds further ``key=value``, or is empty or
    ``-``), or ``auto``: whatever the content shows.

    Raises:
        InputError: the source is not what the format says, no format fits, an option does not apply, or there is no
            request.
    """
    options.check()
    text = str(source)
    if trace_format.startswith(f"{SYNTHETIC}:"):
        return _synthetic(trace_format if text in {"", "-"} else f"{trace_format}:{text}", options)
    if trace_format in {AUTO, SYNTHETIC} and text.startswith(f"{SYNTHETIC}:"):
        return _synthetic(text, options)
    path = Path(source)
    name = detect(path, options.opener) if trace_format == AUTO else trace_format
    if name == DLPM:
        return _file(path, options)
    if name not in TRACE_FORMATS:
        known = ", ".join([AUTO, DLPM, *TRACE_FORMATS, f"{SYNTHETIC}:NAME"])
        raise InputError(f"expected one of {known}, found {name!r}", field="format")
    return _trace(path, TRACE_FORMATS[name], options)


def _synthetic(text: str, options: LoadOptions) -> Loaded:
    """Generate a workload, and apply the options that are left."""
    _refuse_trace_options(text, options)
    spec = synthetic.parse_spec(text, seed=options.seed, block_size=options.block_size)
    return _reworked(Document(synthetic.generate(spec)), text, SYNTHETIC, options)


def _file(path: Path, options: LoadOptions) -> Loaded:
    """Read a workload file, and apply the options that are left."""
    _refuse_trace_options(str(path), options)
    document = read_document(path, options.opener)
    _same_block_size(str(path), document.workload.block_size, options)
    return _reworked(document, str(path), DLPM, options)


def _reworked(document: Document, source: str, trace_format: str, options: LoadOptions) -> Loaded:
    """Limit, reassign and scale the requests of a workload that is complete without."""
    workload = document.workload
    requests = list(workload.requests[: options.limit])
    if options.clients is not None:
        rule = parse_rule(options.clients)
        for number, request in enumerate(requests):
            # What the file says beyond a known field cannot shadow it.
            facts = {**document.request_extra.get(request.id, {}), "id": request.id, "client": request.client}
            origin = Origin(number, request.id, request.blocks, facts)
            requests[number] = replace(request, client=_client(rule, origin, source, None))
    timed = _timed(requests, 0, options)
    return Loaded(replace(workload, requests=timed), trace_format, options.clients or "own")


def _trace(path: Path, trace: TraceFormat, options: LoadOptions) -> Loaded:
    """Read a public trace; its first request arrives at 0."""
    source = str(path)
    if options.closed_loop and not trace.has_chains:
        raise InputError(f"expected a format that records parents for a closed loop, found {trace.name}", source=source)
    if options.shared_system_prompts and not trace.has_system_prompts:
        raise InputError(
            f"expected a format that records system prompts, found {trace.name}",
            source=source,
            field="shared_system_prompts",
        )
    if options.window is not None and trace.name != SERVEGEN.name:
        raise InputError(f"expected servegen parameters for a window, found {trace.name}", source=source)
    if trace.block_size is not None:
        _same_block_size(source, trace.block_size, options)
    block_size = trace.block_size or options.block_size or PRIVATE_BLOCK_SIZE
    rule_text = options.clients or trace.clients
    assumed = ", system prompts assumed shared" if options.shared_system_prompts else ""
    kept = _KeptRows(trace, trace.rows(path, options.for_traces()))
    requests = list(_requests(islice(kept, options.limit), parse_rule(rule_text), block_size, source))
    if not requests:
        raise InputError("expected at least one request", source=source)
    requests.sort(key=lambda request: request.arrival_us)
    timed = _timed(requests, requests[0].arrival_us, options)
    workload = Workload(block_size=block_size, requests=timed, name=f"{path.name}{assumed}")
    return Loaded(workload, trace.name, rule_text, kept.dropped, kept.raised)


class _KeptRows:
    """The rows of a trace that are requests; counts the others as they go by."""

    def __init__(self, trace: TraceFormat, rows: Iterable[TraceRow]) -> None:
        """Pass on the rows of one file."""
        self._trace = trace
        self._rows = rows
        self.dropped = 0
        self.raised = 0

    def __iter__(self) -> Iterator[TraceRow]:
        """Yield the rows that are kept."""
        for row in self._rows:
            if row.input_tokens > 0 and row.output_tokens > 0:
                yield row
            elif self._trace.drops_empty:
                self.dropped += 1
            else:
                self.raised += 1
                yield replace(row, output_tokens=1)


def _requests(rows: Iterable[TraceRow], rule: ClientRule, block_size: int, source: str) -> Iterator[Request]:
    """Turn rows into requests, with private prompts where the format knows no prefixes."""
    unused = 0
    for number, row in enumerate(rows):
        origin = Origin(number, row.id, row.blocks or (), row.fields.values, row.session, row.chain)
        blocks = row.blocks
        if blocks is None:
            full = row.input_tokens // block_size
            blocks = tuple(range(unused, unused + full))
            unused += full
        yield Request(
            id=row.id,
            client=_client(rule, origin, source, row.fields.line),
            arrival_us=row.arrival_us,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            max_output=row.output_tokens,
            blocks=blocks,
            parents=() if row.parent is None else (row.parent,),
            think_us=row.think_us,
        )


def _client(rule: ClientRule, origin: Origin, source: str, line: int | None) -> str:
    """The client of one request; an error says where the request is."""
    try:
        return rule(origin)
    except InputError as error:
        raise error.at(source=source, line=line) from error


def _timed(requests: list[Request], start_us: int, options: LoadOptions) -> tuple[Request, ...]:
    """The requests with time counted from ``start_us`` and scaled, and the declared limit raised."""
    if start_us == 0 and options.scale == 1 and options.max_output is None:
        return tuple(requests)
    timed = tuple(
        replace(
            request,
            arrival_us=_scaled(request.arrival_us - start_us, options.scale),
            think_us=_scaled(request.think_us, options.scale),
            max_output=max(request.max_output, options.max_output or 0),
        )
        for request in requests
    )
    latest = max(max(request.arrival_us, request.think_us) for request in timed)
    if latest > MAX_SECONDS * 1_000_000:
        raise InputError(
            f"expected times up to {MAX_SECONDS} s after scaling, found {latest // 1_000_000}", field="scale"
        )
    return timed


def _scaled(time_us: int, scale: Fraction) -> int:
    """Microseconds times a fraction, rounded half up."""
    return (2 * time_us * scale.numerator + scale.denominator) // (2 * scale.denominator)


def _same_block_size(source: str, block_size: int, options: LoadOptions) -> None:
    """Refuse another block size than the one that the hashes of a file were made with."""
    if options.block_size not in {None, block_size}:
        message = f"expected {block_size}, at which the file was hashed, found {options.block_size}"
        raise InputError(message, source=source, field="block_size")


def _refuse_trace_options(source: str, options: LoadOptions) -> None:
    """Refuse options that mean something for traces only."""
    given = {
        "window": options.window is not None,
        "closed_loop": options.closed_loop,
        "shared_system_prompts": options.shared_system_prompts,
    }
    field = next((name for name, there in given.items() if there), None)
    if field is not None:
        raise InputError("expected a trace for this option, found a complete workload", source=source, field=field)
