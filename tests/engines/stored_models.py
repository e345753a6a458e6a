"""Checkpoints whose weights are stored in fewer bits, each with what its integers stand for as plain numbers.

compressed-tensors and torchao write their own; FP8, GPTQ and AWQ are packed here by the published layouts. Each
function returns the folder, and the dequantized weights by name, computed here and by no library.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
"""The eight magnitudes of FP4."""
COMPRESSED: Mapping[str, dict[str, Any]] = {
    "int4": {
        "format": "pack-quantized",
        "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32},
    },
    "int8": {
        "format": "int-quantized",
        "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True},
    },
    "fp8": {
        "format": "float-quantized",
        "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"},
    },
    "nvfp4": {
        "format": "nvfp4-pack-quantized",
        "weights": {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16},
    },
}


def is_linear(name: str) -> bool:
    return name.endswith("proj.weight")


def stored_copy(base: Path, folder: Path, tensors: Tensors, quantization: Mapping[str, Any]) -> Path:
    """Write ``base`` with other weights and a ``quantization_config``."""
    shutil.copytree(base, folder)
    whole = {name: one.contiguous() for name, one in tensors.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": dict(quantization)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def fine_grained_fp8(base: Path, folder: Path, block: int = 32) -> tuple[Path, Tensors]:
    """As DeepSeek-V3 is published: e4m3 weights, a scale for each block."""
    tensors = load_file(base / "model.safetensors")
    plain = dict(tensors)
    for name in filter(is_linear, list(tensors)):
        rows, columns = tensors[name].shape
        blocks = tensors[name].reshape(rows // block, block, columns // block, block)
        scale = blocks.abs().amax((1, 3), keepdim=True) / 448
        packed = (blocks / scale).to(torch.float8_e4m3fn)
        tensors[name], tensors[f"{name}_scale_inv"] = packed.reshape(rows, columns), scale[:, 0, :, 0]
        plain[name] = (packed.float() * scale).reshape(rows, columns)
    how = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [block, block]}
    return stored_copy(base, folder, tensors, how), plain


def compressed(base: Path, folder: Path, kind: str) -> tuple[Path, Tensors]:
    """What compressed-tensors writes for one of :data:`COMPRESSED`."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, apply_quantization_config
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    scheme = QuantizationScheme(targets=["Linear"], **COMPRESSED[kind])
    how = QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=["lm_head"], quantization_status="frozen", format=scheme.format
    )
    apply_quantization_config(model, how)
    for layer in model.modules():
        if getattr(layer, "quantization_scheme", None) is None:
            continue
        weight, more = layer.weight.data, {}
        grouped = weight.reshape(weight.shape[0], -1, scheme.weights.group_size or weight.shape[1])
        if hasattr(layer, "weight_global_scale"):
            found = generate_gparam(weight.min(), weight.max())
            layer.weight_global_scale.data = found.reshape(layer.weight_global_scale.shape)
            more["global_scale"] = layer.weight_global_scale
        scale, _ = calculate_qparams(grouped.amin(-1), grouped.amax(-1), scheme.weights, **more)
        layer.weight_scale.data = scale.to(layer.weight_scale.dtype).reshape(layer.weight_scale.shape)
    ModelCompressor(quantization_config=how).compress_model(model)
    said = how.model_dump(mode="json") | {"quantization_status": "compressed", "quant_method": "compressed-tensors"}
    tensors = {name: one.detach().clone() for name, one in model.state_dict().items()}
    stored_copy(base, folder, tensors, said)
    return folder, _decompressed(load_file(folder / "model.safetensors"))


def _decompressed(tensors: Tensors) -> Tensors:
    plain = {}
    for name, one in tensors.items():
        if name.endswith("weight_packed"):
            weight = name.removesuffix("_packed")
            plain[weight] = _unpacked(one, weight, tensors)
        elif is_linear(name):
            plain[name] = one.float() * tensors[f"{name}_scale"].float()
        elif not name.endswith(("_scale", "_shape", "_zero_point")):
            plain[name] = one
    return plain


def _unpacked(packed: torch.Tensor, name: str, tensors: Tensors) -> torch.Tensor:
    scale = tensors[f"{name}_scale"].float()
    if packed.dtype == torch.int32:  # eight numbers in 32 bits, each shifted by eight
        numbers = torch.stack([(packed >> (4 * at)) & 15 for at in range(8)], -1).reshape(len(packed), -1).float() - 8
    else:  # two in a byte: a sign and a magnitude
        pairs = torch.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1).long()
        numbers = E2M1[pairs & 7] * torch.where(pairs >= 8, -1.0, 1.0)
        scale = scale / tensors[f"{name}_global_scale"]
    found = (numbers.reshape(len(packed), scale.shape[1], -1) * scale[..., None]).reshape(numbers.shape)
    return found if packed.dtype == torch.int32 else found.bfloat16().float()  # compressed-tensors unpacks FP4 so


def torchao_int8(base: Path, folder: Path) -> tuple[Path, Tensors]:
    """What transformers and torchao write."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    how = TorchAoConfig(Int8WeightOnlyConfig(version=2))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=how)
    shutil.copytree(base, folder)
    model.save_pretrained(folder)
    plain = load_file(base / "model.safetensors")
    held = load_file(folder / "model.safetensors")
    for name in filter(is_linear, list(plain)):
        inner = name.removesuffix("weight") + "_weight_"
        plain[name] = held[f"{inner}qdata"].float() * held[f"{inner}scale"].float()
    return folder, plain


def _integers(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four-bit integers with a scale and a zero point a group of inputs, and what they stand for."""
    rows, columns = weight.shape
    groups = weight.reshape(rows, columns // group, group)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 15).half().float()
    zero = (-low / scale).round().clamp(1, 15)
    numbers = (groups / scale + zero).round().clamp(0, 15)
    plain = ((numbers - zero) * scale).reshape(rows, columns)
    return numbers.reshape(rows, columns).int(), scale.squeeze(-1), zero.squeeze(-1).int(), plain


def _packed(numbers: torch.Tensor) -> torch.Tensor:
    """Eight rows into one of 32 bits, the first in the lowest bits."""
    eights = numbers.reshape(len(numbers) // 8, 8, -1).long()
    whole = sum(eights[:, at] << (4 * at) for at in range(8))
    return torch.where(whole >= 1 << 31, whole - (1 << 32), whole).int()


def gptq(base: Path, folder: Path, group: int = 32) -> tuple[Path, Tensors]:
    """GPTQ's layout: eight inputs in a word, zero points less one."""
    tensors = load_file(base / "model.safetensors")
    plain = dict(tensors)
    for name in filter(is_linear, list(tensors)):
        numbers, scale, zero, plain[name] = _integers(tensors.pop(name), group)
        layer = name.removesuffix("weight")
        tensors[f"{layer}qweight"] = _packed(numbers.t().contiguous())
        tensors[f"{layer}scales"] = scale.t().half()
        tensors[f"{layer}qzeros"] = _packed((zero - 1).contiguous()).t()
        tensors[f"{layer}g_idx"] = (torch.arange(numbers.shape[1]) // group).int()
    how = {"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": False, "sym": False}
    return stored_copy(base, folder, tensors, how | {"checkpoint_format": "gptq"}), plain


def awq(base: Path, folder: Path, group: int = 32) -> tuple[Path, Tensors]:
    """AWQ's layout: eight outputs in a word, in the order that its kernels read."""
    tensors = load_file(base / "model.safetensors")
    plain = dict(tensors)

    def packed(numbers: torch.Tensor) -> torch.Tensor:
        mixed = numbers.reshape(len(numbers), -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]]
        return _packed(mixed.permute(1, 2, 0).reshape(-1, len(numbers))).t()

    for name in filter(is_linear, list(tensors)):
        numbers, scale, zero, plain[name] = _integers(tensors.pop(name), group)
        layer = name.removesuffix("weight")
        tensors[f"{layer}qweight"], tensors[f"{layer}qzeros"] = packed(numbers.t()), packed(zero.t())
        tensors[f"{layer}scales"] = scale.t().half()
    how = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    return stored_copy(base, folder, tensors, how), plain
