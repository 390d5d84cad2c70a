"""Write the example workloads: `make examples`. The same files every time; a test compares the bytes.

The first is small enough to follow by hand (docs/tutorial.md). The others are the paper's workloads in small, drawn
by the project's own generator, and heavy enough for one A10G that policies differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dlpm.request import Request, Workload
from dlpm.workload import generate, parse_spec, write

SPECIFICATIONS = {
    "shared-prefixes": "synthetic:llm-as-a-judge:s1:programs=20:rate=5:heavy_width=8:block_size=64:seed=1",
    "long-document-qa": "synthetic:long-document-qa:s1:programs=8:block_size=256:seed=1",
    "tree-of-thoughts": "synthetic:tree-of-thoughts:s2:programs=6:rate=2:block_size=128:seed=1",
    "multi-turn-chat": "synthetic:multi-turn-chat:s1:programs=60:rate=200:think=0.5:block_size=32:seed=1",
}
"""File name to what is generated."""

_SYSTEM_PROMPT = tuple(range(100, 108))


def two_clients() -> Workload:
    """Ada asks four questions below one system prompt, Bob two without any; all arrive together."""
    requests = []
    for number in range(4):
        question = tuple(range(200 + 10 * number, 204 + 10 * number))
        requests.append(_request(f"a{number + 1}", "ada", _SYSTEM_PROMPT + question))
    for number in range(2):
        requests.append(_request(f"b{number + 1}", "bob", tuple(range(300 + 20 * number, 312 + 20 * number))))
    return Workload(block_size=4, requests=tuple(requests), name="two clients")


def eight_prompts() -> Workload:
    """One client, eight one-token prompts: under optimistic memory its debt grows beyond the printed bound.

    All eight fit into 64 tokens at once, and memory that a finished request gives back is decoded into by the others:
    more than 64 tokens are decoded after the gate has closed.
    """
    outputs = (7, 8, 9, 11, 15, 20, 31, 63)
    requests = tuple(
        Request(
            id=f"r{number}",
            client="A",
            arrival_us=0,
            input_tokens=1,
            output_tokens=output,
            max_output=output,
            prompt=(number,),
        )
        for number, output in enumerate(outputs, start=1)
    )
    return Workload(block_size=1, requests=requests, name="eight one-token prompts")


def _request(name: str, client: str, prompt: tuple[int, ...]) -> Request:
    """A request that arrives at 0 and generates three tokens."""
    return Request(
        id=name, client=client, arrival_us=0, input_tokens=len(prompt), output_tokens=3, max_output=3, prompt=prompt
    )


def write_all(folder: Path) -> None:
    """Write every example into ``folder``, which exists."""
    write(folder / "two-clients.jsonl", two_clients())
    write(folder / "optimistic-breaks-printed-floor.jsonl", eight_prompts())
    for name, text in SPECIFICATIONS.items():
        write(folder / f"{name}.jsonl", generate(parse_spec(text)))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "workloads")
