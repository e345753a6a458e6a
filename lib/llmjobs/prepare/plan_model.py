"""One model's plan: its size, the memory it needs, and the time of each phase of the command."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmjobs.engines.locate import Located
from llmjobs.engines.pass_time import PassTime
from llmjobs.engines.registry import engine_of, locate, weight_file_bytes
from llmjobs.engines.trial_cache import Known
from llmjobs.errors import LlmjobsError
from llmjobs.eval.tasks import Task
from llmjobs.fetch import adapter_item, model_item
from llmjobs.hub.explain import GATED
from llmjobs.manifest import ModelSpec
from llmjobs.manifest.engine_names import engine_name
from llmjobs.memory import memory_bytes
from llmjobs.prepare.doctor_network import OFFLINE
from llmjobs.prepare.plan_tokens import ROWS_AT_ONCE, TokenCount, TokenCounter

Devices = dict[tuple[str, str], str]
"""Requested device and quantization → the device that will be used here."""
BATCH_TOKENS = {"cpu": 1024, "cuda": 8192, "mps": 2048}
"""Tokens per batch if the manifest says ``auto``: what the measured choice usually is."""
TRIALS_S, TRIAL_TOKENS, TRIAL_PASSES = 5.0, 1300, 10
"""Limits of the trials that ``eval`` runs before the first question, in seconds and as a share (ADR 160)."""
OPEN_S = 1.0
"""Seconds to open a model's files, and to load and check its tokenizer, for any size."""
READ_BYTES_S = 1e9
"""Assumed reading speed if no weight file is here yet to measure it."""
FORECAST_KEYS = ("path", "runtime_bytes", "pass_bytes", "pass_s", "token_s", "decode_s", "head_row_s", "threads")


@dataclass
class UnitPlan:
    """One subject for one model."""

    key: str
    tokens: TokenCount | None = None
    time_s: float | None = None
    error: str | None = None


@dataclass
class ModelPlan:
    """Everything that is known about a model before it runs; None if it could not be determined."""

    model: str
    id: str
    revision: str | None = None
    """Commit on the hub, or a digest of a folder's files."""
    error: str | None = None
    device: str | None = None
    dtype: str | None = None
    quantization: str = "none"
    download_bytes: int | None = None
    missing_bytes: int | None = None
    gated: bool = False
    file_bytes: int | None = None
    """Bytes of the weights as stored on disk."""
    parameters: int | None = None
    weight_bytes: int | None = None
    cache_bytes: int | None = None
    peak_bytes: int | None = None
    """Largest resident memory, including mapped files."""
    needed_bytes: int | None = None
    """The part of it that the system cannot reclaim."""
    room_bytes: int | None = None
    fits: bool | None = None
    fits_with: dict[str, int] = field(default_factory=dict)
    """Quantization → peak bytes, for those that would fit if this one does not."""
    load_s: float | None = None
    prepare_s: float | None = None
    questions_s: float | None = None
    generation_s: float | None = None
    time_s: float | None = None
    """The sum of all phases."""
    start_s: float | None = None
    """Seconds that the command needs once, to import packages."""
    speed_tokens_per_s: float | None = None
    units: list[UnitPlan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan_model(
    spec: ModelSpec,
    tasks: Sequence[Task],
    *,
    batch_tokens: int | str,
    threads: int | str,
    silent: str | None,
    devices: Devices,
) -> ModelPlan:
    """Plan one model with its units; anything that cannot be determined becomes a line, never an exception.

    ``silent`` is the reason why the hub is not asked, or None; ``devices`` caches the result of ``auto``.
    """
    plan = ModelPlan(spec.name, spec.id, quantization=spec.quantization)
    try:
        _find_size(plan, spec, silent)
        located = tasks[0].located if tasks and tasks[0].located else locate(spec)
        plan.revision = located.revision
        plan.file_bytes = weight_file_bytes(spec, located) or plan.file_bytes
        guess = batch_tokens if isinstance(batch_tokens, int) else _usual_batch(spec, located, devices)
        _count(plan, tasks, TokenCounter(spec, located, guess))
        rows = ROWS_AT_ONCE if any(unit.tokens and unit.tokens.decode_steps for unit in plan.units) else 0
        found = _known_forecast(spec, located, threads, _average(plan.units, guess), rows)
        known = _Measured.of(spec, located, found) if found["speed"] else _Measured()
        size = _batch_size(batch_tokens, found["speed"], known)
        _fill(plan, found, spec)
        if found["speed"]:
            _time(plan, found["shapes"], found["speed"], known, batch_tokens, size)
    except LlmjobsError as error:
        plan.error = _told(str(error), spec, silent)
    except Exception as error:
        from llmjobs.hub.explain import explain

        said = " ".join(str(error).split())[:300]
        line = explain(spec.name, spec.id, "model", error) or f"cannot be planned: {said}; llmjobs -v plan shows more"
        plan.error = _told(line, spec, silent)
    return plan


def _told(line: str, spec: ModelSpec, silent: str | None) -> str:
    """Add the model's name unless the line has it, and do not call the network forbidden if it only does not answer."""
    for start in (f"{spec.name}: ", f"{spec.id}: "):
        line = line.removeprefix(start)
    if silent and silent != OFFLINE:
        line = line.replace("HF_HUB_OFFLINE is set", "the hub cannot be reached")
    return line


def _usual_batch(spec: ModelSpec, located: Located, devices: Devices) -> int:
    """Return how many tokens a batch usually has on the model's device."""
    asked = (spec.device, spec.quantization)
    if spec.device != "auto":
        return BATCH_TOKENS[spec.device]
    if asked not in devices and sys.platform == "linux" and not _gpus():
        devices[asked] = "cpu"
    if asked not in devices:
        devices[asked] = str(_forecast(spec, located, "auto", None)["shapes"]["device"])
    return BATCH_TOKENS[devices[asked]]


def _find_size(plan: ModelPlan, spec: ModelSpec, silent: str | None) -> None:
    """Fill in what has to be downloaded, and whether that is allowed."""
    if silent:
        return
    try:
        item, adapter = model_item(spec), adapter_item(spec)
    except LlmjobsError as error:
        plan.gated = GATED in str(error)
        raise
    if adapter is not None:
        plan.download_bytes, plan.missing_bytes = adapter.total_bytes, adapter.missing_bytes
    if item is None:
        return
    plan.download_bytes = (plan.download_bytes or 0) + item.total_bytes
    plan.missing_bytes = (plan.missing_bytes or 0) + item.missing_bytes
    plan.file_bytes = sum(f.size_bytes for f in item.files if f.path.endswith(".safetensors")) or None
    plan.gated = item.repo is not None and item.repo.gated


def _count(plan: ModelPlan, tasks: Sequence[Task], counter: TokenCounter) -> None:
    for task in tasks:
        unit = UnitPlan(task.data.key)
        plan.units.append(unit)
        try:
            if task.error:
                raise LlmjobsError(task.error)
            unit.tokens = counter.count(task)
        except LlmjobsError as error:
            unit.error = str(error)


def _average(units: Sequence[UnitPlan], batch_tokens: int) -> dict[str, int]:
    """Return a typical unit, for the stand-in."""
    counts = [unit.tokens for unit in units if unit.tokens and unit.tokens.questions]
    if not counts:
        return {"prefix_tokens": 256, "question_tokens": 128, "batch_tokens": batch_tokens}
    questions = sum(one.questions for one in counts)
    own = sum(one.distinct_tokens - one.prefix_tokens for one in counts)
    prefix = sum(one.prefix_tokens for one in counts) // len(counts)
    return {
        "prefix_tokens": prefix,
        "question_tokens": max(own // questions, 1),
        "batch_tokens": batch_tokens,
    }


def _forecast(
    spec: ModelSpec, located: Located, threads: int | str, unit: Mapping[str, int] | None, rows: int = 0
) -> dict[str, Any]:
    return engine_of(spec).forecast(spec, located, threads=threads, unit=unit, rows=rows)


def _gpus() -> list[str]:
    """Return the machine's NVIDIA and AMD devices, and the variables that hide some of them."""
    found = [str(path) for pattern in ("nvidia[0-9]*", "dxg", "kfd") for path in sorted(Path("/dev").glob(pattern))]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") if found else None
    return [*found, f"visible: {hidden}"] if hidden is not None else found


def _known_forecast(
    spec: ModelSpec, located: Located, threads: int | str, unit: Mapping[str, int], rows: int
) -> dict[str, Any]:
    """Return what an earlier plan measured of this model on this machine, or measure it now."""
    known = Known(
        plan_of=spec.id,
        engine_name=engine_name(spec.engine, spec.id),
        revision=located.revision,
        device=spec.device,
        dtype=spec.dtype,
        quantization=spec.quantization,
        **_adapter(spec, located),
        threads=threads,
        batch_tokens=unit["batch_tokens"],
        gpus=_gpus(),
    )
    kept = known.get("forecast")
    if kept and isinstance(kept.get("shapes"), dict) and isinstance(speed := kept.get("speed"), dict):
        whole = all(name in speed for name in FORECAST_KEYS)
        if whole and (not rows or speed.get("rows")):
            return kept | {"why": None}
    found = _forecast(spec, located, threads, unit, rows)
    if found["speed"]:
        known.put("forecast", {"shapes": found["shapes"], "speed": found["speed"]})
    return found


def _adapter(spec: ModelSpec, located: Located) -> dict[str, Any]:
    """What an engine's effective settings say of a LoRA adapter."""
    if located.adapter is None:
        return {}
    return {"adapter_revision": located.adapter.revision, "adapter_merged": spec.merge_adapter}


@dataclass(frozen=True)
class _Measured:
    """What an earlier run of the same model on this machine measured; None if there was none."""

    load_s: float | None = None
    passes: PassTime | None = None
    batch_tokens: int | None = None
    path: str | None = None
    decoding: bool = False

    @classmethod
    def of(cls, spec: ModelSpec, located: Located, found: Mapping[str, Any]) -> "_Measured":
        shapes = found["shapes"]
        known = Known(
            id=spec.id,
            revision=located.revision,
            device_name=shapes.get("device_name"),
            device_map=spec.device_map,
            engine_name=engine_name(spec.engine, spec.id),
            device=shapes["device"],
            dtype=shapes["dtype"],
            quantization=shapes.get("quantization") or spec.quantization,
            **_adapter(spec, located),
            threads=found["speed"]["threads"],
        )
        load, budget, probe = (known.get(name) or {} for name in ("load", "budget", "probe"))
        seconds, tokens = load.get("load_s"), budget.get("batch_tokens")
        return cls(
            load_s=float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e6 else None,
            passes=PassTime.from_builtin(budget),
            batch_tokens=tokens if isinstance(tokens, int) and tokens > 0 else None,
            path=path if isinstance(path := probe.get("path"), str) else None,
            decoding=known.get("decoding") is not None,
        )


def _batch_size(batch_tokens: int | str, speed: Mapping[str, Any] | None, known: _Measured) -> int:
    """Return how many tokens a batch will have: as the manifest says, as an earlier run found, or as measured now."""
    if isinstance(batch_tokens, int):
        return batch_tokens
    return known.batch_tokens or (speed or {}).get("batch_tokens") or 1024


def _fill(plan: ModelPlan, found: Mapping[str, Any], spec: ModelSpec) -> None:
    """Fill in sizes, memory and time."""
    shapes, speed = found["shapes"], found["speed"]
    plan.device, plan.dtype = shapes["device"], shapes["dtype"]
    plan.quantization = shapes.get("quantization") or plan.quantization
    plan.parameters, plan.weight_bytes = shapes["parameters"], shapes["weight_bytes"]
    if remark := shapes.get("remark"):
        plan.notes.append(str(remark))
    counts = [unit.tokens for unit in plan.units if unit.tokens]
    most = max((one.peak_cache_tokens for one in counts), default=0)
    plan.cache_bytes = most * shapes["cache_token_bytes"] if shapes["cache_token_bytes"] else None
    plan.room_bytes = shapes["device_memory_bytes"] or memory_bytes()
    if not speed:
        plan.notes.append(f"speed and memory could not be measured: {found['why']}")
        return
    longest = max((one.largest_pass for one in counts), default=0)
    pass_bytes = speed["pass_bytes"] + speed.get("pass_token_bytes", 0) * longest
    beside, files = pass_bytes + (plan.cache_bytes or 0), 0
    if plan.device != "cuda":
        stays = speed.get("runtime_anon_bytes", speed["runtime_bytes"])
        beside, files = beside + stays, speed["runtime_bytes"] - stays
    needs = {name: size + beside for name, size in shapes["memory_by_quantization"].items()}
    plan.needed_bytes = needs[spec.quantization]
    plain = needs.get("none", plan.needed_bytes) - beside
    plan.peak_bytes = plan.needed_bytes + files + _mapped(plan, plain)
    plan.fits = plan.needed_bytes <= plan.room_bytes
    if not plan.fits:
        plan.fits_with = {name: size for name, size in needs.items() if size <= plan.room_bytes}


def _mapped(plan: ModelPlan, plain_bytes: int) -> int:
    """Weight files that stay mapped in addition to the converted weights. Without conversion, they are the weights."""
    if plan.device != "cpu" or plan.file_bytes is None:
        return 0
    converted = plan.quantization != "none" or abs(plan.file_bytes - plain_bytes) > 0.05 * plain_bytes
    return plan.file_bytes if converted else 0


def _time(
    plan: ModelPlan,
    shapes: Mapping[str, Any],
    speed: Mapping[str, Any],
    known: _Measured,
    batch_tokens: int | str,
    size: int,
) -> None:
    """Add up the time of each phase, using measurements of an earlier run if there are any."""
    passes = known.passes or PassTime(speed["pass_s"], speed["token_s"])
    path = known.path or speed["path"]
    plan.start_s = speed.get("start_s")
    plan.load_s = known.load_s if known.load_s is not None else _load_s(plan, shapes, speed)
    plan.questions_s = plan.generation_s = 0.0
    tokens = 0
    for unit in plan.units:
        if one := unit.tokens:
            computed = one.total_tokens if path == "plain" else one.distinct_tokens
            batches = math.ceil(max(computed - one.prefix_tokens, 0) / size)
            asked_s = passes.seconds(computed, batches + one.prefixes) + one.scored_rows * speed["head_row_s"]
            asked_s += one.encode_s
            new_s = one.decode_steps * (speed["decode_s"] + speed["head_row_s"] * ROWS_AT_ONCE)
            unit.time_s = asked_s + new_s
            plan.generation_s += unit.time_s if one.new_tokens else 0.0
            plan.questions_s += 0.0 if one.new_tokens else unit.time_s
            tokens += computed
    plan.prepare_s = _prepare_s(plan, passes, known, batch_tokens)
    asked_s = plan.questions_s + plan.generation_s
    plan.time_s = plan.load_s + plan.prepare_s + asked_s
    plan.speed_tokens_per_s = tokens / asked_s if asked_s else None
    distinct = sum(unit.tokens.distinct_tokens for unit in plan.units if unit.tokens)
    if path == "plain" and distinct < tokens:
        plan.notes.append(f"this model cannot reuse shared prompt prefixes here, so all {tokens:,} tokens are computed")
    if any(unit.tokens and unit.tokens.new_tokens for unit in plan.units):
        plan.notes.append("times assume answers of the maximum length; most end sooner")


def _prepare_s(plan: ModelPlan, passes: PassTime, known: _Measured, batch_tokens: int | str) -> float:
    """Seconds of trials before the first question: what all layers take, or a few seconds on the first ones."""
    scores = any(unit.tokens and not unit.tokens.new_tokens for unit in plan.units)
    todo = [
        scores and known.path is None,
        scores and known.batch_tokens is None and not isinstance(batch_tokens, int),
        bool(plan.generation_s) and not known.decoding,
    ]
    return sum(min(passes.seconds(TRIAL_TOKENS, TRIAL_PASSES), TRIALS_S) for one in todo if one)


def _load_s(plan: ModelPlan, shapes: Mapping[str, Any], speed: Mapping[str, Any]) -> float:
    """Seconds to load: files are read once, those of a folder are hashed too, weights are converted and quantized."""
    size = plan.file_bytes or shapes["memory_by_quantization"].get("none") or plan.weight_bytes or 0
    hashed = size / speed["hash_bytes_s"] if speed.get("hash_bytes_s") and plan.download_bytes is None else 0.0
    return float(OPEN_S + size / (speed.get("read_bytes_s") or READ_BYTES_S) + hashed + speed.get("quantize_s", 0.0))
