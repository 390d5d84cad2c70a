"""The paper's four workloads and their misbehaving clients, generated from a seed [DLPM §6.1, Tables 2 and 3].

The well-behaved clients are ``well-0``, ``well-1``, ...; where a scenario has a misbehaving one, it is ``heavy-0``. A
well-behaved client sends the same programs at the same times in every scenario of a seed.

What the paper leaves open is ours, and marked so: the rates, the factor of "higher request rate", the spread of
lengths, three questions a document, turns and think times of a chat, and its scenario ``s1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random

from dlpm.errors import InputError
from dlpm.request import ClientId, Request, Workload
from dlpm.workload.files import MAX_BLOCK_SIZE
from dlpm.workload.programs import (
    Hashes,
    Lengths,
    Program,
    Writer,
    llm_as_a_judge,
    long_document_qa,
    multi_turn_chat,
    tree_of_thoughts,
)

EVEN = "even"
MORE_REQUESTS = "s1"
LONGER_PREFIX = "s2"
SCENARIOS = (EVEN, MORE_REQUESTS, LONGER_PREFIX)

HEAVY = "heavy-0"
"""The misbehaving client of S1 and S2."""

DEFAULT_BLOCK_SIZE = 16

WHOLE_KEYS = ("clients", "programs", "seed", "factor", "width", "heavy_width", "block_size")
MEASURED_KEYS = ("rate", "arrival_cv", "spread", "think")

_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_MEASURED = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?(e-?[0-9]{1,2})?", re.ASCII)
_MICROSECONDS = 1_000_000
_LARGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """One of the four workloads.

    Attributes:
        name: as users name it.
        program: writes one program.
        prefix: mean prefix in tokens [DLPM Table 2].
        output: mean output in tokens [DLPM Table 2].
        width: questions, branches, dimensions or mean turns of a well-behaved client [DLPM Table 3, else ours].
        heavy_width: the same of the misbehaving client under S1 [DLPM Table 3]; ``None`` where it sends more programs
            instead.
        longer: factor on the misbehaving client's prefix under S2 [DLPM Table 3].
        prepended: tokens before its prefix under S2 [DLPM Table 3].
        programs: how many programs a client sends, for about a minute of arrivals: ours.
        rate: programs a second and client, about twice what the simulated A100-80G serves of four clients: ours.
    """

    name: str
    program: Program
    prefix: int
    output: int
    width: int
    heavy_width: int | None
    programs: int
    rate: float
    longer: int = 1
    prepended: int = 0


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "long-document-qa", long_document_qa, 21449, 15, width=3, heavy_width=None, programs=20, rate=0.2, longer=2
        ),
        Recipe(
            "tree-of-thoughts", tree_of_thoughts, 546, 256, width=2, heavy_width=4, programs=20, rate=0.5, longer=10
        ),
        Recipe(
            "llm-as-a-judge", llm_as_a_judge, 2701, 256, width=2, heavy_width=16, programs=60, rate=1.0, prepended=600
        ),
        Recipe("multi-turn-chat", multi_turn_chat, 56, 142, width=3, heavy_width=None, programs=200, rate=4.0),
    )
}
"""The four workloads of [DLPM Table 2], by name."""

ALIASES = {"qa": "long-document-qa", "tot": "tree-of-thoughts", "judge": "llm-as-a-judge", "chat": "multi-turn-chat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Which synthetic workload, and with which numbers.

    Attributes:
        name: a name of `RECIPES`, or one of `ALIASES`.
        scenario: ``even`` (all behave), ``s1`` (one sends more requests) or ``s2`` (one has a longer prefix).
        clients: how many, the misbehaving one included.
        programs: how many each client sends; ``None`` for the workload's own.
        rate: programs a second and client; ``None`` for the workload's own.
        seed: of everything that is drawn.
        factor: how many times the programs and the rate of the misbehaving client under S1, where S1 is a rate.
        width: questions, branches, dimensions or mean turns of a program; ``None`` for the workload's own.
        heavy_width: the same of the misbehaving client under S1.
        arrival_cv: coefficient of variation of the times between programs (Gamma; 1 is Poisson).
        spread: coefficient of variation of all lengths (Gamma).
        think: mean seconds between a reply and the next turn of a chat.
        block_size: tokens a block.
    """

    name: str
    scenario: str = EVEN
    clients: int = 4
    programs: int | None = None
    rate: float | None = None
    seed: int = 0
    factor: int = 4
    width: int | None = None
    heavy_width: int | None = None
    arrival_cv: float = 1.0
    spread: float = 0.3
    think: float = 10.0
    block_size: int = DEFAULT_BLOCK_SIZE

    def recipe(self) -> Recipe:
        """The workload that is named, with the widths and the rate of this specification.

        Raises:
            InputError: there is no such workload or scenario, or a number is out of range.
        """
        name = ALIASES.get(self.name, self.name)
        if name not in RECIPES:
            raise InputError(
                f"expected one of {', '.join([*RECIPES, *ALIASES])}, found {self.name!r}", field="synthetic"
            )
        recipe = RECIPES[name]
        self._check(recipe)
        if self.heavy_width is not None and recipe.heavy_width is None:
            message = f"expected factor instead: the misbehaving client of {name} sends more programs, not wider ones"
            raise InputError(message, field="heavy_width")
        return replace(
            recipe,
            width=self.width or recipe.width,
            heavy_width=self.heavy_width or recipe.heavy_width,
            programs=self.programs or recipe.programs,
            rate=self.rate or recipe.rate,
        )

    def _check(self, recipe: Recipe) -> None:
        """Check every number, and that the scenario exists."""
        if self.scenario not in SCENARIOS:
            raise InputError(f"expected one of {', '.join(SCENARIOS)}, found {self.scenario!r}", field="scenario")
        if self.scenario == LONGER_PREFIX and recipe.longer == 1 and recipe.prepended == 0:
            raise InputError(f"expected even or s1: the paper has no s2 for {recipe.name}", field="scenario")
        if self.scenario != EVEN and self.clients < 2:
            raise InputError("expected at least 2 clients, one of which misbehaves", field="clients")
        counts: dict[str, tuple[int | None, int]] = {
            "clients": (self.clients, _LARGEST),
            "programs": (self.programs, _LARGEST),
            "factor": (self.factor, 1000),
            "width": (self.width, 64),
            "heavy_width": (self.heavy_width, 64),
            "block_size": (self.block_size, MAX_BLOCK_SIZE),
        }
        for field, (number, high) in counts.items():
            if number is not None and not 1 <= number <= high:
                raise InputError(f"expected a whole number from 1 to {high}, found {number}", field=field)
        measures = {"arrival_cv": (self.arrival_cv, 100.0), "spread": (self.spread, 10.0), "think": (self.think, 1e6)}
        for field, (measure, most) in measures.items():
            if not 0 <= measure <= most:
                raise InputError(f"expected a number from 0 to {most:g}, found {measure}", field=field)
        if self.rate is not None and not 1e-6 <= self.rate <= 1e6:
            raise InputError(f"expected programs a second from 1e-06 to 1e+06, found {self.rate}", field="rate")


def parse_spec(text: str, *, seed: int = 0, block_size: int | None = None) -> Spec:
    """Read ``synthetic:NAME[:SCENARIO][:KEY=VALUE]...``, such as ``synthetic:tot:s1:clients=4:programs=40:seed=1``.

    The keys are the attributes of `Spec`. ``seed`` and ``block_size`` are used where the text names none.

    Raises:
        InputError: the text reads otherwise, a key is unknown or comes twice, or a number is none.
    """
    head, *parts = text.split(":")
    if head != "synthetic" or not parts or "=" in parts[0]:
        raise InputError(f"expected synthetic:NAME[:SCENARIO][:KEY=VALUE]..., found {text!r}")
    scenario = EVEN
    if len(parts) > 1 and "=" not in parts[1]:
        scenario = parts.pop(1)
    whole, measured = _settings(parts[1:], text)
    known = Spec(name=parts[0], seed=seed, block_size=block_size or DEFAULT_BLOCK_SIZE)
    spec = Spec(
        name=known.name,
        scenario=scenario,
        clients=whole.get("clients", known.clients),
        programs=whole.get("programs"),
        rate=measured.get("rate"),
        seed=whole.get("seed", known.seed),
        factor=whole.get("factor", known.factor),
        width=whole.get("width"),
        heavy_width=whole.get("heavy_width"),
        arrival_cv=measured.get("arrival_cv", known.arrival_cv),
        spread=measured.get("spread", known.spread),
        think=measured.get("think", known.think),
        block_size=whole.get("block_size", known.block_size),
    )
    spec.recipe()
    return spec


def _settings(parts: list[str], text: str) -> tuple[dict[str, int], dict[str, float]]:
    """The whole and the other numbers of ``key=value`` parts, by key."""
    whole: dict[str, int] = {}
    measured: dict[str, float] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key in whole or key in measured:
            raise InputError("expected once, found twice", source=text, field=key)
        if key in WHOLE_KEYS:
            if not _WHOLE.fullmatch(value):
                raise InputError(f"expected a whole number, found {value!r}", source=text, field=key)
            whole[key] = int(value)
        elif key in MEASURED_KEYS:
            if not _MEASURED.fullmatch(value):
                raise InputError(f"expected a number, found {value!r}", source=text, field=key)
            measured[key] = float(value)
        else:
            known = ", ".join([*WHOLE_KEYS, *MEASURED_KEYS])
            raise InputError(f"expected one of {known}, found {part!r}", source=text)
    return whole, measured


def generate(spec: Spec) -> Workload:
    """The workload of a specification: the same one for the same specification. O(n log n) in requests, and O(blocks).

    Requests are ordered by the start of their program; the calls of a program follow each other, parents first.

    Raises:
        InputError: as `Spec.recipe`.
    """
    recipe = spec.recipe()
    hashes = Hashes()
    requests: list[Request] = []
    for client in client_names(spec):
        requests.extend(_requests(client, recipe, spec, hashes))
    requests.sort(key=lambda request: request.arrival_us)
    return Workload(spec.block_size, tuple(requests), f"{recipe.name} {spec.scenario} seed {spec.seed}")


def client_names(spec: Spec) -> list[ClientId]:
    """The clients of a specification: the well-behaved ones, then the misbehaving one if there is one. O(clients)."""
    well = spec.clients if spec.scenario == EVEN else spec.clients - 1
    names = [f"well-{number}" for number in range(well)]
    return names if spec.scenario == EVEN else [*names, HEAVY]


def _requests(client: ClientId, recipe: Recipe, spec: Spec, hashes: Hashes) -> list[Request]:
    """The calls of all programs of one client, whose draws depend on no other client."""
    width, programs, rate = recipe.width, recipe.programs, recipe.rate
    lengths = Lengths(recipe.prefix, recipe.output, spec.spread)
    if client == HEAVY and spec.scenario == MORE_REQUESTS:
        if recipe.heavy_width is not None:
            width = recipe.heavy_width
        else:
            programs, rate = programs * spec.factor, rate * spec.factor
    elif client == HEAVY:
        lengths = replace(lengths, prefix=lengths.prefix * recipe.longer, prepended=recipe.prepended)
    times = Random(f"{spec.seed} {client} times")
    texts = Random(f"{spec.seed} {client} texts")
    arrival_s = 0.0
    requests: list[Request] = []
    for number in range(programs):
        arrival_s += _gap(times, 1 / rate, spec.arrival_cv)
        writer = Writer(
            client=client,
            name=f"{client}/{number}",
            arrival_us=round(arrival_s * _MICROSECONDS),
            lengths=lengths,
            draw=texts,
            hashes=hashes,
            block_size=spec.block_size,
            think_us=round(spec.think * _MICROSECONDS),
        )
        recipe.program(writer, width)
        requests.extend(writer.calls)
    return requests


def _gap(draw: Random, mean: float, variation: float) -> float:
    """The time to the next program: Gamma distributed, or constant where it does not vary."""
    if variation == 0:
        return mean
    shape = variation**-2
    return draw.gammavariate(shape, mean / shape)
