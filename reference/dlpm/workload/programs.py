"""The programs of the paper's four workloads as graphs of dependent calls [DLPM Fig. 6].

A prompt is a `Prompt`: how long it is, and the hashes of its full blocks. Appending keeps what is shared shared, so a
document of 20,000 tokens costs its blocks once and each call on it a few more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from dlpm.request import ClientId, Request, RequestId

TREE_HEIGHT = 4
"""Levels of calls in a tree of thoughts [DLPM §6.1]."""

INSTRUCTION_TOKENS = 32
"""Mean length of a question on a document, or of the description of a dimension to judge: the paper names none."""


class Hashes:
    """Fresh block hashes: 0, 1, 2, ..."""

    def __init__(self) -> None:
        self._next = 0

    def fresh(self, count: int) -> tuple[int, ...]:
        """``count`` hashes that were never given out. O(count)."""
        first = self._next
        self._next += count
        return tuple(range(first, self._next))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text of ``tokens`` tokens, and the hashes of its full blocks of ``block_size``."""

    block_size: int
    tokens: int = 0
    blocks: tuple[int, ...] = ()

    def followed_by(self, tokens: int, hashes: Hashes) -> Prompt:
        """This text and ``tokens`` new ones; the blocks that they complete get fresh hashes. O(blocks)."""
        total = self.tokens + tokens
        return Prompt(self.block_size, total, self.blocks + hashes.fresh(total // self.block_size - len(self.blocks)))


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the texts of one client are, in tokens.

    Attributes:
        prefix: mean of what the calls of a program share: document, question, article; of a chat, one user message.
        prepended: fixed extra tokens before each prefix.
        output: mean of a reply; twice this is the limit that requests declare.
        spread: coefficient of variation of all lengths (Gamma distributed).
    """

    prefix: int
    output: int
    spread: float
    prepended: int = 0

    @property
    def max_output(self) -> int:
        """The declared limit on a reply."""
        return 2 * self.output

    def draw_prefix(self, draw: Random) -> int:
        """Length of one prefix."""
        return self.prepended + draw_length(draw, self.prefix, self.spread)

    def draw_output(self, draw: Random) -> int:
        """Length of one reply, from 1 to the declared limit."""
        return min(self.max_output, draw_length(draw, self.output, self.spread))


def draw_length(draw: Random, mean: float, spread: float) -> int:
    """A whole number >= 1, Gamma distributed with this mean and coefficient of variation (constant for 0)."""
    if spread == 0:
        return max(1, round(mean))
    shape = spread**-2
    return max(1, round(draw.gammavariate(shape, mean / shape)))


@dataclass(slots=True)
class Writer:
    """Writes down the calls of one program.

    Attributes:
        client: who pays.
        name: of the program; the calls are ``name.0``, ``name.1``, ...
        arrival_us: when the program starts.
        lengths: of the texts.
        draw: where they are drawn from.
        hashes: where new blocks get their hashes.
        block_size: of those blocks.
        think_us: mean think time between turns.
        calls: what has been written.
    """

    client: ClientId
    name: str
    arrival_us: int
    lengths: Lengths
    draw: Random
    hashes: Hashes
    block_size: int
    think_us: int
    calls: list[Request] = field(default_factory=list)

    def prefix(self) -> Prompt:
        """A new text that the calls of the program will share."""
        return Prompt(self.block_size).followed_by(self.lengths.draw_prefix(self.draw), self.hashes)

    def instruction(self, prompt: Prompt) -> Prompt:
        """The prompt with a short text of its own at the end."""
        return prompt.followed_by(draw_length(self.draw, INSTRUCTION_TOKENS, self.lengths.spread), self.hashes)

    def call(
        self, prompt: Prompt, parents: tuple[RequestId, ...] = (), think_us: int = 0
    ) -> tuple[RequestId, Prompt, int]:
        """Write one call; returns its id, its prompt with the reply appended, and the length of the reply."""
        output = self.lengths.draw_output(self.draw)
        answered = prompt.followed_by(output, self.hashes)
        request = Request(
            id=f"{self.name}.{len(self.calls)}",
            client=self.client,
            arrival_us=self.arrival_us,
            input_tokens=prompt.tokens,
            output_tokens=output,
            max_output=self.lengths.max_output,
            blocks=prompt.blocks,
            reply_blocks=answered.blocks[len(prompt.blocks) :],
            parents=parents,
            think_us=think_us,
        )
        self.calls.append(request)
        return request.id, answered, output


Program = Callable[[Writer, int], None]
"""Writes the calls of one program of a width: questions, branches, dimensions, or mean turns."""


def long_document_qa(writer: Writer, questions: int) -> None:
    """Independent questions on one document [DLPM Fig. 6 a]."""
    document = writer.prefix()
    for _ in range(questions):
        writer.call(writer.instruction(document))


def tree_of_thoughts(writer: Writer, branches: int) -> None:
    """A tree of calls; each continues the text of its parent's prompt and reply [DLPM Fig. 6 c].

    ``branches + branches**2 + ... + branches**4`` calls: 30 for 2 branches and 340 for 4, as in [DLPM Table 3].
    Siblings have the same prompt and draw different replies.
    """
    level: list[tuple[tuple[RequestId, ...], Prompt]] = [((), writer.prefix())]
    for _ in range(TREE_HEIGHT):
        below: list[tuple[tuple[RequestId, ...], Prompt]] = []
        for parents, prompt in level:
            for _ in range(branches):
                identity, answered, _ = writer.call(prompt, parents)
                below.append(((identity,), answered))
        level = below


def llm_as_a_judge(writer: Writer, dimensions: int) -> None:
    """One judgement of the article a dimension, then a summary that reads all judgements [DLPM Fig. 6 b].

    The judgements sit behind the article in the summary's prompt, at places where no cache has them: only the article
    is shared.
    """
    article = writer.prefix()
    judges: list[RequestId] = []
    judgements = 0
    for _ in range(dimensions):
        identity, _, output = writer.call(writer.instruction(article))
        judges.append(identity)
        judgements += output
    writer.call(writer.instruction(article).followed_by(judgements, writer.hashes), tuple(judges))


def multi_turn_chat(writer: Writer, mean_turns: int) -> None:
    """Turns that each follow the whole conversation so far, after a think time [DLPM Fig. 6 d].

    From 1 to ``2 * mean_turns - 1`` turns, equally likely; think times are exponential.
    """
    conversation = Prompt(writer.block_size)
    parents: tuple[RequestId, ...] = ()
    for turn in range(writer.draw.randint(1, 2 * mean_turns - 1)):
        think_us = round(writer.draw.expovariate(1.0) * writer.think_us) if turn else 0
        message = writer.lengths.draw_prefix(writer.draw)
        identity, conversation, _ = writer.call(conversation.followed_by(message, writer.hashes), parents, think_us)
        parents = (identity,)
