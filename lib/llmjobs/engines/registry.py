"""Which engine runs a model: names in a manifest, and the module of each, imported on first use.

A new engine is one module with the functions of :class:`llmjobs.engines.protocol.EngineModule` and its name in
``llmjobs.manifest.engine_names``.
"""

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import cast

import psutil

from llmjobs.engines.locate import Located
from llmjobs.engines.protocol import Engine, EngineModule
from llmjobs.errors import ModelError
from llmjobs.manifest.engine_names import ENGINES, engine_name
from llmjobs.manifest.models import ModelSpec

SHARE_OF_FREE_MEMORY = 0.5


def engine_of(spec: ModelSpec) -> EngineModule:
    """The module of the engine that runs ``spec``."""
    name = engine_name(spec.engine, spec.id, spec.endpoint)
    if spec.adapter and name != "transformers":  # a rung of a matrix is not validated anew
        raise ModelError(f"{spec.name}: adapter: needs transformers, not {name}; merge it and convert the model")
    return _module(name)


def _module(name: str) -> EngineModule:
    return cast(EngineModule, import_module(ENGINES[name]))


def open_model(spec: ModelSpec, *, threads: int | str = "auto") -> Engine:
    """Load a model on its engine.

    Raises:
        ModelError: not found, no access, no memory, or the loaded model differs from the request.

    """
    return engine_of(spec).open_model(spec, threads=threads)


def locate(spec: ModelSpec) -> Located:
    """Find a model without loading it; a hub revision becomes a commit.

    Raises:
        ModelError: there is no such model, or its engine cannot read it.

    """
    return engine_of(spec).locate(spec)


def local_path(spec: ModelSpec) -> Path | None:
    """The file or folder that an id names, checked but not read; None if the id is a name on the hub.

    Raises:
        ModelError: it is not a model that its engine runs.

    """
    return engine_of(spec).local_path(spec)


def devices(specs: Iterable[ModelSpec] = ()) -> list[str]:
    """Types of the devices that the engines of ``specs`` can use here, best first."""
    names = dict.fromkeys(engine_name(spec.engine, spec.id, spec.endpoint) for spec in specs) or [
        engine_name("auto", "")
    ]
    found = dict.fromkeys(device for name in names for device in _module(name).devices())
    return [*(device for device in found if device != "cpu"), "cpu"]


def why_unavailable(name: str, device: str) -> str | None:
    """Why the engine ``name`` cannot run anything on a type of device here; None if it can.

    An engine may have a function ``missing()`` that returns one line on what has to be installed.
    """
    module = _module(name)
    if missing := getattr(module, "missing", lambda: None)():
        return str(missing)
    found = module.devices()
    return None if device in found else f"{name} as installed here cannot use {device}, only {', '.join(found)}"


def weight_file_bytes(spec: ModelSpec, located: Located) -> int | None:
    """Bytes of the weight files that are on this machine."""
    return sum(path.stat().st_size for path in engine_of(spec).weight_files(located)) or None


def prefetch(spec: ModelSpec, located: Located) -> int:
    """Ask the kernel to read a model's weight files into the page cache; returns the bytes asked for.

    Does nothing if they would take more than half of the free memory, or if the system has no such call.
    """
    files = [path.resolve() for path in engine_of(spec).weight_files(located)]
    total = sum(path.stat().st_size for path in files)
    if not hasattr(os, "posix_fadvise") or total > psutil.virtual_memory().available * SHARE_OF_FREE_MEMORY:
        return 0
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
    return total
