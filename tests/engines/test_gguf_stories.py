"""A real model with a SentencePiece vocabulary (stories260K): the text of its maker's own program, from a GGUF file."""

import json
from pathlib import Path

import numpy as np
import pytest
from gguf_models import renamed, write_gguf

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from llmjobs.engines.llama_cpp.engine import open_model  # noqa: E402
from llmjobs.engines.protocol import Asked  # noqa: E402
from llmjobs.manifest.models import ModelSpec  # noqa: E402


def write_stories(folder: Path, path: Path) -> Path:
    """The model in ``folder`` as an F32 GGUF file with its SentencePiece vocabulary."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tok512_vocab.json").read_text())
    texts = [one["piece"] for one in vocabulary]
    texts[:3] = ["<unk>", "<s>", "</s>"]
    is_byte = [text.startswith("<0x") and text.endswith(">") for text in texts]
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.dimension_count": config["head_dim"],
        "llama.vocab_size": config["vocab_size"],
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text.replace(" ", "\u2581") for text in texts],
        "tokenizer.ggml.scores": [float(one["score"]) for one in vocabulary],
        "tokenizer.ggml.token_type": [2, 3, 3, *(6 if byte else 1 for byte in is_byte[3:])],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    heads = config["num_attention_heads"], config["num_key_value_heads"]
    weights = load_file(folder / "model.safetensors")
    return write_gguf(
        path, metadata, dict(renamed(name, data.astype(np.float32), *heads) for name, data in weights.items())
    )


def test_its_story_is_told(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "tiny_models" / "stories260K_hf"
    reference = json.loads((folder / "reference.json").read_text())
    path = write_stories(folder, tmp_path / "stories.gguf")
    spec = ModelSpec.model_validate({"id": str(path), "name": "s", "device": "cpu", "kv_cache": "f32"})
    engine = open_model(spec, threads=1)
    expected = reference["greedy_from_bos_ids"]
    reply = engine.generator().generate([Asked(expected[:1], max_new_tokens=len(expected) - 1)])[0]
    assert list(reply.token_ids) == expected[1:]
    assert reply.text.strip() == reference["greedy_from_bos_text"].strip()
    assert engine.scorer().probe().path == "shared"
    assert engine.tokenizer(reference["prompt"])["input_ids"] == reference["prompt_ids_llama2c_encode"]
    text = reference["greedy_from_bos_text"].strip()
    ids = engine.tokenizer(text)["input_ids"]
    assert ids[0] == engine.tokenizer.bos_token_id == 1
    assert engine.tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    engine.close()
