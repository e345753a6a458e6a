"""Every causal language model that transformers knows, tiny and with random weights."""

import copy
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

NAMES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY, MAX_PARAMETERS = 211, 20_000_000

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 512,
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 96, "sliding_window": 32, "embedding_size": 64, "rotary_dim": 8, "max_seq_len": 512,
    "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_ctx": 512, "n_layers": 2, "n_heads": 4,
    "d_model": 64, "d_ff": 96, "d_kv": 16, "ffn_dim": 96, "word_embed_proj_dim": 64, "num_layers": 2, "num_heads": 4,
    "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 96,
    "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 96,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "emb_dim": 64,
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    "qk_head_dim": 16, "index_topk": 16, "index_n_heads": 2, "index_head_dim": 16,
    "state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 16, "ssm_state_size": 8,
    "mamba_num_heads": 8, "mamba_head_dim": 16, "lru_width": 64, "attention_window": 32,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "global_head_dim": 16, "num_global_key_value_heads": 2, "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY, "image_size": 32, "depth": 1,
}  # fmt: skip
"""Values that make a model small, under every name that configs have for them."""

ROPE_IS_HEAD = {"head_dim": 8}
"""Of models with latent attention: the part of a head that is rotated."""
HYBRID = {"num_hidden_layers": 4}
"""Enough layers for one of attention among the recurrent ones."""
NGRAMS = {"ngram_vocab_size_base": 100, "ple_embed_dim": 16, "indexer_n_heads": 2, "indexer_kv_heads": 1,
          "indexer_head_dim": 16, "indexer_budget": 64, "indexer_compress_ratio": 4,
          "split_ngram_parts": 1}  # fmt: skip
ZAMBA = {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]}
OVERRIDES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "deepseek_v3", "longcat_flash", "youtu"), ROPE_IS_HEAD),
    **dict.fromkeys(("axk2", "deepseek_v32", "glm_moe_dsa"), ROPE_IS_HEAD | {"num_key_value_heads": 4}),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "recurrent_gemma", "lfm3"), HYBRID),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), {"text_config": HYBRID}),
    "qwen4_exp": {"text_config": HYBRID | NGRAMS},
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), {"head_dim": 16}),
    "dots3_note_text": {"num_key_value_heads": 4},
    "qwen4_exp_text": HYBRID | NGRAMS,
    "bailing_hybrid": {"num_hidden_layers": 8},
    "kimi_linear": {"num_hidden_layers": 5, "linear_head_dim": 16, "linear_num_heads": 4},
    "nemotron": {"num_key_value_heads": 2},
    "jamba": {"num_hidden_layers": 4, "attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_period": 2,
              "expert_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "deepseek_v2": {"head_dim": 8, "num_experts_per_tok": 2},
    "dots1": {"num_experts_per_tok": 2, "n_shared_experts": 1, "n_routed_experts": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 8, "n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16},
    "zamba": ZAMBA,
    "zamba2": ZAMBA | {"attention_head_dim": 32, "attention_hidden_size": 128},
    "zaya": {"num_experts_per_tok": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 32},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "hash_seed": 0},
    "xlstm": {"qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip


CANNOT_BE_BUILT = {
    "blt": "its byte patcher has 190 million parameters at the least",
    "cohere_compass_text": "its config lacks the rotary settings that its layers ask for",
    "dbrx": "its attention config lacks rope_theta in this transformers",
    "dots3_note": "its default names settings for layer 25 and later; dots3_note_text is the same text model",
    "gemma3n": "its image tower needs timm",
    "gemma4_assistant": "a draft model that reads another model's keys",
    "gemma4_unified_assistant": "a draft model that reads another model's keys",
    "musicgen": "an audio decoder whose config is of three parts",
    "musicgen_melody": "an audio decoder whose config is of three parts",
}
"""Kinds that are not tested, and why."""
ORIGINAL = 64
"""A length that some of the tests' prompts pass and others do not."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-dynamic": ("llama", {"max_position_embeddings": ORIGINAL, "rope_parameters": {
        "rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}}),
    "phi3-longrope": ("phi3", {"original_max_position_embeddings": ORIGINAL, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": ORIGINAL,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0]}}),
    "llama-yarn": ("llama", {"rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": ORIGINAL}}),
    "llama-llama3": ("llama", {"rope_parameters": {
        "rope_type": "llama3", "factor": 8.0, "rope_theta": 10000.0, "original_max_position_embeddings": ORIGINAL,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0}}),
    "llama4-chunks": ("llama4_text", {"attention_chunk_size": 16}),
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "gemma3-window": ("gemma3_text", {"sliding_window": 8}),
    "gpt_neo-window": ("gpt_neo", {"window_size": 8}),
    "recurrent_gemma-window": ("recurrent_gemma", {"attention_window_size": 8}),
    "granitemoehybrid-attention": ("granitemoehybrid", {"layer_types": ["attention", "mamba"]}),
}  # fmt: skip


def tiny_config(kind: str, **more: Any) -> Any:
    """Return a small config of a kind, with sub-configs made small too."""
    made = CONFIG_MAPPING[kind]
    known = made().to_dict()
    small = _small(known, made.attribute_map)
    for key, value in (OVERRIDES.get(kind, {}) | more).items():
        small[key] = small[key] | value if isinstance(small.get(key), dict) and isinstance(value, dict) else value
    return made(**small)


def _small(known: dict[str, Any], other_names: dict[str, str]) -> dict[str, Any]:
    named = {key: value for key, value in SMALL.items() if known.get(key) is not None}
    for key, value in SMALL.items():
        if key in other_names and key not in known and other_names[key] not in named:
            named[key] = value
    for key, value in known.items():
        if isinstance(value, dict) and "model_type" in value:
            named[key] = {"model_type": value["model_type"], **_small(value, {})}
    return named


def tiny_model(kind: str, **more: Any) -> Any:
    """Build a model whose answers differ from prompt to prompt; ValueError where it would be large."""
    config = tiny_config(kind, **more)
    with torch.device("meta"):
        parameters = sum(one.numel() for one in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"{parameters:,} parameters")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2 and weight.is_floating_point():
                weight.copy_(torch.randn(weight.shape, generator=random) / weight.shape[-1] ** 0.5)
    return model
