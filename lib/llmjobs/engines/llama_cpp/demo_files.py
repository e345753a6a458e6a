"""The bundled demo models as GGUF files, ``llmjobs/demo-base:Q4_K_M``: written when they are first used, then kept."""

import ctypes
import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.llama_cpp.library import LOG, library, refusal, version
from llmjobs.engines.locate import DEMO_PREFIX, folder_hash
from llmjobs.engines.trial_cache import cache_folder, engine_digest
from llmjobs.errors import ModelError
from llmjobs.manifest.fields import not_one_of

FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
"""What can follow the colon. K formats group 256 numbers of a row, and no row of a demo model is a multiple of that, so
llama.cpp's quantizer takes other formats instead, such as Q5_0 for Q4_K; what is recorded says which."""
PRE_TOKENIZER = "trillion"
"""llama.cpp's name for GPT-2's way to cut text, without removing blanks before ``.`` in decoded text. It cuts text in
the same places as the demo's tokenizer, except in numbers above 99."""
ALIGNMENT = 32

_WEIGHTS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
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


def demo_file(model_id: str, who: str) -> Path:
    """Return the GGUF file of ``llmjobs/NAME:FORMAT``; it is written to the cache folder if it is not there.

    Raises:
        ModelError: there is no such demo model or format, or the file cannot be written.
        MissingPackageError: llama.cpp, which quantizes, is not installed.

    """
    name, _, kind = model_id.removeprefix(DEMO_PREFIX).partition(":")
    kind = kind.upper()
    if name not in DEMO_MODELS:
        raise ModelError(f"{who}: id: {not_one_of(model_id, [f'{DEMO_PREFIX}{one}:{kind}' for one in DEMO_MODELS])}")
    if kind not in FORMATS:
        raise ModelError(f"{who}: id: {not_one_of(model_id, [f'{DEMO_PREFIX}{name}:{one}' for one in FORMATS])}")
    source = DEMO_MODELS[name]
    made_of = hashlib.sha256(f"{folder_hash(source)} {engine_digest()} {version()}".encode()).hexdigest()[:16]
    path = cache_folder() / "demo" / made_of / f"{name}-{kind}.gguf"
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as folder:
            plain = write_llama(source, Path(folder) / "plain.gguf", pre=PRE_TOKENIZER)
            os.replace(quantize(plain, Path(folder) / path.name, kind), path)  # noqa: PTH105
    except OSError as error:
        raise ModelError(
            f"{who}: cannot write {path}: {error.strerror or error}; make room, or set LLMJOBS_CACHE to another folder"
        ) from None
    return path


def write_llama(folder: Path, path: Path, *, pre: str | None, **metadata: Any) -> Path:
    """Write the Llama in ``folder`` (safetensors, byte-level BPE) as an F32 GGUF file.

    ``metadata`` adds and replaces keys, written with ``__`` for a dot; None takes one away.
    """
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
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


def tokenizer_metadata(folder: Path, pre: str | None) -> dict[str, Any]:
    """Byte-level BPE from ``tokenizer.json``."""
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    model = found["model"]
    vocabulary = dict(model["vocab"])
    special = {one["content"]: one["special"] for one in found["added_tokens"]}
    pairs = [one.split(" ", 1) if isinstance(one, str) else one for one in model["merges"]]
    merges: list[tuple[str, str]] = [(left, right) for left, right in pairs]
    if model.get("ignore_merges") and pre == PRE_TOKENIZER:
        merges = merges_of_words([text for text in vocabulary if text not in special], merges)
    vocabulary |= {one["content"]: one["id"] for one in found["added_tokens"]}
    texts = sorted(vocabulary, key=vocabulary.__getitem__)
    processor = found.get("post_processor") or {}
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [3 if special.get(text) else 4 if text in special else 1 for text in texts],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.add_bos_token": processor.get("type") == "TemplateProcessing",
        "tokenizer.chat_template": named.get("chat_template"),
    }
    for kind, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if text := named.get(f"{kind}_token"):
            at = vocabulary[text if isinstance(text, str) else text["content"]]
            metadata[f"tokenizer.ggml.{key}_token_id"] = at
    return metadata


def merges_of_words(words: Sequence[str], merges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Add merges until each word becomes one token, for a pre-tokenizer that knows no ``ignore_merges``.

    New merges come after all earlier ones, so a word that was complete stays so. The first piece, which may begin with
    the blank's sign ``Ġ``, is joined last: if a text's word is not in the vocabulary, llama.cpp splits what was merged
    into bytes, and it drops ``Ġ`` there, which is two bytes long.
    """
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    for word in words:
        pieces = _merged(list(word), ranks)
        while len(pieces) > 1:
            at = 1 if len(pieces) > 2 else 0
            ranks[pieces[at], pieces[at + 1]] = len(ranks)
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return list(ranks)


def _merged(pieces: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word."""
    while len(pieces) > 1:
        rank, at = min((ranks.get((pieces[at], pieces[at + 1]), len(ranks)), at) for at in range(len(pieces) - 1))
        if rank == len(ranks):
            break
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def renamed(name: str, data: np.ndarray, heads: int, kv_heads: int) -> tuple[str, np.ndarray]:
    """One weight of transformers' Llama under llama.cpp's name, and in its order."""
    if name in _WEIGHTS:
        return _WEIGHTS[name], data
    _, _, layer, rest = name.split(".", 3)
    if rest in ("self_attn.q_proj.weight", "self_attn.k_proj.weight"):
        data = _interleaved(data, heads if "q_proj" in rest else kv_heads)
    return f"blk.{layer}.{_LAYER[rest]}", data


def _interleaved(data: np.ndarray, heads: int) -> np.ndarray:
    """Rotary halves side by side, as the ``llama`` architecture of llama.cpp has them."""
    rows, width = data.shape
    return np.ascontiguousarray(data.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width))


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


def quantize(source: Path, target: Path, kind: str) -> Path:
    """Quantize a GGUF file with llama.cpp's own quantizer; ``kind`` as in ``Q4_K_M``.

    Raises:
        ModelError: llama.cpp refuses.

    """
    api = library()
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype = getattr(api, f"LLAMA_FTYPE_ALL_{kind}" if kind == "F32" else f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.nthread = 1
    LOG.clear()
    if api.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        raise ModelError(f"llama.cpp cannot write {target.name} as {kind}: {refusal()}")
    return target
