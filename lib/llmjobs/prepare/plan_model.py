"""One model's plan: what it weighs, what it needs, how long it will take, from figures alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llmjobs.engines.locate import Located
from llmjobs.engines.registry import engine_of, locate, weight_file_bytes
from llmjobs.environment import memory_bytes
from llmjobs.errors import LlmjobsError
from llmjobs.eval.tasks import Task
from llmjobs.fetch import model_item
from llmjobs.manifest import ModelSpec
from llmjobs.prepare.doctor_hub import OFFLINE
from llmjobs.prepare.plan_tokens import ROWS_AT_ONCE, TokenCount, TokenCounter

Devices = dict[tuple[str, str], str]
"""Device and quantization asked for → the device that it comes to here."""
BATCH_TOKENS = {"cpu": 1024, "cuda": 8192, "mps": 2048}
"""Where a manifest says ``auto``: what the measured choice usually comes to."""


@dataclass
class UnitPlan:
    """One subject for one model."""

    key: str
    tokens: TokenCount | None = None
    time_s: float | None = None
    error: str | None = None


@dataclass
class ModelPlan:
    """Everything that is known of a model before it runs; None where it could not be found out."""

    model: str
    id: str
    error: str | None = None
    device: str | None = None
    dtype: str | None = None
    quantization: str = "none"
    download_bytes: int | None = None
    missing_bytes: int | None = None
    gated: bool = False
    file_bytes: int | None = None
    """Of the weights as they lie on the disk."""
    parameters: int | None = None
    weight_bytes: int | None = None
    cache_bytes: int | None = None
    peak_bytes: int | None = None
    """Largest resident memory, files that are only mapped included."""
    needed_bytes: int | None = None
    """The part of it that the system cannot take back."""
    room_bytes: int | None = None
    fits: bool | None = None
    fits_with: dict[str, int] = field(default_factory=dict)
    """Quantization → peak bytes, those that would fit where this one does not."""
    time_s: float | None = None
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
    """Plan one model with its units; whatever cannot be found out is a line, never an exception.

    ``silent`` says why the hub is not asked (None: it is); ``devices`` keeps what ``auto`` came to.
    """
    plan = ModelPlan(spec.name, spec.id, quantization=spec.quantization)
    try:
        _find_size(plan, spec, silent)
        located = tasks[0].located if tasks and tasks[0].located else locate(spec)
        plan.file_bytes = weight_file_bytes(spec, located) or plan.file_bytes
        guess = batch_tokens if isinstance(batch_tokens, int) else _usual_batch(spec, located, devices)
        _count(plan, tasks, TokenCounter(spec, located, guess))
        rows = ROWS_AT_ONCE if any(unit.tokens and unit.tokens.decode_steps for unit in plan.units) else 0
        told = _forecast(spec, located, threads, _average(plan.units, guess), rows)
        _fill(plan, told, spec)
    except LlmjobsError as error:
        plan.error = _told(str(error), spec, silent)
    except Exception as error:
        from llmjobs.hub.explain import explain

        said = " ".join(str(error).split())[:300]
        line = explain(spec.name, spec.id, "model", error) or f"cannot be planned: {said}; llmjobs -v plan shows more"
        plan.error = _told(line, spec, silent)
    return plan


def _told(line: str, spec: ModelSpec, silent: str | None) -> str:
    """Say a line once whose model it is, and not that the network is forbidden where it is only silent."""
    for start in (f"{spec.name}: ", f"{spec.id}: "):
        line = line.removeprefix(start)
    if silent and silent != OFFLINE:
        line = line.replace("HF_HUB_OFFLINE is set", "the hub cannot be reached")
    return line


def _usual_batch(spec: ModelSpec, located: Located, devices: Devices) -> int:
    """How many tokens a batch usually has on the model's device."""
    asked = (spec.device, spec.quantization)
    if asked not in devices:
        devices[asked] = str(_forecast(spec, located, "auto", None)["shapes"]["device"])
    return BATCH_TOKENS[devices[asked]]


def _find_size(plan: ModelPlan, spec: ModelSpec, silent: str | None) -> None:
    """Fill in what has to be fetched, and whether it may be."""
    if silent:
        return
    try:
        item = model_item(spec)
    except LlmjobsError as error:
        plan.gated = " is gated " in str(error)
        raise
    if item is None:
        return
    plan.download_bytes, plan.missing_bytes = item.total_bytes, item.missing_bytes
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
    """What a typical unit looks like, for the stand-in."""
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


def _fill(plan: ModelPlan, told: Mapping[str, Any], spec: ModelSpec) -> None:
    """Put sizes, memory and time together."""
    shapes, speed = told["shapes"], told["speed"]
    plan.device, plan.dtype = shapes["device"], shapes["dtype"]
    plan.parameters, plan.weight_bytes = shapes["parameters"], shapes["weight_bytes"]
    if spec.quantization == "none" and (remark := shapes.get("remark")):
        plan.notes.append(str(remark))
    counts = [unit.tokens for unit in plan.units if unit.tokens]
    most = max((one.peak_cache_tokens for one in counts), default=0)
    plan.cache_bytes = most * shapes["cache_token_bytes"] if shapes["cache_token_bytes"] else None
    plan.room_bytes = shapes["device_memory_bytes"] or memory_bytes()
    if not speed:
        plan.notes.append(f"speed and memory could not be measured: {told['why']}")
        return
    beside, files = speed["pass_bytes"] + (plan.cache_bytes or 0), 0
    if plan.device != "cuda":
        stays = speed.get("runtime_anon_bytes", speed["runtime_bytes"])
        beside, files = beside + stays, speed["runtime_bytes"] - stays
    needs = {name: size + beside for name, size in shapes["memory_by_quantization"].items()}
    plan.needed_bytes = needs[spec.quantization]
    plan.peak_bytes = plan.needed_bytes + files + _mapped(plan, needs["none"] - beside)
    plan.fits = plan.needed_bytes <= plan.room_bytes
    if not plan.fits:
        plan.fits_with = {name: size for name, size in needs.items() if size <= plan.room_bytes}
    _time(plan, shapes, speed)


def _mapped(plan: ModelPlan, plain_bytes: int) -> int:
    """Weight files that stay mapped beside what was made of them; where nothing is converted they are the weights."""
    if plan.device != "cpu" or plan.file_bytes is None:
        return 0
    converted = plan.quantization != "none" or abs(plan.file_bytes - plain_bytes) > 0.05 * plain_bytes
    return plan.file_bytes if converted else 0


def _time(plan: ModelPlan, shapes: Mapping[str, Any], speed: Mapping[str, Any]) -> None:
    layer_s, row_s = shapes["layers"] * speed["layer_token_s"], speed["head_row_s"]
    total = tokens = 0.0
    for unit in plan.units:
        if unit.tokens:
            one = unit.tokens
            computed = one.total_tokens if speed["path"] == "plain" else one.distinct_tokens
            unit.time_s = computed * layer_s + one.scored_rows * row_s
            unit.time_s += one.decode_steps * (speed["decode_layer_s"] * shapes["layers"] + row_s)
            total, tokens = total + unit.time_s, tokens + computed
    if speed["path"] == "plain" and plan.quantization != "none" and plan.dtype == "float32":
        plan.notes.append("quantized in float32, prompts are not shared: dtype: bfloat16 computes fewer tokens")
    plan.time_s = total
    plan.speed_tokens_per_s = tokens / total if total else None
    if any(unit.tokens and unit.tokens.new_tokens for unit in plan.units):
        plan.notes.append("the time of generated answers is that of the longest allowed; most end sooner")
