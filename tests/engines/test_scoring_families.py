"""Each architecture against a plain unbatched forward, and against lm-eval's own log-likelihoods."""

from functools import cache
from typing import Any

import pytest
import torch
from scoring_families import FAMILIES, PATHS, family_config
from scoring_models import VOCABULARY, assert_same_answers, plain_score, random_model, score_unit

from llmjobs.benchmarks.scoring_requests import Score
from llmjobs.engines.transformers.fast_path_trials import made_up_docs
from llmjobs.engines.transformers.score import Scorer

DOCS = made_up_docs(VOCABULARY, 512)
pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def family_model(name: str) -> Any:
    return random_model(family_config(name))


def ours(model: Any, name: str) -> dict[int, list[Score]]:
    scorer = Scorer(model, warn=lambda line: None)
    order = ("shared", "cached", "plain")
    assert order.index(scorer.probe().path) <= order.index(PATHS[name]), "it shares less than it did"
    plan = scorer.plan(DOCS, max_length=512, batch_tokens=96)
    assert bool(plan.prefixes) == (scorer.path != "plain")
    return score_unit(scorer, plan)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_a_plain_unbatched_forward(name: str) -> None:
    model = family_model(name)
    expected = [[plain_score(model, request) for request in doc] for doc in DOCS]
    assert_same_answers(ours(model, name), expected, tolerance=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_lm_eval(name: str) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install lm_eval==0.4.13")
    model = family_model(name)
    asked = [(("", ""), list(one.context), list(one.continuation)) for doc in DOCS for one in doc]
    answers = iter(lm_eval_model(model)._loglikelihood_tokens(asked, disable_tqdm=True))
    expected = [[Score(*next(answers)) for _ in doc] for doc in DOCS]
    assert_same_answers(ours(model, name), expected, tolerance=1e-3)


def lm_eval_model(model: Any) -> Any:
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>")),
        bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<s>",
    )  # fmt: skip
    return HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=4, max_length=512)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral-window", "bloom"])
def test_in_bf16_both_paths_differ_by_rounding_only(name: str) -> None:
    model = random_model(family_config(name), torch.bfloat16)
    expected = [[plain_score(model, request) for request in doc] for doc in DOCS]
    found = ours(model, name)
    gaps = [
        abs(got.loglikelihood - want.loglikelihood) / len(request.continuation)
        for doc, wanted in enumerate(expected)
        for got, want, request in zip(found[doc], wanted, DOCS[doc], strict=True)
    ]
    assert max(gaps) < 0.1
