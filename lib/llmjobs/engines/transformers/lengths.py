"""How many tokens a model can read, and what depends on their number: dynamic NTK and long-rope frequencies."""

from typing import Any

from llmjobs.engines.protocol import DEFAULT_LENGTH

NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
LENGTH_DEPENDENT = {"dynamic", "longrope"}


def longest_input(config: Any) -> int | None:
    """Longest input in tokens according to a text ``config``; None if it does not say."""
    found = (getattr(config, name, None) for name in NAMES)
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def most_tokens(model: Any) -> int:
    """Return the longest input of the model in tokens; 2,048 if its config does not say, as in lm-eval."""
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), DEFAULT_LENGTH)


def sharing_limit(model: Any) -> int | None:
    """Return the length up to which keys can be kept and rows of different lengths can run together; None for any.

    Dynamic and long-rope frequencies change, for all positions of all rows, once the longest input is longer than the
    original context.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type"), *(one.get("rope_type") for one in rope.values() if isinstance(one, dict))}
    if not kinds & LENGTH_DEPENDENT:
        return None
    parts = [rope, *(one for one in rope.values() if isinstance(one, dict))]
    named = [one["original_max_position_embeddings"] for one in parts if one.get("original_max_position_embeddings")]
    return int(min(named, default=0) or getattr(config, "original_max_position_embeddings", 0) or most_tokens(model))


def reset_frequencies(model: Any) -> None:
    """Reset dynamic frequencies to the original ones.

    transformers keeps the frequencies of the longest input so far, so earlier inputs would change later answers.
    """
    if sharing_limit(model) is None:
        return
    for module in model.modules():
        cached, original = getattr(module, "max_seq_len_cached", None), getattr(module, "original_max_seq_len", None)
        if cached is None or original is None:
            continue
        for name in [name for name, _ in module.named_buffers(recurse=False) if name.endswith("original_inv_freq")]:
            prefix = name.removesuffix("original_inv_freq")
            frequencies = getattr(module, f"{prefix}inv_freq")
            module.register_buffer(f"{prefix}inv_freq", getattr(module, name).to(frequencies.device).clone(), False)
            if hasattr(module, f"{prefix}max_seq_len_cached"):
                setattr(module, f"{prefix}max_seq_len_cached", original)
        module.max_seq_len_cached = original
