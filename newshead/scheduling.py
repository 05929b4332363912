"""Slices of processor time: a loop that wakes runs before those that have the processors."""

import ctypes
import logging
import os
import platform
import sys
from typing import Final

# The shortest that Linux takes.
SLICE_NS: Final = 100_000
# The number of Linux's sched_setattr, for which Python has no function.
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
SCHED_FLAG_RESET_ON_FORK: Final = 1

logger = logging.getLogger(__name__)


class _SchedulingAttributes(ctypes.Structure):
    """Linux's `struct sched_attr` in its first form; see sched_setattr(2)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def ask_for_short_slices() -> None:
    """Ask that the calling thread, when it wakes, run before those that have the processors.

    Otherwise it may wait until a running thread's slice of time is over: with a browser
    beside newshead on two processors, now and then for 1 to 4 ms. From version 6.12 Linux
    lets a thread interrupt others that take longer slices than it asks for; its share of
    the time stays the same (Linux's Documentation/scheduler/sched-eevdf.rst). It takes no
    rights. Threads and processes that the caller starts do not inherit it. Elsewhere, and
    where a user chose another kind of scheduling, nothing changes.
    """
    call = SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or call is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    attributes = _SchedulingAttributes(
        size=ctypes.sizeof(_SchedulingAttributes),
        policy=os.SCHED_OTHER,
        flags=SCHED_FLAG_RESET_ON_FORK,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        runtime=SLICE_NS,
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(call, 0, ctypes.byref(attributes), 0):
        logger.debug("No short slices: %s", os.strerror(ctypes.get_errno()))
