"""E4, preemption by swap: a preempted request's KV cache goes to CPU memory and comes back, and is not computed again.

After FastSwitch [Shen, Li and Gao, arXiv:2411.18424], whose three means are here: contiguous groups of blocks, so that
there are fewer copies (`block_groups.py`); copies beside the forward steps (`links.py`, `states.py`); and copies in CPU
memory that are kept, so that only what is new is copied again (`cpu_copies.py`). `worker.py` puts them together.
"""
