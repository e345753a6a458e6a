"""A few layers of a model's shape with made-up weights: what its time and memory can be measured on without it."""

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llmjobs.benchmarks.requests import Request
from llmjobs.engines.plan import UnitPlan, plan_unit
from llmjobs.engines.transformers.quantize import quantized_layer
from llmjobs.engines.transformers.score import Scorer
from llmjobs.engines.transformers.shapes import model_class_of, on_meta, quantizable, whole_weight_bytes
from llmjobs.engines.transformers.speed import measure_speed, synchronize
from llmjobs.errors import LlmjobsError
from llmjobs.manifest.models import Quantization
from llmjobs.memory import available_bytes

VOCABULARY = 512
LARGE_LAYER_BYTES = 1 << 29
"""A layer this large stands alone; otherwise two are timed."""
OPTIONS = 4
DECODED = 9


@dataclass(frozen=True)
class Unit:
    """What a unit of questions looks like, on average."""

    prefix_tokens: int
    """Tokens that all of its questions share and that are kept between batches."""
    question_tokens: int
    """Tokens that a question adds."""
    batch_tokens: int


def build(config: Any, layers: int, quantization: Quantization, dtype: torch.dtype, device: str, remote: bool) -> Any:
    """Build the first ``layers`` layers with a small vocabulary, on ``device`` at the precision asked for."""
    small = _shortened(config, layers)
    kind = torch.float32 if quantization != "none" else dtype
    needed, room = whole_weight_bytes(on_meta(small, kind, remote), "none"), available_bytes()
    if needed > room:
        raise LlmjobsError(f"{layers} of its layers take {needed / 1024**3:,.1f} GiB, more than the free memory")
    model = model_class_of(small).from_config(small, dtype=kind, trust_remote_code=remote)
    model.eval()
    model.requires_grad_(False)
    if quantization == "none":
        return model.to(device)
    chosen = {id(layer) for layer in quantizable(model)}
    for name, module in list(model.named_modules()):
        if id(module) in chosen:
            parent, _, leaf = name.rpartition(".")
            bare = nn.Linear(module.in_features, module.out_features, bias=False)
            bare.weight = nn.Parameter(module.weight.detach().float(), requires_grad=False)
            setattr(model.get_submodule(parent), leaf, quantized_layer(bare, quantization, dtype, device))
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(device, dtype)
    return model.to(device)


def _shortened(config: Any, layers: int) -> Any:
    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    text.vocab_size = VOCABULARY
    for name in ("layer_types", "mlp_layer_types"):
        if isinstance(kinds := getattr(text, name, None), list):
            setattr(text, name, kinds[:layers])
    for one in (small, text):
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(one, name, None) is not None:
                setattr(one, name, 0)
    return small


def made_up_unit(unit: Unit, max_length: int) -> UnitPlan:
    """Plan a unit of three batches that looks like ``unit``."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=generator).tolist())

    own = max(unit.question_tokens, 2)
    prefix = tokens(max(min(unit.prefix_tokens, max_length - own - 2), 0))
    count = max(3 * unit.batch_tokens // own, 2)
    docs = [
        [Request(prefix + context, (n + 1,)) for n in range(OPTIONS)] for context in (tokens(own) for _ in range(count))
    ]
    return plan_unit(docs, max_length=max_length, batch_tokens=unit.batch_tokens, prefix_token_id=0)


def seconds_a_token(model: Any, plan: UnitPlan, device: str, budget_s: float) -> float:
    """Score the plan's batches again and again for about ``budget_s``; return the median time a token of a batch."""
    scorer = Scorer(model, 0)
    batches = range(max(len(plan.batches) - 1, 1))
    scorer.score_batch(plan, 0)
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < budget_s:
        for at in batches:
            synchronize(device)
            start = time.perf_counter()
            scorer.score_batch(plan, at)
            synchronize(device)
            times.append((time.perf_counter() - start) / plan.batches[at].tokens)
    return sorted(times)[len(times) // 2]


def scoring_path(model: Any) -> str:
    """Return the path that the scorer's check will choose: ``shared``, ``cached`` or ``plain``."""
    return Scorer(model, 0).probe().path


def decode_seconds(model: Any, device: str, rows: int, context: int) -> float:
    """Time one decode step of ``rows`` rows after ``context`` tokens; the smallest of a few."""
    speed = measure_speed(model, device, context + DECODED, [context], rows=rows, new_tokens=DECODED)[0]
    return rows / speed.decode_tokens_per_s if speed.decode_tokens_per_s else 0.0


@torch.inference_mode()
def head_seconds(hidden: int, vocabulary: int, rows: int, dtype: torch.dtype, device: str) -> float:
    """Time the output embedding and the reading of its logits for ``rows`` positions."""
    weight = torch.randn(vocabulary, hidden, dtype=dtype, device=device)
    states = torch.randn(rows, hidden, dtype=dtype, device=device)

    def once() -> float:
        synchronize(device)
        began = time.perf_counter()
        logits = states @ weight.T
        torch.logsumexp(logits.float(), -1)
        synchronize(device)
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(3))
