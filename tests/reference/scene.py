"""A stage for examples: submit requests in one line each, step, and look at what happened."""

from __future__ import annotations

from dlpm import events as ev
from dlpm.request import Request
from tests.reference.lockstep import plain, real_worker
from tests.reference.naive_worker import PlainEvent, Rules


def request(
    name: str,
    prompt: tuple[int, ...],
    output: int = 1,
    *,
    client: str = "",
    max_output: int = 0,
    reply: tuple[int, ...] = (),
    arrival_us: int = 0,
) -> Request:
    """A token prompt; its client is the first letter of its name unless given, and it declares what it generates."""
    return Request(
        id=name,
        client=client or name[0],
        arrival_us=arrival_us,
        input_tokens=len(prompt),
        output_tokens=output,
        max_output=max_output or output,
        prompt=prompt,
        reply=reply,
    )


class Scene:
    """One worker under `Rules`; `log` holds its events."""

    def __init__(self, rules: Rules) -> None:
        self.log: list[ev.Event] = []
        self.worker = real_worker(rules, self.log)

    def submit(self, *requests: Request) -> None:
        """Send requests now."""
        for one in requests:
            self.worker.submit(one, self.worker.time_us)

    def step(self) -> list[PlainEvent]:
        """One step; what it did, without order and evict events."""
        seen = len(self.log)
        self.worker.step()
        return [plain(event) for event in self.log[seen:] if not isinstance(event, ev.Order | ev.Evict)]

    def finish_all(self) -> None:
        """Step until nothing waits or runs."""
        while not self.worker.idle():
            assert self.worker.step().ran

    def admitted(self) -> list[str]:
        """Names of all requests admitted so far, in order, again where admitted again."""
        return [event.request for event in self.log if isinstance(event, ev.Admit)]

    def deficits(self) -> dict[str, int | None]:
        """Counters of all clients seen."""
        clients = dict.fromkeys(event.client for event in self.log if isinstance(event, ev.Arrive))
        return {client: self.worker.policy.counter(client) for client in clients}
