"""Two front ends with a tenant each: weights hold where the queues are, not where the requests come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlpm.event_codec import encode_event, encode_header
from dlpm.events import Event, Header, Limits
from dlpm.workload import write
from dlpm.workload.files import read
from dlpm_engine.conformance import check_log
from dlpm_engine.experiments.two_routers import (
    BRONZE,
    CONFIG,
    COST,
    GOLD,
    QUANTUM,
    SLOTS,
    WEIGHTS,
    WORKERS,
    Place,
    even,
    fair_front_ends,
    fair_workers,
    one_ledger,
    skewed,
    workload,
)
from tests.engine_adapter.conformance.logs import as_bytes


def test_the_bundled_workload_is_the_one_that_the_experiment_runs(repository: Path, tmp_path: Path) -> None:
    bundled = repository / "examples" / "workloads" / "regressions" / "skewed-ingress.jsonl"
    write(tmp_path / "again.jsonl", workload())
    assert bundled.read_bytes() == (tmp_path / "again.jsonl").read_bytes()
    assert read(bundled) == workload()


def test_deficit_round_robin_at_the_front_ends_gives_its_weights_where_every_front_end_sees_every_tenant() -> None:
    finished = fair_front_ends(even, workload()).finished
    assert abs(finished[GOLD] - 4 * finished[BRONZE]) <= 4 * WORKERS * SLOTS


def test_deficit_round_robin_at_the_front_ends_gives_equal_shares_where_each_sees_one_tenant() -> None:
    finished = fair_front_ends(skewed, workload()).finished
    assert abs(finished[GOLD] - finished[BRONZE]) <= WORKERS * SLOTS


@pytest.mark.parametrize("place", [even, skewed])
@pytest.mark.parametrize("requests", [200, 800])
def test_weighted_dlpm_at_the_workers_gives_its_weights_wherever_requests_come_in(place: Place, requests: int) -> None:
    """At each worker a tenant's service is its refills times its quantum, less or more U and one quantum."""
    service = fair_workers(place, workload(requests)).service
    unit = COST.extend(64) + COST.output(CONFIG.kv_tokens)
    at_a_worker = unit + WEIGHTS[GOLD] * unit + 2 * WEIGHTS[GOLD] * QUANTUM
    assert abs(service[GOLD] - WEIGHTS[GOLD] * service[BRONZE]) <= WORKERS * at_a_worker


@pytest.mark.parametrize("late", [0, 8])
@pytest.mark.parametrize("requests", [200, 800])
def test_one_ledger_for_all_workers_gives_its_weights_with_one_bound_for_all_of_them(late: int, requests: int) -> None:
    """One floor and one quantum, not one for each worker: less or more what both workers kept back of late updates."""
    service = one_ledger(skewed, workload(requests), late=late).service
    unit = COST.extend(64) + COST.output(CONFIG.kv_tokens)
    once = WORKERS * unit + late * COST.extend(64)
    assert (
        abs(service[GOLD] - WEIGHTS[GOLD] * service[BRONZE]) <= (1 + WEIGHTS[GOLD]) * once + 2 * WEIGHTS[GOLD] * QUANTUM
    )


def test_the_logs_of_these_runs_hold() -> None:
    events: list[Event] = []
    fair_workers(skewed, workload(), events.append)
    header = Header(
        engine="two routers",
        policy="dlpm",
        extend_weight=1,
        output_weight=2,
        default_quantum=QUANTUM,
        quanta={client: QUANTUM * weight for client, weight in WEIGHTS.items()},
        limits=Limits(max_input=64, kv_tokens=CONFIG.kv_tokens, max_running=SLOTS),
        memory="reserving",
    )
    report = check_log(as_bytes([encode_header(header), *map(encode_event, events)]))
    assert report.violations == ()
