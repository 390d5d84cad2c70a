"""How a step of many instances is taken."""

from __future__ import annotations

OPERATIONS = "operations"
"""Some hundred tensor operations, on whatever torch runs on."""
KERNEL = "kernel"
"""One Triton kernel, on a CUDA device; on the CPU in Triton's interpreter, which is slow."""
