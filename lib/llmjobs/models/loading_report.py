"""Refuses a model of which some weights did not come from its files: transformers makes them up at random."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from llmjobs.errors import ModelError

SHOWN = 3
BUFFERS = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|num_batches_tracked"
    r"|rotary_emb\.(cos|sin)_cached|attention\.masked_bias|causal_mask)$"
)
"""Older checkpoints store these tables, which are computed and not trained."""
EXTRA_HEADS = re.compile(r"(^|\.)(mtp|mtp_layers|nextn|eh_proj|enorm|hnorm|shared_head)\.")
"""Heads that predict further tokens (DeepSeek, GLM, Qwen): used for speculative decoding only."""
OTHER_SENSES = re.compile(
    r"(^|\.)(vision\w*|visual\w*|image\w*|audio\w*|speech\w*|multi_modal_projector|multimodal\w*|mm_\w+|vit|vqmodel"
    r"|embed_vision|embed_audio|\w*vision_tower|\w*_projector|connector|aligner|resampler|talker|token2wav)\."
)
"""The parts of a model for images or sound that its text part does not have."""


def check_all_loaded(who: str, model: Any, report: Mapping[str, Any]) -> None:
    """Compare the keys of the weight files with those of the model; tied weights and known buffers are exempt.

    ``report`` is what ``from_pretrained(…, output_loading_info=True)`` returns.

    Raises:
        ModelError: names the first three weights that are missing, of another shape, or not part of the model.

    """
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(set(report.get("missing_keys") or ()) - tied)
    mismatched = sorted(_name(key) for key in report.get("mismatched_keys") or ())
    unexpected = sorted(key for key in report.get("unexpected_keys") or () if not _is_known_extra(str(key), model))
    remedy = "nothing was evaluated: check that config.json belongs to these weights, or fetch the model again"
    kind = type(model).__name__
    if missing:
        also = f", and hold others that it does not have ({_listed(unexpected)})" if unexpected else ""
        raise ModelError(
            f"{who}: the weight files lack {len(missing)} of the model's weights ({_listed(missing)}){also}; they "
            f"would be random numbers in {kind}; {remedy}"
        )
    if mismatched:
        raise ModelError(
            f"{who}: {len(mismatched)} weights are of another shape than config.json says ({_listed(mismatched)}); "
            f"{remedy}"
        )
    if unexpected:
        raise ModelError(
            f"{who}: the weight files hold {len(unexpected)} weights that {kind} does not have "
            f"({_listed(unexpected)}), so another model would be evaluated than was trained; {remedy}"
        )
    if errors := report.get("error_msgs"):
        raise ModelError(f"{who}: the weights could not be loaded: {str(errors[0])[:200]}; {remedy}")


def check_reads_forward(who: str, model: Any) -> None:
    """Refuse a model whose logits change with tokens that come later: its log-likelihoods would mean nothing.

    transformers' class for images and text holds decoders, and others (PaliGemma) that read a prompt in both
    directions; its name does not tell them apart.

    Raises:
        ModelError: an earlier logit changed with a later token.

    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    tokens = torch.arange(8).remainder(max(vocabulary // 2, 1)) + vocabulary // 4
    other = tokens.clone()
    other[-1] = (other[-1] + 1) % vocabulary
    with torch.inference_mode():
        first, second = (
            model(input_ids=row[None].to(model.device), use_cache=False).logits[0, :-1].float()
            for row in (tokens, other)
        )
    if not torch.allclose(first, second, rtol=1e-2, atol=1e-2 * float(first.abs().max())):
        raise ModelError(
            f"{who}: {type(model).__name__} reads its prompt in both directions; only decoder models have "
            "log-likelihoods, take another model"
        )


def _is_known_extra(key: str, model: Any) -> bool:
    if BUFFERS.search(key) or EXTRA_HEADS.search(key):
        return True
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    if (found := re.search(r"\.layers\.(\d+)\.", key)) and _next_token_layers(model) and isinstance(layers, int):
        return layers <= int(found[1]) < layers + _next_token_layers(model)
    return bool(OTHER_SENSES.search(key)) and _is_text_part(model)


def _next_token_layers(model: Any) -> int:
    """Layers behind the last one that only predict further tokens (DeepSeek-V3: one)."""
    found = getattr(model.config.get_text_config(), "num_nextn_predict_layers", 0)
    return found if isinstance(found, int) else 0


def _is_text_part(model: Any) -> bool:
    """Whether the model is the text part of a checkpoint that also reads images or sound: it has no such part."""
    return not any(OTHER_SENSES.search(f"{name}.") for name, _ in model.named_modules())


def _name(key: Any) -> str:
    return str(key[0]) if isinstance(key, tuple | list) and key else str(key)


def _listed(keys: Iterable[str]) -> str:
    names = [str(key)[:80] for key in keys]
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
