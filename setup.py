"""Build the Cython kernels and stamp each with the digest of its source.

The digest lets a test (and `weir_info`) tell a stale kernel from a fresh one. A kernel's source is
its `.pyx` file and the parts that it includes, in that order.
"""

import hashlib
import re
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

FOLDER = Path("gateway/otlp")


def extension(name: str, macro: str) -> Extension:
    """Describe one compiled module of the folder."""
    main = FOLDER / f"{name}.pyx"
    parts = re.findall(r'^include "(.+)"$', main.read_text(encoding="utf-8"), re.MULTILINE)
    sources = [main, *(FOLDER / part for part in parts)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return Extension(
        f"gateway.otlp.{name}",
        [str(main)],
        depends=[str(path) for path in sources],
        include_dirs=[numpy.get_include()],
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            (macro, f'"{digest}"'),
        ],
        extra_compile_args=["-O3", "-fno-plt", "-Wno-unreachable-code"],
    )


setup(
    ext_modules=cythonize(
        [extension("kernel", "WEIR_KERNEL_DIGEST"), extension("wire", "WEIR_WIRE_DIGEST")],
        compiler_directives={"language_level": "3"},
    )
)
