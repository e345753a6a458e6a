"""A few layers of a model's shape with made-up weights, to measure its time and memory without the model."""

import copy
import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmjobs.benchmarks.scoring_requests import Request
from llmjobs.engines.batches import UnitPlan, plan_unit
from llmjobs.engines.transformers.generate import measure_speed, synchronize
from llmjobs.engines.transformers.quantize import finish_layers, quantized_layer
from llmjobs.engines.transformers.score import Scorer
from llmjobs.engines.transformers.shapes import model_class_of, on_meta, quantizable, whole_weight_bytes
from llmjobs.errors import LlmjobsError
from llmjobs.memory import available_bytes

VOCABULARY = 512
READ_BYTES = 64 << 20
"""Bytes of a weight file that are read to measure the speed."""
LARGE_LAYER_BYTES = 1 << 29
"""Of larger layers one is timed, of smaller ones two."""
KINDS = ("layer_types", "layers_block_type")
"""Names under which configs list the kind of each layer."""
WITHOUT_KEYS = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent"})
"""Kinds of layers that keep a state and no keys."""
OPTIONS = 4
DECODED = 9


@dataclass(frozen=True)
class Unit:
    """A typical unit of questions."""

    prefix_tokens: int
    """Tokens that all questions share and that are kept between batches."""
    question_tokens: int
    """Tokens that each question adds."""
    batch_tokens: int


def build(
    config: Any, layers: int, quantization: str, dtype: torch.dtype, device: str, remote: bool
) -> tuple[Any, float]:
    """Build the first ``layers`` layers with a small vocabulary, on ``device`` at the precision asked for.

    Returns them with the seconds that quantization took.
    """
    small = _shortened(config, layers)
    kind = torch.float32 if quantization != "none" else dtype
    needed, room = whole_weight_bytes(on_meta(small, kind, remote), "none"), available_bytes()
    if needed > room:
        raise LlmjobsError(f"{layers} of its layers take {needed / 1024**3:,.1f} GiB, more than the free memory")
    model = model_class_of(small).from_config(small, dtype=kind, trust_remote_code=remote)
    model.eval()
    model.requires_grad_(False)
    if quantization == "none":
        return model.to(device), 0.0
    chosen, taken = {id(layer) for layer in quantizable(model)}, 0.0
    for name, module in list(model.named_modules()):
        if id(module) in chosen:
            parent, _, leaf = name.rpartition(".")
            bare = nn.Linear(module.in_features, module.out_features, bias=False)
            bare.weight = nn.Parameter(module.weight.detach().float(), requires_grad=False)
            began = time.perf_counter()
            quantized = quantized_layer(bare, quantization, dtype, device)
            finish_layers(quantized)
            taken += time.perf_counter() - began
            setattr(model.get_submodule(parent), leaf, quantized)
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(device, dtype)
    return model.to(device), taken


def _shortened(config: Any, layers: int) -> Any:
    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    text.vocab_size = VOCABULARY
    for name in (*KINDS, "mlp_layer_types"):
        if isinstance(kinds := getattr(text, name, None), list):
            with suppress(AttributeError):  # some configs compute it from the number of layers
                setattr(text, name, kinds[:layers])
    for one in (small, text):
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(one, name, None) is not None:
                setattr(one, name, 0)
    return small


def first_with_keys(config: Any) -> int:
    """Number of layers up to the first one that keeps keys; a cache without any cannot be used by some models.

    Qwen3.5 and other hybrids begin with layers of linear attention.
    """
    text = config.get_text_config()
    kinds = next((found for name in KINDS if isinstance(found := getattr(text, name, None), list)), [])
    return next((at for at, kind in enumerate(kinds, start=1) if kind not in WITHOUT_KEYS), 1)


def made_up_unit(unit: Unit, max_length: int) -> UnitPlan:
    """Plan a unit of three batches with the shape of ``unit``."""
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


def scoring_path(model: Any) -> str:
    """Return the path that the scorer's check will choose: ``shared``, ``cached`` or ``plain``."""
    return Scorer(model, 0).probe(most_tokens=0).path


def first_path(model: Any) -> str:
    """Return the path that the probe chooses if it finds nothing wrong; if that path fails, the one that it finds."""
    path = Scorer(model, 0).path
    try:
        score_once(model, made_up_unit(Unit(8, 4, 16), 64), path)
    except Exception:  # a foreign model's code may raise anything, and the plain path remains
        return scoring_path(model)
    return path


def score_once(model: Any, plan: UnitPlan, path: str | None = None) -> None:
    """Score the first batch of a plan on ``path``; None: the fastest."""
    scorer = Scorer(model, 0)
    scorer.path = path or scorer.path
    scorer.score_batch(plan, 0)


def decode_seconds(model: Any, device: str, rows: int, context: int) -> float:
    """Time one decode step of ``rows`` rows after ``context`` tokens."""
    speed = measure_speed(model, device, context + DECODED, [context], rows=rows, new_tokens=DECODED)[0]
    return rows / speed.decode_tokens_per_s if speed.decode_tokens_per_s else 0.0


def bytes_a_second(files: Sequence[Path]) -> tuple[float, float] | None:
    """Return how fast a weight file is read and hashed here; None if there is none."""
    for file in files:
        began = time.perf_counter()
        with file.open("rb") as stream:
            content = stream.read(READ_BYTES)
        read = time.perf_counter()
        hashlib.sha256(content).digest()
        return len(content) / max(read - began, 1e-9), len(content) / max(time.perf_counter() - read, 1e-9)
    return None


@torch.inference_mode()
def head_seconds(hidden: int, vocabulary: int, rows: int, dtype: torch.dtype, device: str) -> float:
    """Time the output embedding and reading its logits for ``rows`` positions."""
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
