"""The form of a demo question, and the split of a text."""

import hashlib

LETTERS = "ABCD"
STOP = "\n"


def prompt(question: str, choices: tuple[str, ...] | list[str] = ()) -> str:
    """Return the prompt, byte for byte: question, `A. …` to `D. …` if there are options, `Answer:`, one line each."""
    options = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *options, "Answer:"])


def split_of(identity: str) -> str:
    """Return `test` for a tenth of all texts, `dev` for a twentieth, otherwise `train`; by SHA-256 of the text."""
    bucket = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") % 20
    return "test" if bucket < 2 else "dev" if bucket == 2 else "train"
