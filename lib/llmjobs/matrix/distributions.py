"""The reference's distributions on disk: one checked file for each text, and the vocabulary that they belong to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmjobs import file_operations
from llmjobs.errors import DataError, RunFolderError
from llmjobs.statistics.divergence import Stored

MAGIC = b"llmjobs next-token log-probabilities 1\n"
HEAD_BYTES = 12
"""Per position: scale, lowest and rest, as float32."""
VOCABULARY = "vocabulary.json"


@dataclass(frozen=True)
class Text:
    """Tokens that are read alone, and the positions after which the next token's distribution is compared."""

    source: str
    """``text`` or ``prompts``."""
    index: int
    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...] = ()
    """The token that follows each position; empty if it is not known."""

    @property
    def name(self) -> str:
        """``text-0003``."""
        return f"{self.source}-{self.index:04d}"


@dataclass(frozen=True)
class Distributions:
    """A text with its distributions, as stored on disk."""

    text: Text
    stored: Stored
    nll: list[float]
    """Negative log-likelihood of each target in nats, not rounded to 16 bits."""
    sha256: str
    """SHA-256 of the file."""


def position_bytes(vocabulary: int) -> int:
    """Disk space of one position."""
    return 2 * vocabulary + HEAD_BYTES


def write_distributions(path: Path, text: Text, stored: Stored, nll: Sequence[float]) -> Distributions:
    """Write a text's distributions in one step.

    Raises:
        RunFolderError: the file cannot be written.

    """
    heads, steps = stored.heads.astype("<f4"), stored.steps.astype("<u2")
    payload = heads.tobytes() + steps.tobytes()
    checksum = hashlib.sha256(payload).hexdigest()
    head = asdict(text) | {"nll": list(nll), "vocabulary": steps.shape[1], "sha256": checksum}
    data = MAGIC + json.dumps(head).encode() + b"\n" + payload
    file_operations.write_whole(path, data)
    return Distributions(text, stored, list(nll), hashlib.sha256(data).hexdigest())


def read_distributions(path: Path, sha256: str | None = None) -> Distributions:
    """Read a text and its distributions; ``sha256`` is what the file should have.

    Raises:
        DataError: it is missing, cut off, or not what was written.

    """
    try:
        data = file_operations.read_whole(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    changed = DataError(f"{path}: was changed since it was written")
    found, start = hashlib.sha256(data).hexdigest(), len(MAGIC)
    end = data.find(b"\n", start)
    if not data.startswith(MAGIC) or end < 0 or (sha256 is not None and found != sha256):
        raise changed
    payload = data[end + 1 :]
    try:
        head = json.loads(data[start:end])
        width, wanted, nll = int(head["vocabulary"]), str(head["sha256"]), [float(one) for one in head["nll"]]
        tuples = {name: tuple(map(int, head[name])) for name in ("tokens", "positions", "targets")}
        text = Text(str(head["source"]), int(head["index"]), **tuples)
    except (ValueError, TypeError, KeyError):
        raise changed from None
    rows = len(text.positions)
    if len(payload) != rows * position_bytes(width) or hashlib.sha256(payload).hexdigest() != wanted:
        raise changed
    heads = np.frombuffer(payload, "<f4", 3 * rows).reshape(rows, 3)
    steps = np.frombuffer(payload, "<u2", rows * width, HEAD_BYTES * rows).reshape(rows, width)
    return Distributions(text, Stored(heads, steps), nll, found)


def vocabulary_texts(tokenizer: Any, width: int) -> list[str | None]:
    """The text of each token id below ``width``, as the vocabulary writes it; None for ids without one."""
    texts: list[str | None] = [None] * width
    for text, token in tokenizer.get_vocab().items():
        if 0 <= token < width:
            texts[token] = text
    return texts


def same_vocabulary(own: Sequence[str | None], other: Sequence[str | None]) -> str | None:
    """Why two vocabularies differ; None if all tokens that both name are equal.

    An id that only one of them names must be a filler (``[PAD151665]``, ``<unused7>``): GGUF files name the rows that a
    matrix has beyond its vocabulary.
    """
    for token in range(max(len(own), len(other))):
        mine = own[token] if token < len(own) else None
        theirs = other[token] if token < len(other) else None
        if mine == theirs or (None in (mine, theirs) and _is_filler(mine or theirs)):
            continue
        return f"token {token} is {_shown(mine)} in one and {_shown(theirs)} in the other"
    return None


def _is_filler(text: str | None) -> bool:
    return text is not None and text.strip("[]<>|").lower().startswith(("pad", "unused", "reserved", "extra", "dummy"))


def _shown(text: str | None) -> str:
    return "absent" if text is None else repr(text[:40])


def write_vocabulary(folder: Path, texts: Sequence[str | None]) -> str:
    """Write the texts by token id; return their SHA-256."""
    data = json.dumps(list(texts)).encode()
    file_operations.write_whole(folder / VOCABULARY, data)
    return hashlib.sha256(data).hexdigest()


def read_vocabulary(folder: Path) -> list[str | None]:
    """Read what :func:`write_vocabulary` wrote.

    Raises:
        DataError: it cannot be read.

    """
    try:
        found = json.loads(file_operations.read_whole(folder / VOCABULARY))
    except (OSError, ValueError):
        raise DataError(f"{folder / VOCABULARY}: cannot be read") from None
    if not isinstance(found, list):
        raise DataError(f"{folder / VOCABULARY}: was changed since it was written")
    return [one if isinstance(one, str) else None for one in found]


# Finished parts of a comparison, so that a stopped one resumes after them.


def kept_part(folder: Path, text: Text, sha256: str) -> Mapping[str, Any] | None:
    """The outcome of a text that an earlier attempt compared with the same distributions; None if there is none."""
    try:
        found = json.loads(file_operations.read_whole(folder / f"{text.name}.json"))
    except (OSError, ValueError):
        return None
    return found["record"] if isinstance(found, dict) and found.get("sha256") == sha256 else None


def keep_part(folder: Path, text: Text, sha256: str, record: Mapping[str, Any]) -> None:
    """Keep the outcome of a text.

    Raises:
        RunFolderError: it cannot be written.

    """
    try:
        file_operations.make_folder(folder)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from None
    file_operations.write_whole(
        folder / f"{text.name}.json", json.dumps({"sha256": sha256, "record": dict(record)}).encode()
    )
