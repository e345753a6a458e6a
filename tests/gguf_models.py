"""Write GGUF files: of any header, and of Llamas in transformers' form; quantize them by llama.cpp."""

import ctypes
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray], version: int = 3) -> Path:
    """Write a GGUF file of float32 tensors; ints become uint32 (lists int32), floats float32."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _text(key) + _value(value)
    offset = 0
    for name, data in tensors.items():
        shape = data.shape[::-1]
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        offset += -(-data.nbytes // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as stream:
        stream.write(_padded(head))
        for data in tensors.values():
            stream.write(_padded(data.astype("<f4").tobytes()))
    return path


ALIGNMENT = 32


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and all(isinstance(one, float) for one in value):
        return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
    if all(isinstance(one, int) for one in value):
        return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))


def write_llama(folder: Path, path: Path, *, pre: str | None = "gpt-2", **metadata: Any) -> Path:
    """Write the Llama in ``folder`` (safetensors, byte-level BPE) as an F32 GGUF file.

    ``metadata`` adds and replaces keys, written with ``__`` for a dot; None takes one away.
    """
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    rope = config.get("rope_parameters") or {}
    found: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.dimension_count": config.get("head_dim") or config["hidden_size"] // heads,
        "llama.rope.freq_base": float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        "llama.vocab_size": config["vocab_size"],
        **tokenizer_metadata(folder, pre),
    }
    found |= {key.replace("__", "."): value for key, value in metadata.items()}
    weights = load_file(folder / "model.safetensors")
    tensors = dict(renamed(name, data.astype(np.float32), heads, kv_heads) for name, data in weights.items())
    return write_gguf(path, {key: value for key, value in found.items() if value is not None}, tensors)


def renamed(name: str, data: np.ndarray, heads: int, kv_heads: int) -> tuple[str, np.ndarray]:
    """One weight of transformers' Llama under llama.cpp's name, and in its order."""
    if name in WEIGHTS:
        return WEIGHTS[name], data
    _, _, layer, rest = name.split(".", 3)
    if rest in ("self_attn.q_proj.weight", "self_attn.k_proj.weight"):
        data = _interleaved(data, heads if "q_proj" in rest else kv_heads)
    return f"blk.{layer}.{LAYER[rest]}", data


def _interleaved(data: np.ndarray, heads: int) -> np.ndarray:
    """Rotary halves side by side, as the ``llama`` architecture of llama.cpp has them."""
    rows, width = data.shape
    return np.ascontiguousarray(data.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width))


def tokenizer_metadata(folder: Path, pre: str | None) -> dict[str, Any]:
    """Byte-level BPE from ``tokenizer.json``."""
    found = json.loads((folder / "tokenizer.json").read_text())
    named = json.loads((folder / "tokenizer_config.json").read_text())
    vocabulary = dict(found["model"]["vocab"])
    special = {one["content"]: one["special"] for one in found["added_tokens"]}
    vocabulary |= {one["content"]: one["id"] for one in found["added_tokens"]}
    texts = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [one if isinstance(one, str) else " ".join(one) for one in found["model"]["merges"]]
    processor = found.get("post_processor") or {}
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [3 if special.get(text) else 4 if text in special else 1 for text in texts],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": processor.get("type") == "TemplateProcessing",
        "tokenizer.chat_template": named.get("chat_template"),
    }
    for kind, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if text := named.get(f"{kind}_token"):
            at = vocabulary[text if isinstance(text, str) else text["content"]]
            metadata[f"tokenizer.ggml.{key}_token_id"] = at
    return metadata


def quantize(source: Path, target: Path, kind: str) -> Path:
    """Quantize a GGUF file with the binding's own quantizer; ``kind`` as in ``Q4_K_M``."""
    from llmjobs.engines.llama_cpp.library import library

    api = library()
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype = getattr(api, f"LLAMA_FTYPE_ALL_{kind}" if kind == "F32" else f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.nthread = 1
    code = api.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters))
    assert code == 0, kind
    return target
