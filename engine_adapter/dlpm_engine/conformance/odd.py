"""The signal of the fast reader that a line is not what it takes for granted."""


class OddLineError(Exception):
    """A line that the fast reader does not take; the strict reader decides whether it is an event."""
