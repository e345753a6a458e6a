"""The header of a GGUF file: metadata, tensors and their number formats. Does not need llama.cpp."""

import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from llmjobs.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_ENTRIES = 1 << 20
"""Maximum number of metadata entries or tensors; a larger number means damage."""
MOST_VALUES = 1 << 26
"""Maximum length of one metadata array; the largest vocabularies have a quarter of a million tokens."""
MOST_TEXT_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Format:
    """A number format of ggml: groups of ``values`` numbers of a tensor's row take ``size_bytes``."""

    name: str
    values: int
    size_bytes: int


FORMATS = {
    0: Format("F32", 1, 4),
    1: Format("F16", 1, 2),
    2: Format("Q4_0", 32, 18),
    3: Format("Q4_1", 32, 20),
    6: Format("Q5_0", 32, 22),
    7: Format("Q5_1", 32, 24),
    8: Format("Q8_0", 32, 34),
    9: Format("Q8_1", 32, 36),
    10: Format("Q2_K", 256, 84),
    11: Format("Q3_K", 256, 110),
    12: Format("Q4_K", 256, 144),
    13: Format("Q5_K", 256, 176),
    14: Format("Q6_K", 256, 210),
    15: Format("Q8_K", 256, 292),
    16: Format("IQ2_XXS", 256, 66),
    17: Format("IQ2_XS", 256, 74),
    18: Format("IQ3_XXS", 256, 98),
    19: Format("IQ1_S", 256, 50),
    20: Format("IQ4_NL", 32, 18),
    21: Format("IQ3_S", 256, 110),
    22: Format("IQ2_S", 256, 82),
    23: Format("IQ4_XS", 256, 136),
    24: Format("I8", 1, 1),
    25: Format("I16", 1, 2),
    26: Format("I32", 1, 4),
    27: Format("I64", 1, 8),
    28: Format("F64", 1, 8),
    29: Format("IQ1_M", 256, 56),
    30: Format("BF16", 1, 2),
    34: Format("TQ1_0", 256, 54),
    35: Format("TQ2_0", 256, 66),
    39: Format("MXFP4", 32, 17),
    40: Format("NVFP4", 64, 36),
    41: Format("Q1_0", 128, 18),
    42: Format("Q2_0", 64, 18),
}
"""ggml's number formats by their number in the file (``ggml.h``, ``ggml-common.h``)."""

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_TEXT, _ARRAY = 8, 9
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
"""Name of a part of a split file, as llama.cpp writes it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor; its data begins at ``offset`` after the header."""

    name: str
    shape: tuple[int, ...]
    format: int
    offset: int

    @property
    def values(self) -> int:
        """How many numbers it contains."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int | None:
        """Bytes of its data; None for an unknown number format."""
        known = FORMATS.get(self.format)
        return None if known is None else -(-self.values // known.values) * known.size_bytes

    @property
    def format_name(self) -> str:
        """``Q4_K``, or a number for an unknown format."""
        known = FORMATS.get(self.format)
        return known.name if known else f"format {self.format}"


@dataclass(frozen=True)
class Header:
    """A GGUF file without the data of its tensors."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: Sequence[Tensor]
    data_offset: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        """``llama``, ``qwen2``, …; empty if the file does not say."""
        return str(self.metadata.get("general.architecture") or "")

    def of_architecture(self, key: str) -> Any:
        """Return the value of ``ARCHITECTURE.key``; None if there is none."""
        return self.metadata.get(f"{self.architecture}.{key}")

    @property
    def whole_bytes(self) -> int:
        """The size that the file must have for all its tensors, as far as their formats are known."""
        ends = (one.offset + (one.size_bytes or 0) for one in self.tensors)
        return self.data_offset + max(ends, default=0)

    @cached_property
    def quantization(self) -> str:
        """Number formats of the matrices by their share of the weights: ``Q4_K 73%, Q6_K 27%``, or one name.

        Vectors (norms, biases) stay in F32 in every file and are not counted. The file's name and its
        ``general.file_type`` are ignored.
        """
        return share_text(weights_by_format([self]))

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(one.values for one in self.tensors)


def weights_by_format(headers: Sequence[Header]) -> Counter[str]:
    """Count the weights of matrices in each number format, over all parts of a file."""
    found: Counter[str] = Counter()
    for header in headers:
        for tensor in header.tensors:
            if len(tensor.shape) > 1:
                found[tensor.format_name] += tensor.values
    return found


def share_text(counts: Counter[str]) -> str:
    """Write formats with their shares, largest first; shares below one percent are written as such."""
    total = sum(counts.values())
    if not total:
        return "none"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) == 1:
        return ordered[0][0]
    shares = ((name, 100 * count / total) for name, count in ordered)
    return ", ".join(f"{name} {share:.0f}%" if share >= 1 else f"{name} <1%" for name, share in shares)


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises:
        ModelError: it cannot be read, is not a GGUF file, or ends inside its header.

    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            return _Reader(path, stream, size).read()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; check the path") from None


class _Reader:
    """Reads one value after the other; every count is compared with the size of the file."""

    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self._path, self._stream, self._size = path, stream, size

    def read(self) -> Header:
        magic = self._stream.read(4)
        if magic != MAGIC:
            what = "is empty" if not magic else "is not a GGUF file (it does not begin with GGUF)"
            raise ModelError(f"{self._path}: {what}; fetch it again, or name another file")
        version = self._scalar("I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "big-endian" if swapped in VERSIONS else f"version {version}"
            raise ModelError(f"{self._path}: GGUF {kind} is not supported; use a little-endian file of version 2 or 3")
        tensors, entries = self._count(MOST_ENTRIES), self._count(MOST_ENTRIES)
        metadata = dict(self._entry() for _ in range(entries))
        found = tuple(self._tensor() for _ in range(tensors))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise self._damaged("general.alignment is not a positive number")
        offset = -(-self._stream.tell() // alignment) * alignment
        return Header(self._path, version, metadata, found, offset, self._size)

    def _entry(self) -> tuple[str, Any]:
        name = self._text()
        return name, self._value(self._scalar("I"))

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind == _ARRAY:
            of, count = self._scalar("I"), self._count(MOST_VALUES)
            if of in _SCALARS:
                size = struct.calcsize(f"<{_SCALARS[of]}")
                return list(struct.unpack(f"<{count}{_SCALARS[of]}", self._bytes(size * count)))
            return [self._value(of) for _ in range(count)]
        if kind not in _SCALARS:
            raise self._damaged(f"a value of the unknown kind {kind}")
        return self._scalar(_SCALARS[kind])

    def _tensor(self) -> Tensor:
        name = self._text()
        dimensions = self._scalar("I")
        if dimensions > 8:
            raise self._damaged(f"the tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))
        return Tensor(name, shape, self._scalar("I"), self._scalar("Q"))

    def _text(self) -> str:
        return self._bytes(self._count(MOST_TEXT_BYTES)).decode("utf-8", "replace")

    def _count(self, most: int) -> int:
        count = int(self._scalar("Q"))
        if count > most:
            raise self._damaged(f"a count of {count:,}")
        return count

    def _scalar(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self._bytes(struct.calcsize(f"<{kind}")))[0]

    def _bytes(self, count: int) -> bytes:
        if self._stream.tell() + count > self._size:
            raise ModelError(f"{self._path}: {TRUNCATED} (it ends inside its header); fetch it again")
        return self._stream.read(count)

    def _damaged(self, what: str) -> ModelError:
        return ModelError(f"{self._path}: the GGUF header is damaged ({what}); fetch the file again")


TRUNCATED = "the GGUF file is truncated"


def read_parts(path: Path) -> list[Header]:
    """Read the headers of a file, or of all parts of a split one given by its first part.

    Raises:
        ModelError: one of them is missing, truncated or not a GGUF file.

    """
    headers = [read_header(part) for part in part_paths(path)]
    for header in headers:
        if header.file_bytes < header.whole_bytes:
            raise ModelError(
                f"{header.path}: {TRUNCATED}: {header.file_bytes:,} of {header.whole_bytes:,} bytes; fetch it again"
            )
    return headers


def part_paths(path: Path) -> list[Path]:
    """Return the file or, for a split file, all of its parts in order.

    Raises:
        ModelError: a part is missing.

    """
    match = SPLIT.fullmatch(path.name)
    if not match:
        return [path]
    parts = [path.with_name(f"{match[1]}-{number:05d}-of-{match[3]}.gguf") for number in range(1, int(match[3]) + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ModelError(
            f"{path}: {missing[0]} is missing ({len(missing)} of the {len(parts)} parts are not there); fetch all parts"
        )
    return parts


NOT_CAUSAL = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "gemma-embedding", "llama-embed", "t5encoder", "wavtokenizer-dec", "clip", "dream", "llada", "llada-moe",
    "diffusion-gemma",
})  # fmt: skip
"""Architectures of llama.cpp that read text in both directions, or do not read text."""
_KINDS = {
    "adapter": "a LoRA adapter, not a model; name the model that it belongs to",
    "mmproj": "the image part of a model; name the model's own file",
    "imatrix": "an importance matrix, not a model",
    "vocab": "a vocabulary without weights",
}


def check_causal(who: str, header: Header) -> None:
    """Refuse a file that is not a text decoder: an embedding model, an adapter, an image part, a vocabulary.

    Raises:
        ModelError: with the remedy.

    """
    kind = str(header.metadata.get("general.type") or "model")
    if kind in _KINDS:
        raise ModelError(f"{who}: {header.path.name} is {_KINDS[kind]}")
    if not header.architecture:
        raise ModelError(f"{who}: {header.path.name} does not say what architecture it is (general.architecture)")
    pooling = header.of_architecture("pooling_type")
    if (
        header.architecture in NOT_CAUSAL
        or pooling not in (None, 0)
        or header.of_architecture("attention.causal") is False
    ):
        raise ModelError(
            f"{who}: {header.path.name} ({header.architecture}) is an embedding model or reads in both directions; "
            "only decoder models have log-likelihoods; use another model"
        )
    if header.architecture == "t5":
        raise ModelError(f"{who}: {header.path.name} (t5) has an encoder; only decoder models can be evaluated")


def check_tokenizer(who: str, header: Header) -> None:
    """Refuse a file without a tokenizer, or without a pre-tokenizer type, which older files lack.

    Raises:
        ModelError: with the remedy.

    """
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab") or not header.metadata.get("tokenizer.ggml.tokens"):
        raise ModelError(f"{who}: {header.path.name} contains no tokenizer; use another file of this model")
    before = header.metadata.get("tokenizer.ggml.pre")
    if kind == "gpt2" and before in (None, ""):
        raise ModelError(
            f"{who}: {header.path.name} does not say its pre-tokenizer type (tokenizer.ggml.pre), so llama.cpp would "
            "split words incorrectly; use a newer file of this model"
        )
