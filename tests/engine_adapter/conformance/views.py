"""What a sound log implies at each of its lines: a plain replay, for mutations to find their places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.engine_adapter.conformance.logs import Log


@dataclass
class View:
    """The state just before one line."""

    queued: dict[str, str] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    arrived: dict[str, Any] = field(default_factory=dict)
    generated: dict[str, int] = field(default_factory=dict)
    free: int | None = None
    order: list[str] = field(default_factory=list)

    def copy(self) -> View:
        return View(
            dict(self.queued),
            dict(self.running),
            list(self.finished),
            dict(self.counters),
            dict(self.arrived),
            dict(self.generated),
            self.free,
            list(self.order),
        )

    def queued_clients(self) -> set[str]:
        return set(self.queued.values())

    def due_refill(self) -> bool:
        """Whether nobody who is queued has credit."""
        return all(self.counters[client] <= 0 for client in self.queued_clients())


def views(log: Log) -> list[View]:
    """The state before each line of a log of one worker; that before the header is empty."""
    found = []
    view = View()
    for line in log:
        found.append(view.copy())
        _apply(view, line)
    return found


def _apply(view: View, line: Any) -> None:
    match line.get("event"):
        case "arrive":
            view.queued[line["request"]] = line["client"]
            view.arrived[line["request"]] = line
            view.generated[line["request"]] = 0
            view.counters.setdefault(line["client"], 0)
        case "order":
            view.free = line.get("free")
            view.order = list(line["requests"])
        case "refill":
            view.counters.update(line["deficits"])
        case "admit":
            client = view.queued.pop(line["request"])
            view.running[line["request"]] = client
            view.free = line.get("free")
            if "deficit" in line:
                view.counters[client] = line["deficit"]
        case "output":
            view.counters.update(line.get("deficits", {}))
            for request, count in line["tokens"].items():
                view.generated[request] += count
        case "finish":
            del view.running[line["request"]]
            view.finished.append(line["request"])
        case "preempt":
            view.queued[line["request"]] = view.running.pop(line["request"])
