"""Measures what the gateway and its peers can do; run as `python -m benchmarks`."""

# Before numpy: what is measured has the threads of BLAS that the gateway has.
import gateway.process  # noqa: F401
