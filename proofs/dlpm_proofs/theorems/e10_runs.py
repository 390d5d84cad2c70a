"""The runs that E10 speaks of: bounds that are reached, and rules that fail."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from dlpm import bounds, bounds_extensions
from dlpm_proofs.changing_runs import ChangingSetting, IndividualSetting, Moves, Paid, path, requests_of, schedule_of
from dlpm_proofs.deepest import CLIENT, Limits
from dlpm_proofs.widest import F, G, Service
from dlpm_proofs.witness import Demonstration, Setting, call, replay


def _floor(limits: Limits) -> int:
    """The floor with unit 1."""
    return bounds.deficit_floor(bounds.tight_unit(limits.cost(), limits.max_input, limits.kv_tokens))


def _costliest(limits: Limits, client: str) -> Service:
    """The request that costs most: it takes a counter of 1 to the floor."""
    sizes = [
        (extend, limits.kv_tokens - extend) for extend in range(1, min(limits.max_input, limits.kv_tokens - 1) + 1)
    ]
    return Service(client, *max(sizes, key=lambda size: limits.cost().service(*size)))


def _setting(limits: Limits, least: int, moves: Moves) -> ChangingSetting:
    """The engine for ``moves``, ``limits.quantum`` being the largest quantum."""
    return ChangingSetting(
        limits.kv_tokens,
        limits.quantum,
        limits.extend_weight,
        limits.output_weight,
        least=least,
        schedule=schedule_of(moves),
    )


# -- the floor ---------------------------------------------------------------------------------------------------------


@cache
def odd_quantum() -> tuple[Demonstration, ...]:
    """Weights and quanta of 6 and 8 are even, and so is every counter; one refill of 7 makes them odd."""
    room = 8
    calls = [call("first", CLIENT, [0], 1, max_output=1), call("deep", CLIENT, [1], room - 1, after=("first",))]
    tight = bounds.tight_unit(Setting(room, 8, 2, 4).cost(), 1, room)
    changing = replay(ChangingSetting(room, 8, 2, 4, least=6, schedule=(7, 6)), calls, "an odd quantum")
    found = min(changing.counters(CLIENT))
    lowest = bounds.deficit_floor(tight)
    fixed = [min(replay(Setting(room, quantum, 2, 4), calls, "fixed").counters(CLIENT)) for quantum in (6, 8)]
    story = (
        "Weights 2 and 4. With a quantum of 6 or of 8 all counters are even: they stay at or above"
        f" {bounds.deficit_floor(tight, 2)}, and the same requests sink to {fixed[0]} and {fixed[1]}.",
        f"In a range from 6 to 8 one refill may pay 7. Then the counter stands at 1 once, and sinks to {found}.",
        "So the floor of a changing quantum is that of unit 1, whatever its two ends have in common.",
    )
    confirmed = found == lowest and min(fixed) >= bounds.deficit_floor(tight, 2) > lowest
    return (
        Demonstration(f"the floor {lowest} is reached where no even quantum reaches it", story, confirmed, changing),
    )


# -- the gap -----------------------------------------------------------------------------------------------------------

REACHED = (
    (Limits(1, 2, quantum=7, max_input=4, max_output=7, kv_tokens=8, max_running=8), 3),
    (Limits(3, 2, quantum=8, max_input=3, max_output=5, kv_tokens=6, max_running=6), 2),
)


@cache
def gap_reached() -> tuple[Demonstration, ...]:
    """Two refills of the largest quantum, all others of the smallest: the gap is that of the largest."""
    return tuple(_two_large_refills(limits, least) for limits, least in REACHED)


def _two_large_refills(limits: Limits, least: int) -> Demonstration:
    """The widest run in which only the refills that must be large are."""
    most, floor = limits.quantum, _floor(limits)
    bound = bounds_extensions.changing_gap(most, floor)
    name = f"the gap {bound} is reached by two large refills among small ones"
    g_sinks = path(limits, (least,), (most, most), (most, 1))
    back = path(limits, (least,), (most, floor), (0, 0))
    f_sinks = path(limits, (least,), (most, most), (1, most))
    if g_sinks is None or back is None or f_sinks is None:
        return Demonstration(name, ("no run was found",), False)
    deep_g, deep_f = _costliest(limits, G), _costliest(limits, F)
    moves: Moves = [Paid(most), *g_sinks, deep_g, *back, Paid(most), *f_sinks, deep_f]
    last = [Service(G, 1, 1), Service(F, 1, 1)]
    setting = _setting(limits, least, moves)
    run = replay(setting, requests_of(limits, [*moves, *last]), "two large refills")
    found = run.widest_gap(F, G)
    paid = schedule_of(moves)
    story = (
        f"Of the first {len(paid)} refills {paid.count(most)} pay {most}, all others {least}; the floor is {floor}.",
        f"Yet f receives {found} more than g while both are backlogged: 2 (Q_max - floor) = {bound}.",
        f"With the smallest quantum alone the bound would be {bounds.service_gap(least, floor)}.",
    )
    confirmed = found == bound and paid.count(most) == 2 and set(paid) == {least, most}
    return Demonstration(name, story, confirmed, run)


# -- after the quantum shrank ------------------------------------------------------------------------------------------


@cache
def hoard_reached() -> tuple[Demonstration, ...]:
    """Client g gets one large refill while it rests, keeps it, and spends it when f has sunk under small ones."""
    limits = Limits(1, 2, quantum=10, max_input=4, max_output=7, kv_tokens=8, max_running=8)
    first, later = 3, 2
    most, floor = limits.quantum, _floor(limits)
    bound = bounds_extensions.shrunk_gap(most, later, floor)
    name = f"credit from before is kept: the gap {bound} is reached"
    # Both spend the first refill to the last token; then g rests, and only f sees the refills.
    sinks = path(limits, (later,), (most, most), (1, most), queued=(F,), served=(F,))
    back = path(limits, (later,), (floor, most), (later, 1), served=(G,))
    if sinks is None or back is None:
        return (Demonstration(name, ("no run was found",), False),)
    alone: Moves = [Paid(first), Service(G, 1, 1), Service(F, 1, 1), Paid(most), *sinks, _costliest(limits, F)]
    together: Moves = [*back, _costliest(limits, G)]
    early = requests_of(limits, alone)
    late = requests_of(limits, [*alone, *together, Service(F, 1, 1)])[len(early) :]
    ended = (early[-1].id,)
    calls = [*early, *(replace(request, parents=ended) for request in late)]
    run = replay(_setting(limits, later, [*alone, *together]), calls, "hoarded credit")
    found = run.widest_gap(G, F, both_backlogged=False)
    small = bounds.service_gap(later, floor)
    story = (
        f"Refills pay {first}, then once {most}, and {later} from then on; the floor is {floor}.",
        f"g has nothing to send when the large one comes, and keeps its {most}. f spends its own and sinks to {floor}.",
        f"Then both come back; g receives {found} more than f, which waits all the while.",
        f"Q_max + Q_late - 2 floor is {bound}.",
        f"The gap of the small quantum would be {small}: credit has no date.",
    )
    return (Demonstration(name, story, found == bound > small, run),)


# -- a quantum for each client -----------------------------------------------------------------------------------------

LEAST, MOST = 3, 5
REFILLS = (10, 20, 40)


@cache
def favoured_for_ever() -> tuple[Demonstration, ...]:
    """Client f is paid the largest quantum at every refill and g the smallest; both always wait."""
    setting = IndividualSetting(2, MOST, 1, 1, least=LEAST)
    floor = bounds.deficit_floor(bounds.tight_unit(setting.cost(), 1, 2))
    runs, gaps, bounded = [], [], []
    for refills in REFILLS:
        # A request costs 2. So many of f that it waits for the last of these refills, and as many of g, which waits on.
        numbers = range(refills * MOST // 2)
        calls = [call(f"{client}{k}", client, [2 * k + (client == G)], 1) for k in numbers for client in (F, G)]
        runs.append(replay(setting, calls, "a favoured client"))
        gaps.append(runs[-1].widest_gap(F, G))
        bounded.append(bounds_extensions.individual_gap(LEAST, MOST, floor, refills))
    first, second, third = gaps
    story = (
        f"Refills pay f {MOST} and g {LEAST}; all requests cost 2, and both always have some waiting.",
        f"After {REFILLS} refills f is {gaps} ahead of g. One quantum for both would allow"
        f" {bounds_extensions.changing_gap(MOST, floor)} for ever.",
        f"Each refill adds {MOST - LEAST}; the bound that grows as well says {bounded}.",
    )
    steps = third - second == (MOST - LEAST) * (REFILLS[2] - REFILLS[1]) == 2 * (second - first)
    confirmed = steps and all(found <= bound for found, bound in zip(gaps, bounded, strict=True))
    return (Demonstration("one width of the range is added at every refill", story, confirmed, runs[0]),)
