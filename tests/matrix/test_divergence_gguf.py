"""KL divergence across engines: GGUF files of growing coarseness against the same weights on transformers."""

import math
import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import compare, mean_kl, write
from gguf_models import quantize, write_llama
from random_llama import make_llama

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from llmjobs.engines.llama_cpp.demo_files import demo_file  # noqa: E402
from llmjobs.matrix.distributions import read_distributions  # noqa: E402
from llmjobs.matrix.divergence import figures  # noqa: E402

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


PROGRAM = os.environ.get("LLAMA_PERPLEXITY") or shutil.which("llama-perplexity")
"""llama.cpp's own program; its packages and releases contain it."""


@pytest.mark.skipif(not PROGRAM, reason="llama-perplexity is neither on the PATH nor named by LLAMA_PERPLEXITY")
@pytest.mark.parametrize("model", ["demo", "random"])
@pytest.mark.parametrize("cache", ["f32", "f16"])
def test_the_figures_are_those_of_llama_perplexity(tmp_path, monkeypatch, model, cache):
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path))
    base, coarse = pair(model, tmp_path)
    alice = files("llmjobs.matrix").joinpath("data", "alice.txt").read_text(encoding="utf-8")
    (tmp_path / "text.txt").write_bytes(alice.encode())
    section = {"chunks": 20, "context": 256, "prompts": 0}
    spec = lambda path: {"id": str(path), "name": path.stem, "engine": "llama.cpp", "kv_cache": cache}  # noqa: E731
    reference = write(tmp_path / "r", spec(base), divergence=section)
    compared = compare(tmp_path / "r", spec(coarse), tmp_path / "p", reference, divergence=section)
    assert compared["refused"] is None and compared["tokens_differ"] is None
    mine = figures(compared["records"], reference["records"])["text"]

    common = ["-c", "256", "-b", "256", "--chunks", "20", "-t", "1", "-ngl", "0", "-ctk", cache, "-ctv", cache]
    common += ["-fa", "off" if cache == "f32" else "on", "--kl-divergence-base", str(tmp_path / "base.kld")]
    perplexity("-m", base, "-f", tmp_path / "text.txt", *common)
    told = perplexity("-m", coarse, *common, "--kl-divergence")

    def theirs(name: str) -> float:
        match = re.search(rf"^{re.escape(name)}\s*: +(-?[\d.]+)", told, re.MULTILINE)
        assert match, told[-3000:]
        return float(match[1])

    found = {name: mine[name]["value"] for name in ("mean", "median", "p99", "same_top", "perplexity_ratio")}
    assert mine["texts"] == 20 and mine["positions"] == 20 * 127
    assert found["mean"] == pytest.approx(theirs("Mean    KLD"), rel=2e-3, abs=1e-6)
    assert found["median"] == pytest.approx(theirs("Median  KLD"), rel=2e-3, abs=1e-6)
    assert found["p99"] == pytest.approx(theirs("99.0%   KLD"), rel=2e-3, abs=1e-6)
    assert 100 * found["same_top"] == pytest.approx(theirs("Same top p"), abs=0.05)
    # Its reference's log-probabilities end 16 nats below the largest, so its perplexity of a text that surprises the
    # reference more than that is too small. Ours is exact.
    own = np.array([one for record in compared["records"] for one in record["nll"]])
    exact = np.array([one for record in reference["records"] for one in record["nll"]])
    kept = [read_distributions(tmp_path / "r" / f"text-{at:04d}.dist").stored for at in range(20)]
    largest = np.concatenate([one.heads[:, 1] + one.heads[:, 0] * (one.steps.max(-1) - 1.0) for one in kept])
    cut_off = np.minimum(exact, 16 - largest)
    assert own.mean() == pytest.approx(math.log(theirs("Mean PPL(Q)")), abs=2e-4)
    assert cut_off.mean() == pytest.approx(math.log(theirs("Mean PPL(base)")), abs=2e-4)
    assert math.log(found["perplexity_ratio"]) == pytest.approx(own.mean() - exact.mean(), abs=1e-5)
    if model == "random":
        assert math.log(found["perplexity_ratio"]) == pytest.approx(theirs("Mean ln(PPL(Q)/PPL(base))"), abs=1e-4)


def pair(model: str, folder: Path) -> tuple[Path, Path]:
    """The same model as F16 and Q4_K_M; the random one has rows that K formats fit."""
    if model == "demo":
        return demo_file("llmjobs/demo-base:F16", "m"), demo_file("llmjobs/demo-base:Q4_K_M", "m")
    whole = write_llama(make_llama(folder / "wide", hidden=256, layers=2, spread=0.06), folder / "F32.gguf")
    return quantize(whole, folder / "F16.gguf", "F16"), quantize(whole, folder / "Q4_K_M.gguf", "Q4_K_M")


def perplexity(*arguments: Any) -> str:
    """Run the program; again if its output, which a thread writes, was cut off by its end, as every other time."""
    for _ in range(30):
        done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        if "--kl-divergence" not in arguments or "Same top p:" in done.stdout:
            break
    return done.stdout
