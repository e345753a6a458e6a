"""The divergence from the reference: its files, both sides, what is refused, and how a matrix goes on with it."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from comparing import SECTION, Phases, compare, mean_kl, write
from matrix_stand_in import ended, probe, result_of
from scipy.special import log_softmax

from llmjobs.cli import main
from llmjobs.cluster import local_or_cluster
from llmjobs.errors import DataError, ManifestError
from llmjobs.exit_codes import EXIT_RESUMABLE
from llmjobs.manifest import load_manifest
from llmjobs.matrix import job as matrix_job
from llmjobs.matrix.distributions import Text, read_distributions, same_vocabulary, write_distributions
from llmjobs.matrix.divergence import COMPARED, REFERENCE
from llmjobs.matrix.divergence_process import read_text, run_side, text_chunks
from llmjobs.report.read.run_folder import read_run_folder
from llmjobs.statistics.divergence import store
from llmjobs.work.signals import StopRequestedError

FP32 = {"id": "llmjobs/demo-tiny", "name": "tiny", "dtype": "float32"}
BF16 = FP32 | {"dtype": "bfloat16"}


class Letters:
    """A tokenizer of one letter a token that adds BOS."""

    bos_token_id, eos_token_id = 0, 1

    def __call__(self, text, *, add_special_tokens):
        return {"input_ids": [0, *(2 + ord(letter) for letter in text)]}


def test_parts_are_those_of_llama_perplexity():
    """BOS in place of each part's first token; compared are the positions behind its first half."""
    first, second = text_chunks(Letters(), "abcdefghijklmnopqrs", 8, 5)
    whole = [0, *(2 + ord(letter) for letter in "abcdefghijklmnopqrs")]
    assert first.tokens == tuple(whole[:8]) and second.tokens == (0, *whole[9:16])
    assert first.positions == (4, 5, 6) and first.targets == tuple(whole[5:8])
    assert [one.name for one in (first, second)] == ["text-0000", "text-0001"]
    assert len(list(text_chunks(Letters(), "abcdefghijklmnopqrs", 8, 1))) == 1


def test_the_bundled_text_is_enough_for_its_defaults():
    text = read_text(None)
    assert text.startswith("CHAPTER I. Down the Rabbit-Hole") and len(text) > 11_000
    with pytest.raises(DataError, match=r"nowhere.txt: cannot be read.*check matrix: divergence: text:"):
        read_text("nowhere.txt")


@pytest.fixture
def stored(tmp_path):
    logprobs = log_softmax(np.random.default_rng(0).normal(0, 3, (5, 50)), -1)
    text = Text("text", 3, tuple(range(10)), (4, 5, 6, 7, 8), (5, 6, 7, 8, 9))
    path = tmp_path / "text-0003.dist"
    return path, write_distributions(path, text, store(logprobs), [0.5] * 5)


def test_distributions_come_back_as_they_were_written(stored):
    path, written = stored
    found = read_distributions(path, written.sha256)
    assert (found.text, found.nll, found.sha256) == (written.text, written.nll, written.sha256)
    assert (found.stored.heads == written.stored.heads).all() and (found.stored.steps == written.stored.steps).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        lambda data: b"",
        lambda data: data.replace(b'"index": 3', b'"index": 4'),
        lambda data: data + b"x",
    ],
)
def test_damaged_distributions_are_refused(stored, damage):
    path, written = stored
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="was changed since it was written"):
        read_distributions(path, written.sha256)


def test_vocabularies_are_compared_token_by_token():
    own = ["<s>", "a", "b", None, None]
    assert same_vocabulary(own, ["<s>", "a", "b", "[PAD3]"]) is None
    assert same_vocabulary(own, ["<s>", "a", "c"]) == "token 2 is 'b' in one and 'c' in the other"
    assert same_vocabulary(own, ["<s>", "a", "b", "word"]) == "token 3 is absent in one and 'word' in the other"


def test_a_precision_against_the_reference(tmp_path):
    """The reference against itself is nothing, bfloat16 something; a stopped side goes on where it was."""
    folder = tmp_path / "reference"
    with pytest.raises(KeyboardInterrupt):
        write(folder, FP32, Phases("distributions text-0002"))
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.dist")}
    assert sorted(before) == ["text-0000.dist", "text-0001.dist"]
    reference = write(folder, FP32)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.dist")}.items() >= before.items()
    assert [(one["source"], one["positions"]) for one in reference["records"]] == [
        *[("text", 63)] * 3, *[("prompts", 1)] * 4
    ]  # fmt: skip
    itself = compare(folder, FP32, tmp_path / "a", reference)
    other = compare(folder, BF16, tmp_path / "b", reference)
    assert itself["refused"] is None and itself["tokens_differ"] is None
    assert mean_kl(itself) < 1e-7 and mean_kl(itself, "prompts") < 1e-7
    assert 1e-6 < mean_kl(other) < 0.05
    for mine, theirs in zip(itself["records"], reference["records"], strict=True):
        assert mine["nll"] == pytest.approx(theirs["nll"])
    with pytest.raises(KeyboardInterrupt):
        compare(folder, BF16, tmp_path / "c", reference, Phases("comparing text-0002"))
    assert len(list((tmp_path / "c").glob("*.json"))) == 2
    assert compare(folder, BF16, tmp_path / "c", reference) == other
    (folder / "text-0001.dist").write_bytes(b"cut")
    with pytest.raises(DataError, match="text-0001.dist: was changed"):
        compare(folder, FP32, tmp_path / "d", reference)
    assert write(folder, FP32)["records"] == reference["records"], "what is damaged is written again, the same"


@pytest.fixture
def manifest(tmp_path):
    demo = {"name": "demo", "subjects": ["number_size"], "limit": 10}
    matrix = {
        "benchmarks": [demo], "repetitions": 1, "context_lengths": [32], "devices": "cpu", "threads": 1,
        "precisions": ["fp32", "bf16"], "divergence": SECTION,
    }  # fmt: skip
    path = tmp_path / "kl.yaml"
    path.write_text(yaml.safe_dump({"models": [{"id": "llmjobs/demo-tiny", "name": "tiny"}], "matrix": matrix}))
    return path


@pytest.fixture
def sides(monkeypatch):
    """Cells are played, comparisons run in this process; ``acts`` may end one of them."""
    acts: dict[str, Phases] = {}

    def run_child(module, task, **_):
        if module != matrix_job.COMPARING:
            return ended({"phase": "questions"}, {"result": result_of(task)})
        try:
            result = run_side(task, acts.pop(task["mode"], Phases()))
        except KeyboardInterrupt:
            raise StopRequestedError(15) from None
        return ended({"result": json.loads(json.dumps(result))})

    monkeypatch.setattr(matrix_job, "run_child", run_child)
    monkeypatch.setattr(matrix_job, "probe_machine", probe)
    monkeypatch.setattr(local_or_cluster, "probe_machine", probe)
    return acts


def run(path, results, expect=0) -> None:
    with pytest.raises(SystemExit) as done:
        main(["matrix", str(path), "--results", str(results)])
    assert done.value.code == expect


def records_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("records.jsonl"))}


def test_a_matrix_that_is_stopped_twice_in_a_comparison(manifest, sides, tmp_path, capsys):
    run(manifest, tmp_path / "whole")
    shown = capsys.readouterr().out
    cells = {cell.precision: cell for cell in read_run_folder(tmp_path / "whole" / "kl").cells}
    found = cells["bf16"].divergence
    assert (found["text"]["positions"], found["text"]["texts"], found["prompts"]["positions"]) == (189, 3, 4)
    assert found["text"]["mean"]["low"] <= found["text"]["mean"]["value"] <= found["text"]["mean"]["high"]
    assert 0.8 < found["text"]["perplexity_ratio"]["value"] < 1.2 and found["prompts"]["perplexity_ratio"] is None
    assert cells["fp32"].divergence == {} and cells["fp32"].divergence_reason is None
    assert "KL (text)" in shown and "KL divergence of the next token's distribution" in shown
    sides["reference"] = Phases("distributions text-0001")
    run(manifest, tmp_path / "r", EXIT_RESUMABLE)
    cells = {cell.precision: cell for cell in read_run_folder(tmp_path / "r" / "kl").cells}
    assert cells["bf16"].divergence_reason == "not compared yet; run the same command to resume"
    sides["compare"] = Phases("comparing text-0002")
    run(manifest, tmp_path / "r", EXIT_RESUMABLE)
    lost = tmp_path / "r" / "kl" / "matrix" / "tiny.cpu-fp32" / REFERENCE / "prompts-0001.dist"
    lost.unlink()
    run(manifest, tmp_path / "r")
    assert lost.exists(), "what was lost is written again before it is compared with"
    assert records_of(tmp_path / "r") == records_of(tmp_path / "whole")
    assert f"kl/matrix/tiny.cpu-bf16/{COMPARED}/records.jsonl" in records_of(tmp_path / "r")


def test_what_the_section_refuses(manifest):
    content = yaml.safe_load(manifest.read_text())
    for change, says in (
        ({"divergence": {"chunks": 0, "prompts": 0}}, "there is nothing to compare"),
        ({"precisions": ["fp32"]}, "list at least two under precisions"),
        ({"divergence": {"chunk": 1}}, "did you mean 'chunks'"),
    ):
        manifest.write_text(yaml.safe_dump(content | {"matrix": content["matrix"] | change}))
        with pytest.raises(ManifestError) as caught:
            load_manifest(manifest)
        assert says in str(caught.value)
