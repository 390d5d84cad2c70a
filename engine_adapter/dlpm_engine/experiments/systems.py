"""The schedulers that the paper compares, and the workloads that it compares them on [DLPM §6.1]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dlpm.workload.synthetic import LONGER_PREFIX, MORE_REQUESTS, RECIPES, Spec
from dlpm_engine.run.options import DispatchChoice, PolicyChoice

QUANTUM = 2_000
WORKER_QUANTUM = 20_000

D2LPM = "D2LPM"
RR_LPM = "RR + LPM"
RR_VTC = "VTC"
PREBLE = "Preble"

SYSTEMS: Mapping[str, PolicyChoice] = {
    D2LPM: PolicyChoice("dlpm", QUANTUM, DispatchChoice("d2lpm", WORKER_QUANTUM)),
    RR_LPM: PolicyChoice("lpm", None, DispatchChoice("round-robin")),
    RR_VTC: PolicyChoice("vtc", None, DispatchChoice("per-client-round-robin")),
    PREBLE: PolicyChoice("preble", None, DispatchChoice("preble")),
}
"""Router and local policy of each system, as [DLPM §6.1, Baselines] has them."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One workload under one scenario.

    Attributes:
        name: the workload, by its name in `RECIPES`.
        scenario: ``s1`` or ``s2``.
        programs: of each client and worker.
        rate: programs a second of each client and worker.
        spec: everything else.
        block_size: tokens a block; larger for documents, to save time.
        first_tokens: latency is time to first token, as the paper has it for questions on documents.
        gpu: the A100 with the 8B model, but for chats, which the paper runs on the A10G with the 3B model.
        worker_quantum: ``Q^w``. One document costs more than the usual one, so that the second question on it would
            already find no credit where the document is: for documents it is about three programs.
    """

    name: str
    scenario: str
    programs: int
    rate: float
    block_size: int = 16
    first_tokens: bool = False
    gpu: str = "a100-80g"
    worker_quantum: int = WORKER_QUANTUM

    @property
    def title(self) -> str:
        """How the paper calls it."""
        return f"{self.scenario.upper()}@{self.name}"

    def choice(self, system: str) -> PolicyChoice:
        """A system of `SYSTEMS`, with the worker quantum of this scene."""
        choice = SYSTEMS[system]
        if choice.dispatch is None or choice.dispatch.worker_quantum is None:
            return choice
        return replace(choice, dispatch=replace(choice.dispatch, worker_quantum=self.worker_quantum))

    def spec(self, workers: int, seed: int = 1) -> Spec:
        """Four clients, one of which misbehaves; rate and number of programs grow with the workers."""
        return Spec(
            name=self.name,
            scenario=self.scenario,
            programs=self.programs * workers,
            rate=self.rate * workers,
            seed=seed,
            block_size=self.block_size,
        )


def scenes() -> list[Scene]:
    """Every workload under every scenario that the paper gives it, and S1 for chats. O(1)."""
    found = []
    for name, programs, rate in (
        ("long-document-qa", 20, 0.6),
        ("tree-of-thoughts", 8, 2.0),
        ("llm-as-a-judge", 40, 3.0),
        ("multi-turn-chat", 150, 20.0),
    ):
        recipe = RECIPES[name]
        for scenario in (MORE_REQUESTS, LONGER_PREFIX):
            if scenario == LONGER_PREFIX and recipe.longer == 1 and not recipe.prepended:
                continue
            scene = Scene(name, scenario, programs, rate)
            if name == "long-document-qa":
                scene = replace(scene, block_size=64, first_tokens=True, worker_quantum=200_000)
            elif name == "multi-turn-chat":
                scene = replace(scene, gpu="a10g")
            found.append(scene)
    return found
