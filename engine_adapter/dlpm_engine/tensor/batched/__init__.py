"""Many independent schedulers at once: all state in int64 tensors ``[instances, ...]``, on the CPU or on a GPU."""
