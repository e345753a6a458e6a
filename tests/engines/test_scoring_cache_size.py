from typing import Any

import pytest
from scoring_families import FAMILIES, PATHS, family_config
from scoring_models import random_model

from llmjobs.engines.batches import plan_unit
from llmjobs.engines.transformers.fast_path_trials import made_up_docs
from llmjobs.engines.transformers.score import Scorer
from llmjobs.engines.transformers.shapes import cache_bytes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in FAMILIES if PATHS[name] == "shared"])
def test_it_is_what_a_scorer_really_keeps(name: str) -> None:
    config = family_config(name)
    scorer = Scorer(random_model(config))
    plan = plan_unit(made_up_docs(211, 512), max_length=512, batch_tokens=96)
    at = max(range(len(plan.batches)), key=lambda at: bool(plan.batches[at].prefixes))
    scorer.score_batch(plan, at)
    tensors = [one for kept in scorer._kept.values() for pair in kept.values() for one in pair]
    held = sum(one.untyped_storage().nbytes() for one in tensors)
    assert held == cache_bytes(config.to_dict(), plan.peak_cache_tokens, 4)


def test_llama_1b() -> None:
    config: dict[str, Any] = {
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 2048,
    }  # fmt: skip
    assert cache_bytes(config, 588, 2) == 588 * 32 * 1024
    with pytest.raises(KeyError, match="num_hidden_layers"):
        cache_bytes({}, 1, 2)
