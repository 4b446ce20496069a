"""Knobs of the process itself: allocator, garbage collector, threads of BLAS, gRPC's event loop.

Law: each is here for a measured reason and changes no result. What the environment sets wins.
"""

import ctypes
import gc
import os
from typing import Final

# glibc gives each thread an arena of its own and none gives pages back to another; two arenas cost
# no speed here and keep about 60 MiB less at 470 k spans/s.
ARENAS_MAX: Final = 2
_M_ARENA_MAX: Final = -8

# Objects between collections: the young generation once in some thousand requests, the oldest
# hardly ever. A full collection of the libraries' objects stops the process for some 60 ms, the
# largest single wait that a device would see, and finds nothing.
GC_THRESHOLDS: Final = (100_000, 20, 100)

# gRPC's older listener hands a request over between fewer threads: a fifth less processor time for
# each request with grpcio 1.85.
GRPC_EXPERIMENTS: Final = "-event_engine_listener"

# The products of matrices here are small. With a thread for each core a step of the drift detectors
# takes twice as long, and the cores are the event loop's. numpy reads it when it is imported, so it
# is set when this module is, which stands before all that import numpy.
BLAS_THREADS: Final = "1"
os.environ.setdefault("OPENBLAS_NUM_THREADS", BLAS_THREADS)


def prepare() -> None:
    """Set what has to be set before threads start and before gRPC is imported."""
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, ARENAS_MAX)


def settle() -> None:
    """Tell the garbage collector that what is there now stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
