"""Quantization methods: each entry has everything that llmjobs knows about a method.

``METHODS`` maps the names used in manifests to entries. The manifest, the loader, ``plan``, ``doctor``, the matrix and
the cluster read them here. To add a method, write one :class:`Method` and :func:`register` it.
"""

from llmjobs.quantization import bitsandbytes, torchao
from llmjobs.quantization.method import METHODS, Method, names, quiet_imports, register

__all__ = ["METHODS", "NONE", "Method", "names", "quiet_imports", "register"]

NONE = "none"

for _method in (bitsandbytes.INT8, bitsandbytes.NF4, torchao.INT8):
    register(_method)
