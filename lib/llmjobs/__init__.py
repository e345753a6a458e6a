"""llmjobs: which language model, at which precision, should I run on the machine I have.

The public interface is small: :func:`load_manifest`, :func:`run` and :class:`Results`. Nothing here imports torch
until a model is loaded.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("llmjobs")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

_PUBLIC = {"load_manifest": "llmjobs.manifest", "run": "llmjobs.api", "Results": "llmjobs.api"}
__all__ = ["Results", "__version__", "load_manifest", "run"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import llmjobs`` stays fast."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'llmjobs' has no attribute {name!r}")
