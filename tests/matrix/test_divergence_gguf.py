"""KL divergence across engines: GGUF files of growing coarseness against the same weights on transformers."""

from pathlib import Path

import pytest
from comparing import compare, mean_kl, write
from gguf_models import quantize, write_llama
from random_llama import make_llama

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

KINDS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
"""Finest first; K-quants need rows of a multiple of 256."""


def gguf(path: Path) -> dict[str, str]:
    return {"id": str(path), "name": path.stem, "engine": "llama.cpp", "kv_cache": "f32"}


def test_coarser_files_are_further_from_the_reference(tmp_path):
    folder = make_llama(tmp_path / "wide", hidden=256, layers=2, spread=0.06)
    whole = write_llama(folder, tmp_path / "wide-F32.gguf", pre="gpt-2")
    reference = write(tmp_path / "r", {"id": str(folder), "name": "wide", "dtype": "float32"})
    same = compare(tmp_path / "r", gguf(whole), tmp_path / "F32", reference)
    assert same["refused"] is None and same["tokens_differ"] is None
    assert mean_kl(same) < 1e-6 and mean_kl(same, "prompts") < 1e-6
    found = []
    for kind in KINDS:
        file = quantize(whole, tmp_path / f"wide-{kind}.gguf", kind)
        found.append(mean_kl(compare(tmp_path / "r", gguf(file), tmp_path / kind, reference)))
    assert found == sorted(found) and found[0] > mean_kl(same)
    assert found[-1] > 20 * found[0]


def test_another_vocabulary_is_refused(tmp_path):
    folder = make_llama(tmp_path / "small")
    other = write_llama(folder, tmp_path / "small.gguf", pre="gpt-2")
    reference = write(tmp_path / "r", {"id": "llmjobs/demo-tiny", "name": "tiny", "dtype": "float32"})
    found = compare(tmp_path / "r", gguf(other), tmp_path / "p", reference)
    assert found["records"] == []
    assert found["refused"].startswith("its vocabulary is not the reference's: token 0 is '<|pad|>' in one and '<s>'")
