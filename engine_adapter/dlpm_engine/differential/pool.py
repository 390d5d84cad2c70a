"""Where the chunks of a campaign run: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from dlpm.errors import InputError
from dlpm_engine.differential.chunk import ChunkResult

Work = Callable[[int], ChunkResult]
"""Runs the chunk with a number. Must be picklable where it leaves the process."""


class WorkerDiedError(RuntimeError):
    """A process of a campaign died; its chunk is lost, finished ones are not."""


class Pool(Protocol):
    """Runs chunks and yields their results as they come; it asks for the next chunk only when it has room for it."""

    def results(self, work: Work, chunks: Iterator[int]) -> Iterator[ChunkResult]:
        """The results of ``chunks``, in any order."""


class HerePool:
    """This process, one chunk after the other."""

    def results(self, work: Work, chunks: Iterator[int]) -> Iterator[ChunkResult]:
        """See `Pool`."""
        one_thread()
        for chunk in chunks:
            yield work(chunk)


class ProcessPool:
    """Several processes of this machine."""

    def __init__(self, jobs: int) -> None:
        """Use ``jobs`` processes."""
        self._jobs = jobs

    def results(self, work: Work, chunks: Iterator[int]) -> Iterator[ChunkResult]:
        """See `Pool`.

        Raises:
            WorkerDiedError: a process died.
        """
        # Spawned, not forked: torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self._jobs, mp_context=context, initializer=_start_worker) as executor:
            pending: set[Future[ChunkResult]] = set()
            try:
                while True:
                    for chunk in chunks:
                        pending.add(executor.submit(work, chunk))
                        if len(pending) >= 2 * self._jobs:
                            break
                    if not pending:
                        return
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            except BrokenProcessPool as error:
                raise WorkerDiedError("a process of the campaign died, perhaps for want of memory") from error
            finally:
                executor.shutdown(cancel_futures=True)


class RayPool:
    """A Ray cluster: the one that ``RAY_ADDRESS`` names, or a local one.

    Its nodes need this package and the engine. A task whose process dies is run again by Ray, three times.

    Raises:
        InputError: Ray is not installed, or there is no cluster at that address.
    """

    def __init__(self) -> None:
        """Connect."""
        try:
            self._ray = importlib.import_module("ray")
        except ModuleNotFoundError as error:
            raise InputError("Ray is not installed: pip install 'dlpm[ray]'", field="--ray") from error
        if not self._ray.is_initialized():
            try:
                self._ray.init(log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise InputError(f"expected a Ray cluster to connect to: {reason}", field="--ray") from error

    def results(self, work: Work, chunks: Iterator[int]) -> Iterator[ChunkResult]:
        """See `Pool`.

        Raises:
            InputError: a task raised it.
            WorkerDiedError: the process of a task died, again and again.
        """
        remote = self._ray.remote(_work_remotely)
        slots = max(2, 2 * int(self._ray.cluster_resources().get("CPU", 1)))
        pending: list[object] = []
        try:
            while True:
                for chunk in chunks:
                    pending.append(remote.remote(work, chunk))
                    if len(pending) >= slots:
                        break
                if not pending:
                    return
                done, pending = self._ray.wait(pending)
                for reference in done:
                    yield self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # What a task raises arrives wrapped, its text preceded by where it happened.
            raise error.cause from error
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError) as error:
            raise WorkerDiedError("a process of the campaign died, perhaps for want of memory") from error
        finally:
            for reference in pending:
                self._ray.cancel(reference, force=True)


def _work_remotely(work: Work, chunk: int) -> ChunkResult:
    """One chunk, as a Ray task."""
    one_thread()
    return work(chunk)


def _start_worker() -> None:
    """What a worker process does first: leave Ctrl-C to its parent, and take one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread()


def one_thread() -> None:
    """Let torch, if it is there, use one thread: the tensors of small cases are too small for more."""
    try:
        import torch
    except ModuleNotFoundError:
        return
    torch.set_num_threads(1)
