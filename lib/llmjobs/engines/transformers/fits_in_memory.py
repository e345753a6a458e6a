"""Refuse a model whose weights alone exceed the device's memory, from its config, before any download."""

import logging
from collections.abc import Mapping

import torch

from llmjobs.engines.locate import Located
from llmjobs.engines.transformers.locate import load_from
from llmjobs.engines.transformers.model_files import checked_config, missing_package
from llmjobs.engines.transformers.shapes import as_stored_bytes, on_meta, whole_weight_bytes
from llmjobs.errors import ModelError
from llmjobs.manifest.models import ModelSpec
from llmjobs.memory import memory_bytes
from llmjobs.quantization import METHODS, names
from llmjobs.quantization.stored import Place, StoredAs

log = logging.getLogger(__name__)
GIB = 1 << 30


def check_fit(
    spec: ModelSpec, located: Located, device: str, dtype: torch.dtype, stored: StoredAs | None = None
) -> None:
    """Compare the weights at the requested precision with the total memory of ``device``.

    Memory beside the weights is left to ``plan``; this only refuses what cannot work. Models whose config says too
    little (remote code, an unknown architecture) pass, and so do those with ``device_map: auto``, which spreads over
    devices.

    Raises:
        ModelError: it does not fit (the message says which precision would), or its config has impossible values.

    """
    if spec.device_map == "auto":
        return
    try:
        needs = _weight_bytes(spec, located, dtype, stored)
    except ModelError:
        raise
    except ImportError as error:
        raise ModelError(missing_package(spec.name, error)) from None
    except Exception as error:
        log.debug("%s: its size is not known before loading: %s", spec.name, error)
        return
    room = _device_bytes(device)
    if needs[spec.quantization] <= room:
        return
    now = needs[spec.quantization]
    here = [method.name for method in METHODS.values() if device in method.devices and stored is None]
    smaller = [name for name in here if needs[name] < now and needs[name] <= room]
    remedy = f"quantization: {smaller[0]} takes {needs[smaller[0]] / GIB:.1f} GiB" if smaller else "use a smaller model"
    precision = stored.label if stored else _precision(spec, dtype)
    raise ModelError(
        f"{spec.name}: does not fit: its weights take {now / GIB:.1f} GiB as {precision}, and {device} has "
        f"{room / GIB:.1f} GiB in all; {remedy}; nothing was loaded"
    )


def _weight_bytes(spec: ModelSpec, located: Located, dtype: torch.dtype, stored: StoredAs | None) -> Mapping[str, int]:
    config = checked_config(spec.name, *load_from(spec, located), trust_remote_code=spec.trust_remote_code)
    model = on_meta(config, dtype, spec.trust_remote_code)
    if stored is not None:
        return {spec.quantization: as_stored_bytes(model, stored, Place.here(spec.device))}
    return {name: whole_weight_bytes(model, name) for name in names()}


def _precision(spec: ModelSpec, dtype: torch.dtype) -> str:
    return spec.quantization if spec.quantization != "none" else str(dtype).removeprefix("torch.")


def _device_bytes(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return memory_bytes()
