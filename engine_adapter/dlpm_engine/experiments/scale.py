"""64 workers, 1,000 clients, up to 100,000 requests in one run: time and memory of the simulation itself."""

from __future__ import annotations

import resource
import sys
import time
from random import Random

from dlpm.batch import WorkerConfig
from dlpm.cluster import Cluster
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Reserving
from dlpm.policies.dlpm import DLPM
from dlpm.request import Request, Workload
from dlpm.timing import preset
from dlpm.worker import Worker
from dlpm_engine.experiments.measure import COST
from dlpm_engine.experiments.systems import QUANTUM, WORKER_QUANTUM

WORKERS = 64
CLIENTS = 1_000
REQUESTS_PER_S = 8_000
SHARED_BLOCKS = 32
OWN_BLOCKS = 4
BLOCK_SIZE = 16
KV_TOKENS = 400_000


def workload(requests: int, seed: int = 0) -> Workload:
    """Requests of 1,000 clients, each with a system prompt of 512 tokens, and 64 tokens and 8 to 32 outputs a request.

    They come at a constant rate, so a longer workload is a longer run, not a fuller one.
    """
    draw = Random(seed)
    made = []
    fresh = CLIENTS * SHARED_BLOCKS
    for number in range(requests):
        client = draw.randrange(CLIENTS)
        output = draw.randint(8, 32)
        prompt = tuple(range(client * SHARED_BLOCKS, (client + 1) * SHARED_BLOCKS))
        tail = tuple(range(fresh + number * OWN_BLOCKS, fresh + (number + 1) * OWN_BLOCKS))
        made.append(
            Request(
                id=f"r{number}",
                client=f"c{client}",
                arrival_us=number * 1_000_000 // REQUESTS_PER_S,
                input_tokens=(SHARED_BLOCKS + OWN_BLOCKS) * BLOCK_SIZE,
                output_tokens=output,
                max_output=32,
                blocks=prompt + tail,
            )
        )
    return Workload(BLOCK_SIZE, tuple(made), f"{requests} requests of {CLIENTS} clients")


def main(arguments: list[str]) -> None:
    """Run once, and print what it took: one process a size, so that the peak memory is that of the size."""
    requests = int(arguments[0])
    total = workload(requests)
    loaded_mib = _peak_mib()
    timer = preset("a100-80g")
    config = WorkerConfig(kv_tokens=KV_TOKENS, memory=Reserving(), block_size=BLOCK_SIZE)
    workers = [Worker(config, DLPM(Ledger(Quanta(QUANTUM), COST)), timer, index=index) for index in range(WORKERS)]
    cluster = Cluster(workers, D2LPM(WORKERS, WORKER_QUANTUM, COST), notice_delay=1)
    started = time.process_time()
    finished = cluster.run(total)
    seconds = time.process_time() - started
    print(
        f"| {finished:,} | {cluster.time_us / 1_000_000:.1f} s | {cluster.steps:,} | {seconds:.1f} s "
        f"| {seconds / finished * 1_000_000:.0f} µs | {loaded_mib:.0f} MiB | {_peak_mib():.0f} MiB |"
    )


def _peak_mib() -> float:
    """Largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
