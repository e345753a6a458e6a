"""Time llmjobs' scoring against lm-eval's ``hf`` back end: one random-weight model, the same real questions.

    python benchmarks/scoring.py --questions 2
    python benchmarks/scoring.py --task hellaswag --questions 80

Needs lm_eval 0.4.13 beside llmjobs. Both get the same token lists; subjects alternate between the two, so
that what else the machine does falls on both. The last line is JSON; README.md defines its keys.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from scoring_data import Doc, Encode, encoder, read_units, train_tokenizer
from scoring_rates import BARE_SHAPES, PEAK_TFLOPS, Clock, bare_rates, plan_flops
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from llmjobs.engines.batches import UnitPlan, plan_unit
from llmjobs.engines.transformers.batch_size import measure_batch_tokens
from llmjobs.engines.transformers.score import Scorer

MAX_LENGTH = 4096
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
    "125m": {
        "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
    },
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
    },
}  # fmt: skip


def build_model(args: argparse.Namespace) -> Any:
    """Return a seeded random Llama of the wished shape."""
    torch.manual_seed(args.seed)
    config = LlamaConfig(**{"vocab_size": 32000, "max_position_embeddings": MAX_LENGTH, **SHAPES[args.shape]})
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, args.dtype))
    return model.to(args.device).eval()


def lm_eval_scorer(model: Any, tokenizer: Tokenizer, batch_size: int) -> Callable[[list[Doc]], list[list[float]]]:
    """Return lm-eval's own scoring of token lists."""
    from lm_eval.models.huggingface import HFLM

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    harness = HFLM(pretrained=model, tokenizer=fast, backend="causal", batch_size=batch_size, max_length=MAX_LENGTH)

    def score(docs: list[Doc]) -> list[list[float]]:
        asked = [(("", ""), list(one.context), list(one.continuation)) for doc in docs for one in doc]
        found = iter(harness._loglikelihood_tokens(asked, disable_tqdm=True))
        return [[next(found)[0] for _ in doc] for doc in docs]

    return score


def best_batch_size(model: Any, tokenizer: Tokenizer, docs: list[Doc], sizes: Sequence[int]) -> int:
    """Time lm-eval at each batch size on a few docs; the better of two runs counts."""
    times: dict[int, float] = {}
    for size in sizes if len(sizes) == 1 else [*sizes, *sizes]:
        clock = Clock()
        score = lm_eval_scorer(model, tokenizer, size)
        clock.run(partial(score, docs))
        times[size] = min(clock.wall_s, times.get(size, clock.wall_s))
        print(f"lm-eval, batch {size}: {clock.wall_s:.1f} s for {len(docs)} docs", flush=True)
    return min(times, key=lambda size: times[size])


def plan(unit: list[Doc], batch_tokens: int) -> UnitPlan:
    """Plan a unit."""
    return plan_unit(unit, max_length=MAX_LENGTH, batch_tokens=batch_tokens)


def plan_and_score(scorer: Scorer, unit: list[Doc], batch_tokens: int, plans: list[UnitPlan]) -> list[list[float]]:
    """Do all that is timed on our side; the plan is left in ``plans``."""
    plans.append(plan(unit, batch_tokens))
    return score_ours(scorer, plans[-1])


def score_ours(scorer: Scorer, unit_plan: UnitPlan) -> list[list[float]]:
    """Score a planned unit; docs in their own order."""
    found: dict[int, list[float]] = {}
    for at, batch in enumerate(unit_plan.batches):
        for doc, scores in zip(batch.docs, scorer.score_batch(unit_plan, at), strict=True):
            found[doc] = [score.loglikelihood for score in scores]
    return [found[doc] for doc in sorted(found)]


def differences(theirs: Clock, ours: Clock) -> dict[str, Any]:
    """Compare the answers (argmax) and the log-likelihoods."""
    pairs = list(zip(theirs.answers, ours.answers, strict=False))
    gaps = [abs(one - other) for left, right in pairs for one, other in zip(left, right, strict=True)]
    differing = sum(left.index(max(left)) != right.index(max(right)) for left, right in pairs)
    return {"answers_differ": differing, "compared": len(pairs), "max_difference": max(gaps, default=None)}


def whole_correction(args: argparse.Namespace, encode: Encode, plans: list[UnitPlan]) -> float:
    """Return how much more whole subjects share than the sample: asked over computed tokens of both."""
    if not args.questions or args.task == "hellaswag":
        return 1.0
    units = read_units(args.data, args.task, args.subjects, None, encode)
    whole = [plan(unit, plans[0].batch_tokens) for unit in units]
    shares = [
        sum(one.total_tokens for one in some) / sum(one.distinct_tokens for one in some) for some in (plans, whole)
    ]
    return shares[1] / shares[0]


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Run everything and return what the last line says."""
    tokenizer = train_tokenizer(args.data, 32000)
    encode = encoder(tokenizer)
    units = read_units(args.data, args.task, args.subjects, args.questions, encode)
    model = build_model(args)
    harness, size = None, 0
    if not args.skip_lm_eval:
        few = [doc for unit in units[:: max(1, len(units) // 8)] for doc in unit[: max(1, 16 // len(units))]]
        size = best_batch_size(model, tokenizer, few, args.lm_eval_batch)
        harness = lm_eval_scorer(model, tokenizer, size)
    batch_tokens = args.batch_tokens or measure_batch_tokens(model).batch_tokens
    scorer = Scorer(model)
    path = scorer.probe().path
    theirs, ours = Clock(), Clock()
    plans: list[UnitPlan] = []
    bare = [bare_rates(model, BARE_SHAPES[args.device])]
    for at, unit in enumerate(units):
        if harness:
            theirs.run(partial(harness, unit))
        ours.run(partial(plan_and_score, scorer, unit, batch_tokens, plans))
        print(f"{at + 1}/{len(units)}: lm-eval {theirs.wall_s:.1f} s, llmjobs {ours.wall_s:.1f} s", flush=True)
    bare.append(bare_rates(model, BARE_SHAPES[args.device]))
    flops = sum(plan_flops(model.config, one) for one in plans)
    correction = whole_correction(args, encode, plans)
    return {
        **settings(args),
        "path": path,
        "batch_tokens": batch_tokens,
        "lm_eval_batch": size,
        "docs": len(ours.answers),
        "tokens": sum(one.total_tokens for one in plans),
        "distinct_tokens": sum(one.distinct_tokens for one in plans),
        "correction": correction,
        **ratios(theirs, ours, correction),
        **rates(args, flops, ours, bare),
        **differences(theirs, ours),
    }


def ratios(theirs: Clock, ours: Clock, correction: float) -> dict[str, float]:
    """Return both sides' seconds and what they are to each other."""
    return {
        "lm_eval_s": theirs.wall_s,
        "llmjobs_s": ours.wall_s,
        "ratio": theirs.wall_s / ours.wall_s * correction,
        "lm_eval_cpu_s": theirs.cpu_s,
        "llmjobs_cpu_s": ours.cpu_s,
        "ratio_cpu": theirs.cpu_s / ours.cpu_s * correction,
    }


def rates(args: argparse.Namespace, flops: float, ours: Clock, bare: list[tuple[float, float]]) -> dict[str, Any]:
    """Compare our FLOPs a second with a bare forward's, and with the card's peak."""
    card = torch.cuda.get_device_name() if args.device == "cuda" else ""
    peak = next((value * 1e12 for name, value in PEAK_TFLOPS.items() if name in card), None)
    wall, cpu = (max(rate) for rate in zip(*bare, strict=True))
    return {
        "gflops": flops / ours.wall_s / 1e9, "bare_gflops": wall / 1e9,
        "share_of_bare": flops / ours.wall_s / wall,
        "share_of_bare_cpu": flops / ours.cpu_s / cpu, "share_of_peak": peak and flops / ours.wall_s / peak,
    }  # fmt: skip


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was run, on what."""
    return {
        "task": args.task, "shape": args.shape, "dtype": args.dtype, "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "load": os.getloadavg()[0],
        "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder with mmlu/ and hellaswag/")
    parser.add_argument("--task", choices=("mmlu-5shot", "mmlu-0shot", "hellaswag"), default="mmlu-5shot")
    parser.add_argument("--subjects", nargs="*", help="MMLU subjects (default: all 57)")
    parser.add_argument("--questions", type=int, help="questions a subject, evenly spread (default: all)")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="default: 125m, with --cuda 1b")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32, bfloat16")
    parser.add_argument("--cuda", dest="device", action="store_const", const="cuda", default="cpu")
    parser.add_argument("--threads", type=int, help="torch's threads (default: its own choice)")
    parser.add_argument("--batch-tokens", type=int, help="llmjobs' budget (default: measured)")
    parser.add_argument("--lm-eval-batch", type=int, nargs="+", default=[1, 4, 8, 16], help="the best is used")
    parser.add_argument("--skip-lm-eval", action="store_true", help="time llmjobs alone")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.shape = args.shape or ("1b" if args.device == "cuda" else "125m")
    args.dtype = args.dtype or ("bfloat16" if args.device == "cuda" else "float32")
    if not (args.data / "mmlu").is_dir():
        parser.error(f"--data {args.data}: no folder mmlu/ in it")
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


if __name__ == "__main__":
    print(json.dumps(compare(parse_args())))
