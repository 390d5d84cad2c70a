"""The one error a user's input can cause, and how it reads: file, line, field, what was expected."""

from __future__ import annotations


class InputError(ValueError):
    """Input that a reader of this project refuses.

    The message is one line: ``file:line: field: expected ...``; parts that are not known are left out.
    The command line prints it and exits with 2.
    """

    def __init__(
        self,
        expected: str,
        *,
        source: str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        """Describe what was expected, and where (``line`` counts from 1)."""
        self.expected = expected
        self.source = source
        self.line = line
        self.field = field
        place = source or ""
        if line is not None:
            place = f"{place}:{line}" if place else f"line {line}"
        parts = [part for part in (place, field or "", expected) if part]
        super().__init__(": ".join(parts))

    def at(self, *, source: str | None = None, line: int | None = None) -> InputError:
        """Return the same complaint with the place filled in where it was unknown."""
        return InputError(
            self.expected,
            source=self.source or source,
            line=self.line if self.line is not None else line,
            field=self.field,
        )
