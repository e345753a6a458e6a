"""Memory of kept prefixes, from a model's ``config.json`` alone, without torch."""

from collections.abc import Mapping
from typing import Any


def cache_bytes(config: Mapping[str, Any], tokens: int, value_bytes: int) -> int:
    """Return the bytes of the keys and values of ``tokens`` tokens: 2 × layers × kept heads × head size.

    ``value_bytes`` is 2 in half precision, 4 in fp32. Raises KeyError if the config does not say.
    """
    layers = _first(config, "num_hidden_layers", "n_layer", "n_layers")
    heads = _first(config, "num_attention_heads", "n_head", "n_heads")
    size = config.get("head_dim") or _first(config, "hidden_size", "n_embd", "d_model") // heads
    kept = config.get("num_key_value_heads") or heads
    return int(2 * layers * kept * size * tokens * value_bytes)


def _first(config: Mapping[str, Any], *names: str) -> int:
    found = next((config[name] for name in names if config.get(name)), None)
    if found is None:
        raise KeyError(f"the config has none of {', '.join(names)}")
    return int(found)
