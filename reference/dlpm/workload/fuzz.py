"""Small random workloads whose prompts collide: for property tests and the differential tester."""

from __future__ import annotations

from random import Random

from dlpm.request import Request, RequestId, Workload


def random_workload(
    draw: Random,
    *,
    clients: int = 3,
    requests: int = 12,
    alphabet: int = 2,
    max_input: int = 8,
    max_output: int = 5,
    block_size: int = 1,
    span_us: int = 0,
    reply_chance: float = 0.5,
    parent_chance: float = 0.0,
) -> Workload:
    """A workload of ``requests`` requests with token prompts from a small alphabet. O(requests * (input + output)).

    Every second prompt or so starts like an earlier prompt and its reply, so that prefixes are shared, wholly or in
    part, within a client and across clients. Declared limits exceed outputs now and then.

    Args:
        draw: all randomness comes from here.
        clients: at most so many clients, ``A``, ``B``, ... (``c26`` and so on after ``Z``).
        requests: how many, at least 1.
        alphabet: token ids are below this.
        max_input: longest prompt in tokens.
        max_output: largest declared limit in tokens.
        block_size: of the workload; prompts are token ids whatever it is.
        span_us: arrivals are uniform from 0 to this.
        reply_chance: how likely a request states the tokens of its reply.
        parent_chance: how likely a request waits for one or two earlier ones, and then thinks for up to ``span_us``.

    Raises:
        ValueError: a number is below 1 where one is needed.
    """
    if min(clients, requests, alphabet, max_input, max_output, block_size) < 1:
        raise ValueError("clients, requests, alphabet, max_input, max_output and block_size must be at least 1")
    arrivals = sorted(draw.randint(0, span_us) for _ in range(requests))
    sequences: list[tuple[int, ...]] = [()]
    made: list[Request] = []
    for number, arrival_us in enumerate(arrivals):
        prompt = _prompt(draw, sequences, alphabet, max_input)
        limit = draw.randint(1, max_output)
        output = draw.randint(1, limit) if draw.random() < 0.5 else limit
        reply = tuple(draw.randrange(alphabet) for _ in range(output)) if draw.random() < reply_chance else ()
        sequences.append(prompt + reply)
        parents: tuple[RequestId, ...] = ()
        if made and draw.random() < parent_chance:
            chosen = draw.sample(range(number), k=min(number, draw.randint(1, 2)))
            parents = tuple(made[place].id for place in sorted(chosen))
        made.append(
            Request(
                id=f"r{number}",
                client=_client(draw.randrange(clients)),
                arrival_us=arrival_us,
                input_tokens=len(prompt),
                output_tokens=output,
                max_output=limit,
                prompt=prompt,
                reply=reply,
                parents=parents,
                think_us=draw.randint(0, span_us) if parents else 0,
            )
        )
    return Workload(block_size=block_size, requests=tuple(made), name="random")


def _prompt(draw: Random, sequences: list[tuple[int, ...]], alphabet: int, max_input: int) -> tuple[int, ...]:
    """A prompt of 1 to ``max_input`` tokens that may start like an earlier sequence."""
    earlier = draw.choice(sequences) if draw.random() < 0.5 else ()
    shared = earlier[: draw.randint(0, min(len(earlier), max_input))]
    fresh = draw.randint(0 if shared else 1, max_input - len(shared))
    return shared + tuple(draw.randrange(alphabet) for _ in range(fresh))


def _client(number: int) -> str:
    """A short name."""
    return chr(ord("A") + number) if number < 26 else f"c{number}"
