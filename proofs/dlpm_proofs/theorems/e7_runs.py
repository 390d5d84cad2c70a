"""The runs that E7 speaks of: bounds that are reached, and what no rule for the payer bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise

from dlpm import bounds, bounds_extensions
from dlpm.events import Admit, Refill
from dlpm.extensions.shared_prefixes import ALONE, FIRST, SPLIT
from dlpm.request import ClientId
from dlpm_proofs.changing_runs import Moves, path, requests_of
from dlpm_proofs.deepest import Limits
from dlpm_proofs.prefix_runs import SharingSetting, alone, charged, computed, widest
from dlpm_proofs.widest import F, G, Service, gap, widest_run
from dlpm_proofs.witness import Demonstration, Replay, call, replay

H = "h"
DEEP = Limits(1, 2, quantum=5, max_input=4, max_output=4, kv_tokens=8, max_running=3)
WIDE = Limits(1, 2, quantum=7, max_input=4, max_output=7, kv_tokens=8, max_running=8)

# -- the free rider ----------------------------------------------------------------------------------------------------

ROUNDS = (20, 40, 80)
PREFIX = 8
MEMORY = 64
MEASURES = {"computed": computed, "as if alone": alone, "charged": charged}


@cache
def riding(rounds: int, payer: str) -> Replay:
    """Client g always comes second: whenever f has computed a new prefix, g sends a request that begins with it.

    In between g sends requests of its own, as long as those of f. Both have some queued all the time.
    """
    return _shared(rounds, payer, F)


@cache
def apart(rounds: int, payer: str) -> Replay:
    """Clients h and g share prefixes in that way, and f sends requests of its own only, as long as theirs."""
    return _shared(rounds, payer, H)


def _shared(rounds: int, payer: str, first: ClientId) -> Replay:
    """Prefixes that ``first`` computes and g uses next; f and g send as much of their own beside that."""
    requests = []
    fresh = 0
    for place in range(rounds):
        prefix = tuple(range(fresh, fresh + PREFIX))
        requests.append(call(f"{first}{place}", first, (*prefix, fresh + PREFIX), 1))
        requests.append(call(f"rides{place}", G, (*prefix, fresh + PREFIX + 1), 1, after=(f"{first}{place}",)))
        fresh += PREFIX + 2
    for place in range(3 * rounds):
        for client in (G,) if first == F else (F, G):
            requests.append(call(f"own {client}{place}", client, range(fresh, fresh + PREFIX + 1), 1))
            fresh += PREFIX + 1
    setting = SharingSetting(kv_tokens=MEMORY, quantum=30, max_running=4, payer=payer)
    return replay(setting, requests, f"a rider, payer {payer}")


def growth(run: Callable[[int, str], Replay], payer: str, measure: str) -> list[int]:
    """How far apart f and g get in runs of `ROUNDS`, whoever is ahead."""
    runs = [run(rounds, payer) for rounds in ROUNDS]
    return [max(widest(each, MEASURES[measure], *pair) for pair in ((F, G), (G, F))) for each in runs]


def _grows(run: Callable[[int, str], Replay], payer: str, measure: str, tells: str) -> Demonstration:
    """In one measure the gap grows by 2 weighted tokens a round or more; in what is charged it keeps its bound."""
    found, paid = growth(run, payer, measure), growth(run, payer, "charged")
    bound = _charged_gap(run(ROUNDS[-1], payer), payer)
    story = (
        tells,
        f"In {ROUNDS} rounds the gap in what is charged is {paid}, and may be {bound}.",
        f"In service {measure} it is {found}: each round adds to it.",
    )
    steps = [later - earlier for earlier, later in pairwise(found)]
    rounds = [later - earlier for earlier, later in pairwise(ROUNDS)]
    keeps_growing = all(step >= 2 * more for step, more in zip(steps, rounds, strict=True))
    confirmed = keeps_growing and found[-1] > bound >= max(paid)
    return Demonstration(f"payer {payer}: no bound in service {measure}", story, confirmed, run(ROUNDS[0], payer))


def _charged_gap(run: Replay, payer: str) -> int:
    """The proven bound for the charged gap of a run."""
    setting, requests = run.setting, run.workload.requests
    tight = bounds.tight_unit(
        setting.cost(),
        max(request.input_tokens for request in requests),
        setting.kv_tokens,
        max_output=max(request.max_output for request in requests),
        max_running=setting.max_running,
    )
    floor = bounds.deficit_floor(tight)
    if payer != SPLIT:
        return bounds.service_gap(setting.quantum, floor)
    clients = len(set(run.clients().values()))
    ceiling = bounds_extensions.split_ceiling(setting.cost(), setting.quantum, setting.kv_tokens, clients)
    return bounds_extensions.split_gap(ceiling, floor)


def rides_for_free() -> tuple[Demonstration, ...]:
    """The first pays: who comes second is served prefixes that it never pays for."""
    return (
        _grows(riding, FIRST, "as if alone", "f computes each prefix and pays; g comes second and pays one token."),
    )


def works_for_others() -> tuple[Demonstration, ...]:
    """Each pays as if alone: who comes first computes, and who comes second pays as much for nothing computed."""
    return (_grows(riding, ALONE, "computed", "f computes each prefix; g comes second and pays as much."),)


def shares_and_gains() -> tuple[Demonstration, ...]:
    """Costs are split: in what was computed the first is ahead, and as if alone those are ahead who share."""
    return (
        _grows(riding, SPLIT, "computed", "f computes each prefix, g gives half of its cost back."),
        _grows(apart, SPLIT, "as if alone", "g and h share prefixes at half their cost; f shares none."),
    )


# -- what clients that pay as if alone reach --------------------------------------------------------------------------


@cache
def alone_reaches() -> tuple[Demonstration, ...]:
    """The deepest run of T2* and the widest of T3, replayed where each pays as if alone: floor and gap are reached."""
    shown = []
    for limits, run in ((DEEP, DEEP.deepest_run()), (WIDE, widest_run(WIDE))):
        if run is None:
            shown.append(Demonstration("a bound is reached", ("no run was found",), False))
            continue
        setting = SharingSetting(
            limits.kv_tokens,
            limits.quantum,
            limits.extend_weight,
            limits.output_weight,
            max_running=run.setting.max_running,
            payer=ALONE,
        )
        again = replay(setting, run.workload.requests, "as if alone")
        if limits is DEEP:
            bound, found = limits.floor(), min(again.counters(F))
        else:
            bound, found = gap(limits), widest(again, charged, F, G)
        name = f"the {'floor' if limits is DEEP else 'gap'} {bound} is reached"
        shown.append(
            Demonstration(name, (f"The plain run, each paying as if alone, ends at {found}.",), found == bound, again)
        )
    return tuple(shown)


# -- what a split reaches ----------------------------------------------------------------------------------------------

LIMITS = Limits(1, 2, quantum=10, max_input=7, max_output=7, kv_tokens=8, max_running=8)
WHOLE = Service("", 7, 1)
"""A prompt that fills memory but for one token, and that token."""
JOINED = (WHOLE.extend - 1) // 2
"""What one that joins the first pays of such a prompt: half of it, its last token aside, which is computed again."""


def _ceiling(clients: int) -> int:
    """The proven ceiling of these limits."""
    return bounds_extensions.split_ceiling(LIMITS.cost(), LIMITS.quantum, LIMITS.kv_tokens, clients)


def _replay(moves: Moves, joins: Mapping[int, int], meet: int) -> Replay:
    """Replay ``moves`` one after another; some repeat the prompt of an earlier one, by its place.

    All from the place ``meet`` on arrive when the one before that has finished.
    """
    requests = requests_of(LIMITS, moves)
    for place, earlier in joins.items():
        requests[place] = replace(requests[place], prompt=requests[earlier].prompt)
    before = (requests[meet - 1].id,)
    later = [replace(request, parents=before) for request in requests[meet:]]
    setting = SharingSetting(LIMITS.kv_tokens, LIMITS.quantum, LIMITS.extend_weight, LIMITS.output_weight, payer=SPLIT)
    return replay(setting, [*requests[:meet], *later], "a split")


def _of(client: ClientId, size: Service = WHOLE) -> Service:
    return replace(size, client=client)


def _services(moves: Moves | None) -> Moves:
    """Those moves that are requests.

    Raises:
        ValueError: if no moves were found.
    """
    if moves is None:
        raise ValueError("no run was found")
    return [move for move in moves if isinstance(move, Service)]


def _to_zero() -> Moves:
    """Requests of f alone that end with a whole one, on a counter of exactly 0: all of memory is f's."""
    price, quantum = LIMITS.cost().service(WHOLE.extend, WHOLE.output), LIMITS.quantum
    # The search has two counters; that of g, who is not there yet, is filled once and stands still.
    warm_up = path(LIMITS, (quantum,), (0, 0), (price, quantum), served=(F,), queued=(F,))
    return [*_services(warm_up), _of(F)]


def highest_counter(run: Replay, client: ClientId) -> int:
    """The highest counter of a client in a log."""
    found = 0
    for event in run.events:
        if isinstance(event, Admit | Refill) and event.deficits is not None:
            found = max(found, event.deficits.get(client, 0))
    return found


@cache
def ceiling_reached() -> tuple[Demonstration, ...]:
    """F has paid for all that is cached and is refilled; then one or two others come and pay their part."""
    shown = []
    for others in ((G,), (G, H)):
        start = _to_zero()
        first = len(start)
        run = _replay(
            [*start, *(_of(client) for client in others)], {first + k: first - 1 for k in range(len(others))}, first
        )
        bound, found = _ceiling(len(others) + 1), highest_counter(run, F)
        story = (
            f"f pays for {WHOLE.extend} of M = {LIMITS.kv_tokens} tokens and stands at 0; a refill lifts it to Q ="
            f" {LIMITS.quantum}.",
            f"Then {' and '.join(others)} send the same prompt and pay their part. f gets it back: {found}.",
        )
        confirmed = found == bound > LIMITS.quantum
        shown.append(Demonstration(f"the ceiling {bound} is reached beside {len(others)}", story, confirmed, run))
    return tuple(shown)


@cache
def gap_reached() -> tuple[Demonstration, ...]:
    """F at its ceiling and g at its floor, then the other way round, while both always wait."""
    quantum, cost = LIMITS.quantum, LIMITS.cost()
    floor, top = LIMITS.floor(), _ceiling(2)
    bound = bounds_extensions.split_gap(top, floor)
    left = quantum - cost.service(1 + JOINED, 1)
    sizes = [Service("", extend, LIMITS.kv_tokens - extend) for extend in range(1, LIMITS.kv_tokens)]
    deep = max(sizes, key=lambda size: cost.service(size.extend, size.output))
    whole = cost.service(WHOLE.extend, WHOLE.output)
    # g joins on a full quantum and sinks; f, refilled from exactly 0, joins and sinks.
    g_sinks = _services(path(LIMITS, (quantum,), (top, left), (top, 1), served=(G,)))
    back = _services(path(LIMITS, (quantum,), (top, floor), (0, whole)))
    f_sinks = _services(path(LIMITS, (quantum,), (left, top), (1, top), served=(F,)))
    start = _to_zero()
    middle = [*start, _of(G), *g_sinks, _of(G, deep), *back, _of(G)]
    moves: Moves = [*middle, _of(F), *f_sinks, _of(F, deep), _of(G, sizes[0]), _of(F, sizes[0])]
    run = _replay(moves, {len(start): len(start) - 1, len(middle): len(middle) - 1}, len(start))
    found = widest(run, charged, F, G)
    story = (
        f"Counters lie between the floor {floor} and, of two clients that split, {top}; Q is {quantum}.",
        f"f gets {JOINED} tokens back from g and waits with {top}, while g sinks to {floor}; later g does so to f.",
        f"In between f is charged {found} more than g: 2 (ceiling - floor) = {bound}.",
        f"Where the first pays the bound would be {bounds.service_gap(quantum, floor)}.",
    )
    return (Demonstration(f"the gap {bound} is reached", story, found == bound, run),)


def split_reaches() -> tuple[Demonstration, ...]:
    """The ceiling, and the gap."""
    return (*ceiling_reached(), *gap_reached())
