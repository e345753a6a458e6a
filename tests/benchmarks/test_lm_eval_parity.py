"""The same rows through lm-eval's own task code: prompts byte for byte, log-likelihoods and metrics a question.

Needs lm-eval beside llmjobs: ``pip install lm_eval``, then ``pytest tests/benchmarks/test_lm_eval_parity.py``.
Real rows are used too where they lie beside the checkout (see ``real_rows.py``).
"""
# ruff: noqa: E402

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: parity with it is not checked")

import datasets
import torch
from asking import ask, make, shots_to_try
from benchmark_samples import SAMPLES, Rows
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from real_rows import REAL, real_rows
from tiny_models import tiny_model, tiny_tokenizer

from llmjobs.benchmarks.base import Benchmark, Doc
from llmjobs.benchmarks.prompting import ChatStyle, PromptWriter, encode_unit
from llmjobs.benchmarks.scoring_requests import Request, model_input
from llmjobs.benchmarks.truthfulqa import TruthfulQAMC1

pytestmark = pytest.mark.filterwarnings("ignore")
TASKS = Path(lm_eval.__file__).parent / "tasks"
FILES = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "mmlu": "mmlu/default/mmlu_astronomy.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "piqa": "piqa/piqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml",
    "sciq": "sciq/sciq.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
    "mmlu_pro": "mmlu_pro/mmlu_pro_computer_science.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
}
GENERATED = ("gsm8k", "mmlu_pro")
METRICS = {"mc2": "acc"}
"""Our name of a metric, where lm-eval's differs."""


def build_task(name: str, rows: dict[str, Rows], shots: int, monkeypatch: pytest.MonkeyPatch) -> ConfigurableTask:
    """Make lm-eval's task from its own file; only the download is replaced."""
    held = datasets.DatasetDict({split: datasets.Dataset.from_list(found) for split, found in rows.items()})
    for split in ("train", "validation"):
        held.setdefault(split, next(iter(held.values())))
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: held)
    config = load_yaml(TASKS / FILES[name], resolve_func=True)
    config.pop("tag", None)
    config["fewshot_config"] = {**config.get("fewshot_config", {}), "sampler": "first_n"}
    config["num_fewshot"] = 0 if name.startswith("truthfulqa") else shots
    return ConfigurableTask(config=config)


def rows_of(name: str, source: str) -> dict[str, Rows]:
    rows = SAMPLES[name][1] if source == "made" else real_rows(name)
    if name.startswith("truthfulqa"):
        rows = rows | {"fewshot": [dict(row) for row in TruthfulQAMC1.own_rows("all", "fewshot") or []]}
    return rows


def instances(task: ConfigurableTask, lm: HFLM | None = None, **chat: Any) -> list[list[Any]]:
    task.build_all_requests(rank=0, world_size=1, **chat)
    found: dict[int, list[Any]] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, []).append(instance)
    return [sorted(group, key=lambda i: i.idx) for _, group in sorted(found.items())]


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no-bos"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any, HFLM]:
    tokenizer = tiny_tokenizer(bos=request.param)
    model = tiny_model(len(tokenizer))
    return tokenizer, model, HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=8)


CASES = [
    *((name, "made", shots) for name in SAMPLES for shots in shots_to_try(name)),
    *((name, "real", shots) for name in REAL for shots in shots_to_try(name)[-1:]),
]


@pytest.mark.parametrize(("name", "source", "shots"), CASES)
def test_equal(name: str, source: str, shots: int, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(name, source)
    task = build_task(name, rows, shots, monkeypatch)
    benchmark = make(name, 6 if name.startswith("truthfulqa") else shots)
    docs, examples = ask(benchmark, rows)
    groups = instances(task)
    assert len(groups) == len(docs)
    tokenizer, model, lm = pair
    writer = PromptWriter(benchmark, examples, tokenizer, ChatStyle())
    count = len(examples.examples)
    for doc, group in zip(docs, groups, strict=True):
        ours = writer.write(doc, count, name in GENERATED)
        if name in GENERATED:
            assert ours[0].context == group[0].args[0]
            assert list(benchmark.generation(doc).stop) == group[0].args[1]["until"]
        else:
            assert [(text.context, text.continuation) for text in ours] == [instance.args for instance in group]
    unit = encode_unit(benchmark, docs, examples, tokenizer, max_length=8192)
    if name in GENERATED:
        check_generation(benchmark, docs, groups, unit.contexts, lm)
        return
    for doc, group, requests in zip(docs, groups, unit.requests, strict=True):
        theirs = lm.loglikelihood(group, disable_tqdm=True)
        check_question(benchmark, doc, task, group, theirs, [plain_score(model, lm, r) for r in requests])


def plain_score(model: Any, lm: HFLM, request: Request) -> tuple[float, bool]:
    read = model_input(request, 8192, lm.prefix_token_id)
    with torch.no_grad():
        logits = model(torch.tensor([read.tokens])).logits[0, read.first_scored :].double().log_softmax(-1)
    value = sum(float(logits[at, token]) for at, token in enumerate(read.targets))
    return value, logits.argmax(-1).tolist() == list(read.targets)


def check_question(
    benchmark: Benchmark,
    doc: Doc,
    task: ConfigurableTask,
    group: Sequence[Any],
    theirs: Sequence[tuple[float, bool]],
    ours: Sequence[tuple[float, bool]],
) -> None:
    for (their_value, their_greedy), (value, greedy) in zip(theirs, ours, strict=True):
        assert value == pytest.approx(their_value, abs=1e-4, rel=1e-6)
        assert greedy == their_greedy
    judged = benchmark.grade(doc, [v for v, _ in theirs], [g for _, g in theirs])
    expected = task.process_results(group[0].doc, list(theirs))
    for metric, value in expected.items():
        own = next((ours for ours, name in METRICS.items() if name == metric and ours in judged.metrics), metric)
        assert judged.metrics[own] == pytest.approx(value, abs=1e-9), (metric, doc)


REPLIES = [
    "3*6=18 nuts.\n#### 18", "#### 18.", "#### $18", "It is 1,150.", "so 18 and 1,150\n#### 1,150", "#### -18\n#### 18",
    "", "none", "18.0", "The answer is (J).", "answer is J", "the answer is j", "answer is (D), no, answer is (J)",
    "The answer is: J", "#### 18 #### 19", "$18", "18 19 20.", ".5", "1,150.00",
]  # fmt: skip


def check_generation(
    benchmark: Benchmark, docs: Sequence[Doc], groups: Sequence[Any], contexts: Sequence[Any], lm: HFLM
) -> None:
    for group, context in zip(groups, contexts, strict=True):
        tokens, _ = lm.tok_batch_encode([group[0].args[0]])
        assert tokens[0].tolist() == list(context)


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("reply", REPLIES)
def test_replies_are_judged_alike(name: str, reply: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build_task(name, SAMPLES[name][1], 0, monkeypatch)
    benchmark = make(name, 0)
    docs, _ = ask(benchmark)
    groups = instances(task)
    for group in groups:
        group[0].resps = [reply]
    task.apply_filters()
    for doc, group in zip(docs, groups, strict=True):
        judged = benchmark.grade_text(doc, reply)
        expected = {
            key: task.process_results(group[0].doc, [response])["exact_match"]
            for key, response in group[0].filtered_resps.items()
        }
        strict = next(iter(expected))
        assert judged.metrics["exact_match"] == float(expected[strict])
        assert judged.correct == bool(expected[strict])
        if name == "gsm8k":
            assert judged.metrics["flexible"] == float(expected["flexible-extract"])


@pytest.mark.parametrize("turns", [True, False])
@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("name", list(SAMPLES))
def test_chat_templates(name: str, turns: bool, system: str | None, monkeypatch: pytest.MonkeyPatch, pair: Any) -> None:
    if turns and name.startswith("truthfulqa"):
        pytest.skip("lm-eval's pairs are part of the question; as turns they are ours alone")
    tokenizer, _, lm = pair
    shots = shots_to_try(name)[-1]
    rows = rows_of(name, "made")
    task = build_task(name, rows, shots, monkeypatch)
    groups = instances(
        task,
        apply_chat_template=True,
        fewshot_as_multiturn=turns,
        system_instruction=system,
        chat_template=lm.apply_chat_template,
        tokenizer_name="tiny",
    )
    benchmark = make(name, 6 if name.startswith("truthfulqa") else shots)
    docs, examples = ask(benchmark, rows)
    writer = PromptWriter(benchmark, examples, tokenizer, ChatStyle(True, turns, system))
    for doc, group in zip(docs, groups, strict=True):
        ours = writer.write(doc, len(examples.examples), name in GENERATED)
        if name in GENERATED:
            assert ours[0].context == group[0].args[0]
        else:
            assert [(text.context, text.continuation) for text in ours] == [instance.args for instance in group]
    unit = encode_unit(
        benchmark, docs, examples, tokenizer, max_length=8192, chat_template=True, fewshot_as_turns=turns, system=system
    )
    for group, requests in zip(groups, unit.requests, strict=False):
        for instance, request in zip(group, requests, strict=True):
            context, continuation = lm._encode_pair(*instance.args)
            assert (list(request.context), list(request.continuation)) == (context, continuation)


def test_mmlu_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = make("mmlu", 0)
    files = sorted((TASKS / "mmlu" / "default").glob("mmlu_*.yaml"))
    found = {c["dataset_name"]: c["description"] for c in (load_yaml(f, resolve_func=False) for f in files)}
    assert found == {subject: benchmark.shots([], subject).description for subject in type(benchmark).subjects}


def test_lambada_perplexity() -> None:
    from lm_eval.api.metrics import perplexity

    aggregate: Callable[..., float] = type(make("lambada_openai", 0)).aggregate
    assert aggregate("perplexity", [-1.0, -3.0]) == pytest.approx(perplexity([-1.0, -3.0])) == math.exp(2.0)
