"""A whole step of every instance in one kernel: no answer from the device is needed in between.

One program schedules one instance, on the tensors of `BatchedScheduler`. Start with `step.py`.
"""
