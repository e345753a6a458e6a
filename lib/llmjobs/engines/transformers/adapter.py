"""Apply a LoRA adapter to a loaded model, through peft, either alongside its weights or merged into them."""

import warnings
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from llmjobs.engines.adapters import ensure_adapter, weight_file
from llmjobs.engines.locate import Located
from llmjobs.engines.transformers.quantize import stored_layers
from llmjobs.errors import MissingPackageError, ModelError, plain_reason
from llmjobs.manifest.models import ModelSpec
from llmjobs.memory import available_bytes

SHOWN = 3


def require_peft(spec: ModelSpec) -> Any:
    """Import peft.

    Raises:
        MissingPackageError: it cannot be imported; the message says what to install.

    """
    if find_spec("peft") is None:
        raise MissingPackageError(f"{spec.name}: adapter: needs peft; pip install 'llmjobs[peft]'")
    try:
        return import_module("peft")
    except (ImportError, ModuleNotFoundError, RuntimeError) as error:
        raise MissingPackageError(
            f"{spec.name}: adapter: peft cannot be imported ({plain_reason(error)}); pip install -U 'llmjobs[peft]'"
        ) from None


def apply_adapter(spec: ModelSpec, model: Any, located: Located, device: str) -> Any:
    """Load an adapter into ``model`` and return the model, which keeps its class.

    With ``merge_adapter``, the adapter is added to the weights. Otherwise peft computes it alongside them, in float32.

    Raises:
        MissingPackageError: peft cannot be imported.
        ModelError: the adapter does not fit the model, or cannot be merged into its weights.

    """
    peft = require_peft(spec)
    folder = ensure_adapter(spec, located)
    path = weight_file(spec, located)
    who = f"{spec.name}: adapter: {spec.adapter}"
    if path is None or not path.is_file():
        raise ModelError(f"{who} has no weights in {folder}; fetch the adapter again")
    if spec.merge_adapter:
        for _, entry, _ in stored_layers(model):
            if not entry.merges and not _is_plain(model):
                raise ModelError(f"{who} cannot be merged into {entry.name} weights; set merge_adapter: false")
    held = _tensors(peft, folder, path, device)
    try:
        return _applied(peft, spec, model, folder, held, who)
    except ModelError:
        raise
    except Exception as error:  # whatever peft raises of shapes and targets that are not the model's
        raise ModelError(
            f"{who} does not fit {spec.id}: {_reason(error)}; use the base model that it was trained on"
        ) from error


def _applied(peft: Any, spec: ModelSpec, model: Any, folder: Path, held: dict[str, tuple[int, ...]], who: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by names that it gives up
        whole = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=False)
        _check_weights(who, held, peft.get_peft_model_state_dict(whole))
        if spec.merge_adapter:
            return whole.merge_and_unload(progressbar=False, safe_merge=True)
    found = whole.get_base_model()
    found.eval()
    return found


def _is_plain(model: Any) -> bool:
    return all(one.is_floating_point() and one.element_size() > 1 for one in model.parameters() if one.dim() > 1)


def _tensors(peft: Any, folder: Path, path: Path, device: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in an adapter's file."""
    if path.suffix != ".safetensors":
        return {name: tuple(one.shape) for name, one in peft.load_peft_weights(str(folder), device="cpu").items()}
    from safetensors import SafetensorError, safe_open

    if path.stat().st_size > available_bytes():
        raise ModelError(f"{path} is larger than the free memory; use a smaller adapter")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):
        raise ModelError(f"{path} is cut short or not a safetensors file; fetch the adapter again") from None


def _check_weights(who: str, held: dict[str, tuple[int, ...]], loaded: dict[str, torch.Tensor]) -> None:
    """Check that the model uses every weight of the file, and that none is missing from the file."""
    lost, made_up = sorted(held.keys() - loaded.keys()), sorted(loaded.keys() - held.keys())
    if lost:
        raise ModelError(
            f"{who} has {len(lost)} weights for layers that the model does not have ({_listed(lost)}); use the base "
            "model that it was trained on"
        )
    if made_up:
        raise ModelError(
            f"{who} lacks {len(made_up)} of the weights that its adapter_config.json describes ({_listed(made_up)}); "
            "fetch the adapter again"
        )


def _listed(names: Iterable[str]) -> str:
    shown = [name[:100] for name in names]
    return ", ".join(shown[:SHOWN]) + (", …" if len(shown) > SHOWN else "")


def _reason(error: Exception) -> str:
    text = str(error)
    if "size mismatch for" in text:
        first = text[text.index("size mismatch for") :].split("\n")[0]
        name, _, rest = first.removeprefix("size mismatch for ").partition(":")
        sizes = [part.split("]")[0] for part in rest.split("torch.Size([")[1:3]]
        if len(sizes) == 2:
            return f"{name.strip()[:100]} is {sizes[0]} in the adapter and {sizes[1]} in the model"
    return plain_reason(error, 200)
