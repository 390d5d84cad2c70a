"""E5, several tokens a step: a forward step yields 1 to ``most_accepted`` tokens of each running request.

Clients pay for what they get, so the charges and the bounds are those of the plain algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.events import Header
from dlpm.fields import MAX_TOKENS, Fields
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.parts import Parts
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.worker_state import WorkerState

ACCEPTED_LIMIT = extension_rule(
    "accepted-limit",
    "No forward step yields more tokens of a request than can be accepted.",
    "docs/extensions.md, E5",
)


class SpeculativeForward(Forward):
    """Forward steps with a limit on the tokens of one request."""

    def __init__(self, state: WorkerState, batch: Batch, discipline: Discipline, most_accepted: int) -> None:
        """No forward step yet."""
        super().__init__(state, batch, discipline)
        self._most_accepted = most_accepted

    def _check_tokens(self, tokens: Mapping[str, int]) -> bool:
        """As ever, and nobody gets more than can be accepted. O(running requests)."""
        for name, count in tokens.items():
            if count > self._most_accepted:
                request = self._state.running.get(name)
                self._state.violation(
                    ACCEPTED_LIMIT.id,
                    expected=f"at most {self._most_accepted} tokens of {name!r} in one step",
                    found=f"{count}",
                    client=request.client if request is not None else None,
                    request=name,
                )
                break
        return super()._check_tokens(tokens)


class Speculation(Mode):
    """Logs of an engine that may accept several tokens a step."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: ``most_accepted`` is not a whole number > 0, or there are others.
        """
        super().__init__(header)
        known_options(options, "most_accepted")
        self._most_accepted = options.integer("most_accepted", 1, MAX_TOKENS)

    @property
    def rules(self) -> tuple[str, ...]:
        """The limit."""
        return (ACCEPTED_LIMIT.id,)

    def parts(self, state: WorkerState) -> Parts:
        """Forward steps have a limit."""
        discipline = self.discipline(state)
        batch = Batch(state, discipline)
        return Parts(
            discipline,
            Lifecycle(state, batch, discipline),
            SpeculativeForward(state, batch, discipline, self._most_accepted),
        )


EXTENSION = Extension("speculation", Speculation, (ACCEPTED_LIMIT,))
