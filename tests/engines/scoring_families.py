"""Every architecture that the engine must serve, as small random shapes."""

from typing import Any

import transformers
from scoring_models import VOCABULARY

BASE = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
MODERN = {**BASE, "intermediate_size": 128, "num_key_value_heads": 2, "max_position_embeddings": 512}
GPT = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "n_embd": 64, "n_layer": 2, "n_head": 4}
WINDOW = {"head_dim": 16, "sliding_window": 32}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", MODERN),
    "qwen2": ("Qwen2", MODERN),
    "qwen3": ("Qwen3", {**MODERN, "head_dim": 16}),
    "mistral": ("Mistral", {**MODERN, "sliding_window": None}),
    "mistral-window": ("Mistral", {**MODERN, **WINDOW}),
    "gemma2": ("Gemma2", {**MODERN, **WINDOW, **MIXED, "attn_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3Text", {**MODERN, **WINDOW, **MIXED}),
    "phi3": ("Phi3", MODERN),
    "gpt2": ("GPT2", {**GPT, "n_positions": 512}),
    "opt": ("OPT", {**BASE, "ffn_dim": 128, "word_embed_proj_dim": 64, "max_position_embeddings": 512}),
    "gpt-neox": ("GPTNeoX", {**BASE, "intermediate_size": 128, "max_position_embeddings": 512}),
    "falcon": ("Falcon", BASE),
    "falcon-alibi": ("Falcon", {**BASE, "alibi": True, "multi_query": False}),
    "bloom": ("Bloom", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "mamba": ("Mamba", {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}),
    "olmoe": ("Olmoe", {**MODERN, "num_experts": 4, "num_experts_per_tok": 2}),
    "mixtral": ("Mixtral", {**MODERN, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmo2": ("Olmo2", MODERN),
    "cohere": ("Cohere", MODERN),
    "granite": ("Granite", {**MODERN, "logits_scaling": 4.0}),
    "gpt-oss": ("GptOss", {**MODERN, **WINDOW, **MIXED, "num_local_experts": 4}),
    "gpt-j": ("GPTJ", {**GPT, "n_positions": 512, "rotary_dim": 16}),
}
PATHS = dict.fromkeys(FAMILIES, "shared") | {
    "falcon": "cached", "falcon-alibi": "cached", "bloom": "cached", "gpt-j": "cached", "mamba": "plain",
}  # fmt: skip
"""The path that each takes with transformers 5.23; a newer one may share more (GPT-J does from 5.24 on)."""


def family_config(name: str) -> Any:
    kind, settings = FAMILIES[name]
    return getattr(transformers, f"{kind}Config")(**settings)
