"""The batched scheduler whose step is one kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dlpm.errors import InputError
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.tensor.batched.kernel import entry
from dlpm_engine.tensor.batched.kernel.dialect import InterpreterError, interpreted
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.exact import INT64

_LEAST_BLOCK = 32
_MOST_BLOCK = 1024
_ENTRIES_A_WARP = 128
_SPARE_EVENTS = 64


class KernelScheduler(BatchedScheduler):
    """`BatchedScheduler`, with the same tensors and the same decisions, but a step is one launch and one answer.

    The answer says whether the tape had room for all events of the step; if not, the rest follows in another launch.

    Raises:
        InputError: a parameter is beyond int64; or kernels are compiled here, and the device is not a CUDA device.
    """

    @torch.inference_mode()
    def __init__(self, configs: Sequence[EngineConfig], device: torch.device) -> None:
        """Empty workers."""
        if device.type != "cuda" and not interpreted():
            raise InputError(
                "the kernel needs a CUDA device, or TRITON_INTERPRET=1 to interpret it on the CPU", field="--device"
            )
        super().__init__(configs, device)
        self._resume = torch.zeros((len(configs), entry.RESUME_FIELDS.value), dtype=INT64, device=device)
        self._unfinished = torch.zeros(1, dtype=INT64, device=device)
        self._working_space()

    def _working_space(self) -> None:
        """Rows that the kernel writes before it reads them."""
        self._frozen_order, self._need = torch.empty_like(self.phase), torch.empty_like(self.phase)
        self._counts = torch.empty_like(self.deficits)

    @torch.inference_mode()
    def step(self) -> None:
        """Admission, one forward, finish, in every instance [DLPM Alg. 1 ll. 16-27]. One synchronisation a launch."""
        slots, clients = self.phase.shape[1], self.deficits.shape[1]
        if self._need.shape != self.phase.shape or self._counts.shape != self.deficits.shape:
            self._working_space()
        self.tape.rewind(clients)
        self.tape.make_room(2 * slots + _SPARE_EVENTS)
        self._resume.zero_()
        self._unfinished.zero_()
        self._run()
        while int(self._unfinished):
            self.tape.make_room(2 * self.tape.room())
            self._unfinished.zero_()
            self._run()

    def _run(self) -> None:
        """Launch the kernel. What goes wrong in an interpreted one is raised as it was, for whoever waits for it."""
        try:
            self._launch()
        except InterpreterError as error:
            cause: BaseException = error
            while isinstance(cause, InterpreterError) and cause.__cause__ is not None:
                cause = cause.__cause__
            raise cause from error

    def _launch(self) -> None:
        """Run the kernel, one program an instance."""
        parameters, layout, caches, tape = self.parameters, self.layout, self.caches, self.tape
        instances, slots = self.phase.shape
        block = block_of(slots)
        events, deficits_after, concerned, count = tape.tensors()
        # Triton launches on the current device, which need not be that of the tensors; -1, of the CPU, changes nothing.
        with torch.cuda.device(self.phase.get_device()):
            entry.step[(instances,)](
                parameters.extend_weight,
                parameters.output_weight,
                parameters.kv_tokens,
                parameters.block_size,
                parameters.max_running,
                parameters.watermark,
                _bytes(parameters.reserving),
                _bytes(parameters.at_admission),
                layout.facts,
                layout.paths,
                layout.sequences,
                layout.parents,
                layout.depths,
                caches.cached,
                caches.ends,
                caches.locks,
                caches.last_use,
                caches.total,
                caches.locked,
                caches.clock,
                self.phase,
                self.rank,
                self.admitted,
                self._generated,
                self._private,
                self._reserved,
                self._locked_depth,
                self._kept_depth,
                _bytes(self._computed),
                self.deficits,
                self._quanta,
                _bytes(self.registered),
                self.set_aside,
                self._admissions,
                _bytes(self.out_of_range),
                events,
                deficits_after,
                _bytes(concerned),
                count,
                self._frozen_order,
                self._need,
                self._counts,
                self._resume,
                self._unfinished,
                instances,
                slots,
                layout.paths.shape[2],
                layout.sequences.shape[2],
                caches.cached.shape[1],
                self.deficits.shape[1],
                tape.room(),
                BLOCK=block,
                num_warps=warps_of(block),
            )


def block_of(slots: int) -> int:
    """How many slots, prefixes or clients a program handles at a time: a power of two. O(1)."""
    return min(max(_LEAST_BLOCK, 1 << (slots - 1).bit_length()), _MOST_BLOCK)


def warps_of(block: int) -> int:
    """How many warps run a program. O(1)."""
    return max(1, block // _ENTRIES_A_WARP)


def _bytes(flags: torch.Tensor) -> torch.Tensor:
    """Bools as the bytes that they are stored in. O(1)."""
    return flags.view(torch.uint8)
