"""GGUF headers: what is read off them, and one line for each file that cannot be evaluated."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_models import write_gguf

from llmjobs.engines.llama_cpp.gguf import (
    FORMATS,
    Tensor,
    check_causal,
    check_tokenizer,
    read_header,
    read_parts,
    share_text,
    weights_by_format,
)
from llmjobs.errors import ModelError

TOKENIZER = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": ["a", "b"]}


def write(path: Path, **metadata: Any) -> Path:
    """A file with two matrices and a vector."""
    tensors = {
        "token_embd.weight": np.ones((4, 32), np.float32),
        "output.weight": np.ones((3, 32), np.float32),
        "output_norm.weight": np.ones(32, np.float32),
    }
    found = {"general.architecture": "llama", "llama.context_length": 512, **TOKENIZER}
    found |= {key.replace("__", "."): value for key, value in metadata.items()}
    return write_gguf(path, {key: value for key, value in found.items() if value is not None}, tensors)


def test_a_header_is_read_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", general__name="Ä", general__rate=0.5, general__flag=True, general__ids=[1, -2])
    header = read_header(path)
    assert header.architecture == "llama"
    assert header.of_architecture("context_length") == 512
    assert header.metadata["general.name"] == "Ä"
    assert header.metadata["general.rate"] == 0.5
    assert header.metadata["general.flag"] is True
    assert header.metadata["general.ids"] == [1, -2]
    assert header.metadata["tokenizer.ggml.tokens"] == ["a", "b"]
    assert [(one.name, one.shape) for one in header.tensors][:2] == [
        ("token_embd.weight", (32, 4)),
        ("output.weight", (32, 3)),
    ]
    assert header.parameters == 32 * 8
    assert header.whole_bytes == header.file_bytes == path.stat().st_size
    assert header.quantization == "F32"


def test_shares_count_matrices_of_all_parts(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "m.gguf"))
    assert weights_by_format([header, header]) == {"F32": 2 * 7 * 32}
    assert share_text(weights_by_format([])) == "none"
    names = {name: at for at, name in ((at, one.name) for at, one in FORMATS.items())}
    mixed = [
        Tensor("a", (256, 734), names["Q4_K"], 0),
        Tensor("b", (256, 260), names["Q6_K"], 0),
        Tensor("c", (256, 6), names["F16"], 0),
        Tensor("d", (4096,), names["F32"], 0),
    ]
    counts = weights_by_format([type(header)(header.path, 3, {}, mixed, 0, 0)])
    assert share_text(counts) == "Q4_K 73%, Q6_K 26%, F16 <1%"


def test_sizes_of_formats() -> None:
    assert Tensor("a", (256, 2), 12, 0).size_bytes == 2 * 144
    assert Tensor("a", (256, 2), 99, 0).size_bytes is None
    assert Tensor("a", (256, 2), 99, 0).format_name == "format 99"


@pytest.mark.parametrize("cut", [0, 3, 5, 20, 60, 200])
def test_a_file_that_ends_in_its_header_is_one_line(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="is empty|is not a GGUF file|truncated") as caught:
        read_parts(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_ends_in_its_tensors_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"truncated: {whole - 100:,} of {whole:,} bytes"):
        read_parts(path)


def test_damage_is_noticed_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for rest in (
        struct.pack("<IQQ", 3, 1 << 60, 0),
        struct.pack("<IQQ", 3, 0, 1 << 60),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 60),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"a", 77),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 4, 1 << 60),
    ):
        path.write_bytes(b"GGUF" + rest)
        with pytest.raises(ModelError, match="damaged|truncated"):
            read_header(path)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    with pytest.raises(ModelError, match="big-endian"):
        read_header(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(ModelError, match="version 1 is not supported"):
        read_header(path)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"general__architecture": "bert"}, "embedding model"),
        ({"llama__pooling_type": 3}, "embedding model"),
        ({"llama__attention__causal": False}, "reads in both directions"),
        ({"general__type": "adapter"}, "LoRA adapter"),
        ({"general__type": "mmproj"}, "image part"),
        ({"general__architecture": None}, "does not say what architecture"),
        ({"general__architecture": "t5"}, "has an encoder"),
    ],
)
def test_what_is_no_decoder_is_refused(tmp_path: Path, metadata: dict[str, Any], told: str) -> None:
    header = read_header(write(tmp_path / "m.gguf", **metadata))
    with pytest.raises(ModelError, match=told):
        check_causal("m", header)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"tokenizer__ggml__model": None}, "no tokenizer"),
        ({"tokenizer__ggml__tokens": None}, "no tokenizer"),
        ({"tokenizer__ggml__pre": None}, "pre-tokenizer type"),
    ],
)
def test_a_tokenizer_that_would_cut_wrongly_is_refused(tmp_path: Path, metadata: dict[str, Any], told: str) -> None:
    header = read_header(write(tmp_path / "m.gguf", **metadata))
    check_causal("m", header)
    with pytest.raises(ModelError, match=told):
        check_tokenizer("m", header)


def test_a_decoder_passes(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "m.gguf", llama__pooling_type=0))
    check_causal("m", header)
    check_tokenizer("m", header)


def test_all_parts_of_a_split_file(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"m-{number:05d}-of-00002.gguf")
    first = tmp_path / "m-00001-of-00002.gguf"
    assert [header.path.name for header in read_parts(first)] == [
        "m-00001-of-00002.gguf",
        "m-00002-of-00002.gguf",
    ]
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelError, match=r"m-00002-of-00002.gguf is missing \(1 of the 2"):
        read_parts(first)
