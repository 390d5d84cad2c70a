"""Random clusters with a shared ledger keep every counter in range and every gap within its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlpm import bounds
from dlpm.request import Request
from dlpm_proofs.cluster_witness import ClusterSetting, moments, replay_shared, widest
from dlpm_proofs.theorems.e9_shared_ledger import lowest_counter
from dlpm_proofs.witness import call

LONGEST = 3


@st.composite
def floods(draw: st.DrawFn) -> list[Request]:
    """Requests of two clients, most of them there from the start, a few after another has finished."""
    requests: list[Request] = []
    for number in range(draw(st.integers(6, 24))):
        client = draw(st.sampled_from(("f", "g")))
        prompt = [draw(st.integers(0, 1)) for _ in range(draw(st.integers(1, LONGEST)))]
        earlier = st.sampled_from([request.id for request in requests])
        parents = draw(st.lists(earlier, max_size=1)) if requests else []
        requests.append(call(f"{client}{number}", client, prompt, draw(st.integers(1, 5)), after=parents))
    return requests


@given(
    requests=floods(),
    late=st.integers(0, 2),
    quantum=st.integers(1, 9),
    speeds=st.lists(st.integers(1, 3), min_size=2, max_size=3),
    moving=st.booleans(),
)
def test_counters_and_gaps_of_a_shared_ledger_stay_within_their_bounds(
    requests: list[Request], late: int, quantum: int, speeds: list[int], moving: bool
) -> None:
    setting = ClusterSetting(kv_tokens=8, quantum=quantum, worker_quantum=3, step_us=tuple(speeds))
    run, cluster = replay_shared(setting, requests, "random", late=late, moving=moving)
    floor = lowest_counter(setting, late, LONGEST)
    for view in (*cluster.ledger.views, cluster.ledger.keeper):
        assert all(floor <= value <= quantum for value in view.deficits.values())
    # What a worker sees is never below the true counter, and so never below its floor.
    assert all(value >= floor for client in ("f", "g") for value in run.counters(client))
    found = moments(run)
    limit = bounds.service_gap(quantum, floor)
    assert max(widest(found, "f", "g"), widest(found, "g", "f")) <= limit
    assert sum(found[-1].service.values()) > 0
