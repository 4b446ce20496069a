"""Build the Cython kernel and stamp it with the digest of its source.

The digest lets a test (and `weir_info`) tell a stale kernel from a fresh one.
"""

import hashlib
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

FOLDER = Path("gateway/otlp")
SOURCES = [FOLDER / "kernel.pyx", *sorted((FOLDER / "parts").glob("*.pxi"))]
digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()

kernel = Extension(
    "gateway.otlp.kernel",
    [str(SOURCES[0])],
    depends=[str(path) for path in SOURCES],
    include_dirs=[numpy.get_include()],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("WEIR_KERNEL_DIGEST", f'"{digest}"'),
    ],
    extra_compile_args=["-O3", "-fno-plt", "-Wno-unreachable-code"],
)

setup(ext_modules=cythonize([kernel], compiler_directives={"language_level": "3"}))
