"""Faults planted in the batched scheduler, of the kinds that a pretended CUDA device is there to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from dlpm_engine.differential.corpus import corpus
from dlpm_engine.tensor.batched import cache
from dlpm_engine.tensor.batched.layout import ROOT
from dlpm_engine.tensor.batched.parameters import Parameters
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.batched.tape import Tape
from dlpm_engine.tensor.exact import too_low
from tests.engine_adapter.tensor.device_runs import (
    LONELY,
    PLAIN,
    lonely,
    run_together,
)
from tests.engine_adapter.tensor.pretended_device import (
    MixedDevicesError,
    Wait,
    pretended_device,
)
from tests.engine_adapter.tensor.pretended_liberties import UndefinedResultError


def _first_on_the_host(count: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
    return torch.arange(paths.shape[1]) < count.unsqueeze(1)


def _numbers_on_the_host(self: object, values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _resident_of_the_host(self: BatchedScheduler) -> torch.Tensor:
    return self.layout.facts[1].cpu() + self._generated


MIXES = {
    "an arange without a device": (BatchedScheduler, "_first", staticmethod(_first_on_the_host)),
    "parameters that stay on the host": (
        Parameters,
        "_numbers",
        _numbers_on_the_host,
    ),
    "facts brought to the host": (BatchedScheduler, "_resident", _resident_of_the_host),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_planted_mix_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    owner, attribute, fault = MIXES[name]
    monkeypatch.setattr(owner, attribute, fault)
    with pretended_device() as account, pytest.raises(MixedDevicesError):
        lonely(account, PLAIN)


def _order_by_unstable_sort(self: BatchedScheduler, waiting: torch.Tensor) -> torch.Tensor:
    by_rank = torch.where(waiting, self.rank, 2**62).argsort(dim=1)
    by_match = torch.where(waiting, -self._matched(), 1).gather(1, by_rank).argsort(dim=1)
    order = by_rank.gather(1, by_match)
    places = torch.arange(order.shape[1], device=self.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _charges_in_memory_not_filled(
    self: BatchedScheduler, where: torch.Tensor, client: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor
) -> None:
    counts = torch.empty_like(self.deficits)
    counts[self._everyone, client] = torch.where(where, tokens, 0)
    self._spend(counts, weight)


def _puts_anything_at_the_root(
    table: torch.Tensor, paths: torch.Tensor, chosen: torch.Tensor, values: torch.Tensor
) -> None:
    table.scatter_(1, torch.where(chosen, paths, ROOT), values)
    table[:, ROOT] = 0


LIBERTIES = {
    "an order that rests on a sort that need not be stable": (BatchedScheduler, "_order", _order_by_unstable_sort),
    "memory that nobody filled": (BatchedScheduler, "_charge", _charges_in_memory_not_filled),
    "different values for one place": (cache, "_put", _puts_anything_at_the_root),
}


@pytest.mark.parametrize("name", LIBERTIES)
def test_a_planted_trust_in_what_the_cpu_does_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    owner, attribute, fault = LIBERTIES[name]
    monkeypatch.setattr(owner, attribute, fault)
    names = (
        "families that share a prefix, visible at admission",
        "a conversation: every turn continues the reply before it",
    )
    cases = [corpus()[each] for each in names]
    try:
        caught = any(outcome.divergence is not None for outcome in run_together(cases).outcomes)
    except UndefinedResultError:
        caught = True
    assert caught


def _asks_each_time(self: BatchedScheduler, where: torch.Tensor) -> bool:
    return bool(where.any())


def _spends_by_mask(self: BatchedScheduler, counts: torch.Tensor, weight: torch.Tensor) -> None:
    beyond = too_low(self.deficits, weight.unsqueeze(1), counts)
    self.out_of_range |= beyond.any(1)
    self.deficits[~beyond] -= (counts * weight.unsqueeze(1))[~beyond]


_write = Tape.write


def _writes_a_number(
    self: Tape, where: torch.Tensor, kind: int, deficits: torch.Tensor, **values: torch.Tensor
) -> None:
    place = torch.where(where, self._count, self._events.shape[2] - 1)
    self._events[0, self._everyone, place] = kind
    _write(self, where, kind, deficits, **values)


WAITS = {
    "asking whether anybody is concerned": (BatchedScheduler, "_may_be_any", _asks_each_time, Wait.READ),
    "a mask as an index": (BatchedScheduler, "_spend", _spends_by_mask, Wait.SIZE),
    "a number of the host written by index": (Tape, "write", _writes_a_number, Wait.HIDDEN_COPY),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_planted_wait_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    owner, attribute, fault, kind = WAITS[name]
    monkeypatch.setattr(owner, attribute, fault)
    with pretended_device() as account:
        spent = lonely(account, PLAIN)
    assert spent != LONELY
    for found, expected in zip(spent, LONELY, strict=True):
        assert {wait for wait, _ in found - expected} <= {kind}
        assert not expected - found
