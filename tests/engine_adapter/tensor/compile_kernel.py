"""Compile the kernel for a GPU that need not be there, as a launch would, and say what the compiler made.

Run as a program, by a test, from the root of the checkout: ``python -m tests.engine_adapter.tensor.compile_kernel 90 12
700`` for compute capability 9.0, and schedulers of 12 and 700 requests. Standard output is a list of JSON objects, one
for each.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast
from unittest.mock import patch

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton.compiler.compiler import CompiledKernel

from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.tensor.batched.kernel import entry, scheduler
from dlpm_engine.tensor.batched.kernel.scheduler import KernelScheduler
from tests.engine_adapter.tensor.absent_gpu import WARP, AbsentGPU, jitted

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class CompilesOnly:
    """Stands where the kernel is launched, and compiles it for the very arguments of the launch."""

    def __init__(self) -> None:
        self.kernel = jitted(entry.step)
        self.made: list[tuple[int, CompiledKernel]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> object:
        def compile_for(*arguments: object, **options: int) -> None:
            made = cast("CompiledKernel", self.kernel.run(*arguments, grid=grid, warmup=True, **options))
            self.made.append((options["BLOCK"], made))

        return compile_for


def described(block: int, made: CompiledKernel) -> dict[str, int]:
    """Registers of a thread, bytes on its stack, and instructions that matter."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ptx: str = made.asm["ptx"]
    return {
        **{name.lower(): int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)},
        "block": block,
        "threads": WARP * made.metadata.num_warps,
        "barriers": len(re.findall(r"\bbar\.sync\b", ptx)),
        "loads": len(re.findall(r"\bld\.global\b", ptx)),
        "loads_of_what_never_changes": len(re.findall(r"\bld\.global\.nc\b", ptx)),
    }


def main(capability: int, sizes: list[int]) -> None:
    """Compile the step of schedulers of so many requests."""
    triton.runtime.driver.set_active(AbsentGPU(capability))
    compiler = CompilesOnly()
    with (
        patch.object(entry, "step", compiler),
        patch.object(scheduler, "interpreted", lambda: True),
    ):
        for size in sizes:
            worker = KernelScheduler([EngineConfig(quantum=9, kv_tokens=99)], torch.device("cpu"))
            requests = [Request(str(number), "A", 0, 3, 1, 1, prompt=(1, 2, number)) for number in range(size)]
            worker.submit([(0, request) for request in requests])
            worker.step()
    json.dump([described(block, made) for block, made in compiler.made], sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(size) for size in sys.argv[2:]])
