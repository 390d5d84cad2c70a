"""Translate TTIR, what Triton's front end and its first passes make of a kernel, to Python that computes with NumPy.

A GPU would run what was compiled, not the source that the interpreter runs: widths of integers, constants, and what the
compiler took for granted of the arguments are decided on the way. TTIR is the last form in which a kernel still says
what it computes, and not yet which thread does.

What is known is what the kernel of the batched scheduler consists of, and no more:

- ``arith`` on i1, i8, i32 and i64, scalars and blocks: `constant`, `addi`, `subi`, `muli`, `divsi`, `remsi`, `maxsi`,
  `minsi`, `maxui`, `andi`, `ori`, `cmpi` (signed), `select`, `extsi`, `extui`, `trunci`. They wrap as on a GPU;
- ``scf``: `if`, `for`, `while`;
- ``tt``: `get_program_id` along x, `make_range`, `splat`, `reshape` that may reorder (here it turns the entries round),
  `reduce` and `scan` by one addition, largest or smallest, `addptr`, `load`, `store`, `atomic_rmw` that adds;
- ``ttg.barrier all``.

**Anything else is an error, never skipped**: another operation, another type, an attribute or a modifier of a known
one, and a use of the result of an atomic addition, which depends on an order that nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.engine_adapter.tensor.ttir_numbers import SIGNED, UNSIGNED, counted, quotient, remainder
from tests.engine_adapter.tensor.ttir_reader import Reader, Region, Type, listed

_VALUE = r"(%[\w-]+(?:#\d+)?)"
_TYPE = r"([^\s,()]+)"
_ADD = (
    rf"tt\.atomic_rmw add, acq_rel, gpu, {_VALUE}, {_VALUE}, {_VALUE} : "
    rf"\({_TYPE}, {_TYPE}, {_TYPE}\) -> {_TYPE}"
)
_FOR = (
    rf"scf\.for {_VALUE} = {_VALUE} to {_VALUE} step {_VALUE}"
    r"(?: iter_args\((.*)\) -> \(.*\))? +: (i32|i64) \{"
)
_INFIX = {"addi": "+", "subi": "-", "muli": "*", "andi": "&", "ori": "|"}
_CALLS = {"maxsi": "np.maximum", "minsi": "np.minimum", "divsi": "quotient", "remsi": "remainder"}
_COMPARED = {"eq": "==", "ne": "!=", "slt": "<", "sle": "<=", "sgt": ">", "sge": ">="}
_REDUCED = {"addi": "np.add", "maxsi": "np.maximum", "minsi": "np.minimum"}


@dataclass(frozen=True, slots=True)
class Program:
    """A kernel as Python.

    Attributes:
        source: the text of a function of a memory (such as `ttir_launch.ArenaMemory`), the number of the program, and
            the kernel's arguments.
        arguments: the types of the arguments.
        divisors: by argument, what the compiler took for granted that it is a multiple of; 1 for nothing.
        run: the function; pointers are int64.
    """

    source: str
    arguments: tuple[str, ...]
    divisors: tuple[int, ...]
    run: Callable[..., None]


def translated(text: str) -> Program:
    """The one kernel of a module of TTIR that was printed without locations. O(its length).

    Raises:
        TtirError: something in it is not known here.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _Translation(lines).program()


class _Translation(Reader):
    """Reads a module line by line, and writes a line of Python or two for each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines)
        self._known = [(re.compile(pattern), method) for pattern, method in self._operations()]

    def _operations(self) -> list[tuple[str, Callable[..., None]]]:
        """Patterns of whole operations, without their results, and what handles each: results, then groups."""
        return [
            (r"arith\.constant (true|false)", self._flag),
            (rf"arith\.constant (-?\d+|dense<(?:true|false|-?\d+)>) : {_TYPE}", self._constant),
            (rf"arith\.(addi|subi|muli|maxsi|minsi|divsi|remsi) {_VALUE}, {_VALUE} : {_TYPE}", self._arithmetic),
            (rf"arith\.(andi|ori) {_VALUE}, {_VALUE} : {_TYPE}", self._bitwise),
            (rf"arith\.maxui {_VALUE}, {_VALUE} : {_TYPE}", self._unsigned_maximum),
            (rf"arith\.cmpi (\w+), {_VALUE}, {_VALUE} : {_TYPE}", self._compare),
            (rf"arith\.select {_VALUE}, {_VALUE}, {_VALUE} : (?:{_TYPE}, )?{_TYPE}", self._select),
            (rf"arith\.(extsi|extui|trunci) {_VALUE} : {_TYPE} to {_TYPE}", self._cast),
            (r"tt\.get_program_id x : i32", self._program_id),
            (rf"tt\.make_range \{{end = (\d+) : i32, start = (\d+) : i32\}} : {_TYPE}", self._range),
            (rf"tt\.splat {_VALUE} : {_TYPE} -> {_TYPE}", self._splat),
            (rf"tt\.reshape {_VALUE} allow_reorder : {_TYPE} -> {_TYPE}", self._reorder),
            (rf'"tt\.reduce"\({_VALUE}\) <\{{axis = 0 : i32\}}> \(\{{', self._reduce),
            (rf'"tt\.scan"\({_VALUE}\) <\{{axis = 0 : i32, reverse = false\}}> \(\{{', self._scan),
            (rf"tt\.addptr {_VALUE}, {_VALUE} : {_TYPE}, {_TYPE}", self._address),
            (rf"tt\.load {_VALUE}(?:, {_VALUE}, {_VALUE})? : {_TYPE}", self._load),
            (rf"tt\.store {_VALUE}, {_VALUE}(?:, {_VALUE})? : {_TYPE}", self._store),
            (_ADD, self._add),
            (r"ttg\.barrier all", self._barrier),
            (rf"scf\.if {_VALUE}(?: -> \((?:.*)\))? \{{", self._if),
            (_FOR, self._for),
            (r"scf\.while \((.*)\) : \(.*\) -> (?:\(.*\)|\S+) \{", self._while),
            (rf"scf\.condition\({_VALUE}\) (.+) : .+", self._condition),
            (r"scf\.yield (.+) : .+", self._yield),
            (r"\} else \{", self._else),
            (r"\} do \{", self._do),
            (r"\^bb0\((.*)\):", self._turn),
            (r"\}", self._end),
        ]

    def program(self) -> Program:
        """Read all of it."""
        self._next("module {")
        arguments, divisors = self._head(self._next())
        names = [self._define(name) for name, _ in arguments]
        self._write(f"def kernel({', '.join(['memory', 'program', *names])}):")
        self._source[-1] = self._source[-1].strip()
        while self._next() != "tt.return":
            self._operation()
        self._next("}")
        self._next("}")
        if next(self._lines, None) is not None or self._regions:
            self._unknown()
        source = "\n".join([*self._source, "    return", ""])
        space: dict[str, object] = {
            "np": np,
            "quotient": quotient,
            "remainder": remainder,
            "counted": counted,
            **{f"np_{name}": kind for name, kind in SIGNED.items()},
            **{f"np_u{name}": kind for name, kind in UNSIGNED.items()},
        }
        exec(compile(source, "<TTIR>", "exec"), space)
        run = space["kernel"]
        assert callable(run)
        return Program(source, tuple(kind for _, kind in arguments), divisors, run)

    def _head(self, line: str) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
        """Names and types of the arguments, and what they are multiples of."""
        head = re.fullmatch(r"tt\.func public @\w+\((.*)\) attributes \{noinline = false\} \{", line)
        if head is None:
            self._unknown()
        found = [
            re.fullmatch(rf"(%\w+): {_TYPE}(?: \{{tt\.divisibility = (\d+) : i32\}})?", argument)
            for argument in listed(head[1])
        ]
        arguments = [(each[1], each[2]) for each in found if each is not None]
        if len(arguments) < len(found):
            self._unknown()
        for _, kind in arguments:
            self._typed(kind)
        return arguments, tuple(int(each[3] or 1) for each in found if each is not None)

    def _operation(self) -> None:
        """Translate the operation that begins in the current line."""
        results: list[str] = []
        text = self._line
        named = re.match(r"(%[\w-]+)(?::(\d+))? = ", text)
        if named is not None:
            text = text[named.end() :]
            results = [f"{named[1]}#{number}" for number in range(int(named[2]))] if named[2] else [named[1]]
        for pattern, method in self._known:
            match = pattern.fullmatch(text)
            if match is not None:
                method(results, *match.groups())
                return
        self._unknown()

    # -- integers ------------------------------------------------------------------------------------------------------

    def _flag(self, results: list[str], value: str) -> None:
        self._assign(results, f"np_i1({value.capitalize()})")

    def _constant(self, results: list[str], value: str, kind: str) -> None:
        number = value.removeprefix("dense<").removesuffix(">")
        number = number.capitalize() if number in {"true", "false"} else number
        its = self._integers(kind, *SIGNED)
        if (its.lanes > 0) != value.startswith("dense"):
            self._unknown()
        whole = f"np.full({its.lanes}, {number}, np_{its.element})"
        self._assign(results, whole if its.lanes else f"np_{its.element}({number})")

    def _arithmetic(self, results: list[str], name: str, left: str, right: str, kind: str) -> None:
        self._integers(kind, "i8", "i32", "i64")
        x, y = self._values(left, right)
        self._assign(results, f"{x} {_INFIX[name]} {y}" if name in _INFIX else f"{_CALLS[name]}({x}, {y})")

    def _bitwise(self, results: list[str], name: str, left: str, right: str, kind: str) -> None:
        self._integers(kind, *SIGNED)
        x, y = self._values(left, right)
        self._assign(results, f"{x} {_INFIX[name]} {y}")

    def _unsigned_maximum(self, results: list[str], left: str, right: str, kind: str) -> None:
        element = self._integers(kind, *UNSIGNED).element
        x, y = (f"{value}.view(np_u{element})" for value in self._values(left, right))
        self._assign(results, f"np.maximum({x}, {y}).view(np_{element})")

    def _compare(self, results: list[str], how: str, left: str, right: str, kind: str) -> None:
        self._integers(kind, *(SIGNED if how in {"eq", "ne"} else UNSIGNED))
        if how not in _COMPARED:
            self._unknown()
        x, y = self._values(left, right)
        self._assign(results, f"{x} {_COMPARED[how]} {y}")

    def _select(self, results: list[str], condition: str, left: str, right: str, flags: str | None, kind: str) -> None:
        self._integers(flags or "i1", "i1")
        self._typed(kind)
        where, x, y = self._values(condition, left, right)
        self._assign(results, f"np.where({where}, {x}, {y})[()]")

    def _cast(self, results: list[str], name: str, value: str, before: str, after: str) -> None:
        # To sign-extend or truncate flags would be neither of NumPy's casts.
        narrow = self._integers(before, *(SIGNED if name == "extui" else UNSIGNED)).element
        wide = self._integers(after, *UNSIGNED).element
        (x,) = self._values(value)
        as_unsigned = f".view(np_u{narrow})" if name == "extui" and narrow != "i1" else ""
        self._assign(results, f"{x}{as_unsigned}.astype(np_{wide})")

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _program_id(self, results: list[str]) -> None:
        self._assign(results, "np_i32(program)")

    def _range(self, results: list[str], end: str, start: str, kind: str) -> None:
        if self._integers(kind, "i32").lanes != int(end) - int(start):
            self._unknown()
        self._assign(results, f"np.arange({start}, {end}, dtype=np_i32)")

    def _splat(self, results: list[str], value: str, before: str, after: str) -> None:
        one, many = self._typed(before), self._typed(after)
        if one.lanes or not many.lanes:
            self._unknown()
        self._assign(results, f"np.repeat({self._values(value)[0]}, {many.lanes})")

    def _reorder(self, results: list[str], value: str, before: str, after: str) -> None:
        if before != after or not self._typed(before).lanes:
            self._unknown()
        self._assign(results, f"{self._values(value)[0]}[::-1]")

    def _combined(self, ending: str) -> tuple[str, Type, str]:
        """Read how a reduction combines two entries: NumPy's name for it, the type of the block, and of the result."""
        entries = re.fullmatch(rf"\^bb0\((%[\w-]+): {_TYPE}, (%[\w-]+): {_TYPE}\):", self._next())
        combine = re.fullmatch(rf"(%[\w-]+) = arith\.(\w+) {_VALUE}, {_VALUE} : {_TYPE}", self._next())
        if entries is None or combine is None:
            self._unknown()
        if combine[2] not in _REDUCED or {combine[3], combine[4]} != {entries[1], entries[3]}:
            self._unknown()
        self._next(f"tt.{ending}.return {combine[1]} : {combine[5]}")
        types = re.fullmatch(rf"\}}\) : \({_TYPE}\) -> {_TYPE}", self._next())
        if types is None:
            self._unknown()
        block = self._integers(types[1], "i8", "i32", "i64")
        if not block.lanes or {entries[2], entries[4], combine[5]} != {block.element}:
            self._unknown()
        return _REDUCED[combine[2]], block, types[2]

    def _reduce(self, results: list[str], value: str) -> None:
        how, block, after = self._combined("reduce")
        if after != block.element:
            self._unknown()
        self._assign(results, f"{how}.reduce({self._values(value)[0]}, dtype=np_{block.element})")

    def _scan(self, results: list[str], value: str) -> None:
        how, block, after = self._combined("scan")
        if self._typed(after) != block:
            self._unknown()
        self._assign(results, f"{how}.accumulate({self._values(value)[0]}, dtype=np_{block.element})")

    # -- memory --------------------------------------------------------------------------------------------------------

    def _address(self, results: list[str], pointer: str, offset: str, kind: str, offsets: str) -> None:
        size = np.dtype(SIGNED[self._pointers(kind)]).itemsize
        self._integers(offsets, "i32", "i64")
        x, y = self._values(pointer, offset)
        self._assign(results, f"{x} + {y}.astype(np_i64) * np_i64({size})")

    def _load(self, results: list[str], pointer: str, mask: str | None, other: str | None, kind: str) -> None:
        operands = [pointer] if mask is None or other is None else [pointer, mask, other]
        self._assign(results, f"memory.load({', '.join([repr(self._pointers(kind)), *self._values(*operands)])})")

    def _store(self, results: list[str], pointer: str, value: str, mask: str | None, kind: str) -> None:
        if results:
            self._unknown()
        operands = [pointer, value] if mask is None else [pointer, value, mask]
        self._write(f"memory.store({', '.join([repr(self._pointers(kind)), *self._values(*operands)])})")

    def _add(self, results: list[str], pointer: str, value: str, mask: str, kind: str, *others: str) -> None:
        element = self._pointers(kind)
        self._integers(others[0], element)
        self._integers(others[1], "i1")
        # Who uses its result uses what nothing known has defined.
        for result in results:
            self._names.pop(result, None)
        self._write(f"memory.add({', '.join([repr(element), *self._values(pointer, value, mask)])})")

    def _barrier(self, results: list[str]) -> None:
        self._write("memory.fence()")

    # -- control -------------------------------------------------------------------------------------------------------

    def _begun(self, text: str | None) -> list[str]:
        """What is carried from turn to turn, with its first values: ``%a = %b, ..``."""
        pairs = [re.fullmatch(rf"(%[\w-]+) = {_VALUE}", pair) for pair in listed(text or "")]
        found = [(pair[1], pair[2]) for pair in pairs if pair is not None]
        if len(found) < len(pairs):
            self._unknown()
        first = self._values(*(value for _, value in found))
        carried = [self._define(name) for name, _ in found]
        self._give(carried, first)
        return carried

    def _if(self, results: list[str], condition: str) -> None:
        (value,) = self._values(condition)
        self._open(f"if {value}:", Region("if", [self._define(name) for name in results]))

    def _for(
        self, results: list[str], index: str, first: str, last: str, by: str, begun: str | None, kind: str
    ) -> None:
        carried = self._begun(begun)
        bounds = ", ".join(self._values(first, last, by))
        region = Region("for", [self._define(name) for name in results], carried)
        self._open(f"for {self._define(index)} in counted({bounds}, np_{kind}):", region)

    def _while(self, results: list[str], begun: str) -> None:
        carried = self._begun(begun)
        self._open("while True:", Region("while", [self._define(name) for name in results], carried))

    def _condition(self, results: list[str], condition: str, passed: str) -> None:
        region = self._within("while")
        self._give(region.results, self._values(*listed(passed)))
        self._write(f"if not {self._values(condition)[0]}:")
        self._write("    break")

    def _do(self, results: list[str]) -> None:
        region = self._within("while")
        region.kind = "do"

    def _turn(self, results: list[str], arguments: str) -> None:
        """A turn of a `while` begins with what its condition passed on, which would be the results at its end."""
        region = self._within("do")
        self._give([self._define(name.split(":")[0]) for name in listed(arguments)], region.results)

    def _yield(self, results: list[str], values: str) -> None:
        region = self._within("if", "else", "for", "do")
        self._give(region.results if region.kind in {"if", "else"} else region.carried, self._values(*listed(values)))

    def _else(self, results: list[str]) -> None:
        region = self._within("if")
        self._regions.pop()
        self._open("else:", Region("else", region.results))

    def _end(self, results: list[str]) -> None:
        region = self._within("if", "else", "for", "do")
        self._regions.pop()
        if region.kind == "for":
            self._give(region.results, region.carried)
