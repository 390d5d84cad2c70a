"""The parameters of all instances, as tensors ``[instances]``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dlpm.batch import AT_ADMISSION
from dlpm.errors import InputError
from dlpm_engine.adapter import RESERVING, EngineConfig
from dlpm_engine.tensor.exact import INT64, fits

NO_LIMIT = 2**62
_MOST_KV_TOKENS = 2**61


class Parameters:
    """What `EngineConfig` says, for every instance: int64 or bool ``[instances]``.

    Raises:
        InputError: a parameter is beyond int64.
    """

    def __init__(self, configs: Sequence[EngineConfig], device: torch.device) -> None:
        """Take in the parameters of the instances."""
        for config in configs:
            _check(config)
        self.configs = configs
        self.device = device
        self.extend_weight = self._numbers([config.extend_weight for config in configs])
        self.output_weight = self._numbers([config.output_weight for config in configs])
        self.kv_tokens = self._numbers([config.kv_tokens for config in configs])
        self.block_size = self._numbers([config.block_size for config in configs])
        self.max_running = self._numbers([config.max_running or NO_LIMIT for config in configs])
        self.watermark = self._numbers([0 if config.memory == RESERVING else config.watermark for config in configs])
        self.reserving = self._numbers([int(config.memory == RESERVING) for config in configs]) > 0
        self.at_admission = self._numbers([int(config.visibility == AT_ADMISSION) for config in configs]) > 0

    def _numbers(self, values: list[int]) -> torch.Tensor:
        """Numbers on the device."""
        return torch.tensor(values, dtype=INT64).to(self.device)

    def quantum(self, instance: int, client: str) -> int:
        """The quantum of one client. O(1)."""
        config = self.configs[instance]
        return config.quanta.get(client, config.quantum)


def _check(config: EngineConfig) -> None:
    """Refuse what int64 cannot hold."""
    named = {"weights.extend": config.extend_weight, "weights.output": config.output_weight}
    named |= {"quantum.default": config.quantum}
    named |= {f"quantum.{client}": value for client, value in config.quanta.items()}
    for field, value in named.items():
        if not fits(value):
            raise InputError(f"expected an integer below 2^63, found {value}", field=field)
    if config.kv_tokens > _MOST_KV_TOKENS:
        raise InputError(f"expected at most 2^61 tokens, found {config.kv_tokens}", field="kv_tokens")
