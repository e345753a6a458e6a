"""Error texts with the allowed names and the one that was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches

from llmjobs.errors import printable

SHOWN = 12
MEANT = {
    **dict.fromkeys(("gpu", "nvidia", "cuda:0", "cuda0"), "cuda"),
    **dict.fromkeys(("metal", "apple"), "mps"),
    **dict.fromkeys(("bf16", "brain"), "bfloat16"),
    **dict.fromkeys(("fp16", "half", "f16"), "float16"),
    **dict.fromkeys(("fp32", "f32", "float", "full"), "float32"),
    **dict.fromkeys(("4", "int4", "nf4", "fp4", "q4", "4-bit"), "4bit"),
    **dict.fromkeys(("8", "int8", "llm.int8", "q8", "8-bit"), "8bit"),
    **dict.fromkeys(("no", "false", "off", "null", "fp", "16bit"), "none"),
}
"""Common synonyms of an allowed value."""


def one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    """Raise :class:`ValueError` in the project's wording unless ``value`` is among ``allowed``."""
    names = list(allowed)
    if value not in names:
        raise ValueError(f"{key}: {not_one_of(value, names)}")


def not_one_of(value: object, names: list[str]) -> str:
    """``'4bits' is not one of none, 8bit, 4bit, int8; did you mean '4bit'?``."""
    text = printable(str(value)[:60])
    shown = ", ".join(names[:SHOWN]) + (f" … ({len(names)} in total)" if len(names) > SHOWN else "")
    if (usual := MEANT.get(text.lower())) in names:
        return f"'{text}' is not one of {shown}; did you mean '{usual}'?"
    near = get_close_matches(text.lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    meant = next((n for n in names if near and n.lower() == near[0]), None)
    return f"'{text}' is not one of {shown}" + (f"; did you mean '{meant}'?" if meant else "")
