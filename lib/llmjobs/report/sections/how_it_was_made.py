"""How it was made: machines, versions, models, settings, restarts, errors, fingerprints."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from llmjobs.report.blocks import Block, Column, Content, Heading, Prose, Section, Table
from llmjobs.report.measure import Measures
from llmjobs.report.numbers import count, percent, size
from llmjobs.report.study import Entry, RawRun, Study
from llmjobs.report.wording import DASH, plural
from llmjobs.statistics.overlap import ALL_DRAWS

SHOWN_NOTICES = 60
SHOWN_CHARACTERS = 300


def build(measures: Measures) -> Content:
    """List the sources, models, settings and machines behind the figures."""
    study = measures.study
    return Content(
        [
            *_notices(study),
            *_sources(measures),
            *_models(study.entries),
            *_protocols(study),
            *_machines(study.runs),
            *_label_fold(measures),
            _method(),
        ]
    )


def _notices(study: Study) -> list[Block]:
    if not study.notices:
        return [Prose("No missing, cut-off, duplicate or contradictory records were found in the input.")]
    shown = study.notices[:SHOWN_NOTICES]
    rows = [[notice.where, notice.what] for notice in shown]
    more = len(study.notices) - len(shown)
    note = f"{count(more)} more are listed on the terminal and in summary.json." if more else ""
    return [
        Table(
            "What to know about the input",
            [Column("Where", "left", 1), Column("What", "left", 2)],
            rows,
            note=note,
        )
    ]


def _sources(measures: Measures) -> list[Block]:
    study = measures.study
    rows = []
    for place, run in enumerate(study.runs):
        models = len(run.entries) or len({cell.model for cell in run.cells})
        records = sum(len(r) for e in run.entries for r in e.records.values())
        records += sum(len(cell.answers) for cell in run.cells)
        taken = study.taken[place] if study.where and place < len(study.taken) else (models, records)
        state = "partial" if run.partial else "complete"
        equal, checked = run.checks
        rows.append(
            [
                run.path.name,
                run.kind,
                _of(taken[0], models),
                _of(taken[1], records),
                f"{state}, partly used" if taken != (models, records) else state,
                f"{count(equal)} of {count(checked)} equal" if checked else DASH,
            ]
        )
    columns = [
        Column("Source", "left", 1),
        Column("Kind", "left"),
        Column("Models"),
        Column("Records"),
        Column("State", "left"),
        Column("Recomputed"),
    ]
    asked = ", ".join(f"{name}={value}" for name, value in study.where.items())
    note = f"Selected with --where {asked}. " if asked else ""
    note += (
        "Recomputed: how many of the figures in the source's summary are equal when this report computes them from the"
        " records. A dash: the source has no summary."
    )
    return [Table("Sources", columns, rows, note=note)]


def _of(part: int, whole: int) -> str:
    return count(whole) if part == whole else f"{count(part)} of {count(whole)}"


def _models(entries: Sequence[Entry]) -> list[Block]:
    if not entries:
        return []
    columns = [
        Column("Label", "left", 1),
        Column("Model", "left", 1.2),
        Column("Revision", "left"),
        Column("Engine", "left"),
        Column("Device", "left"),
        Column("dtype", "left"),
        Column("Quantization", "left"),
        Column("Weights"),
        Column("Attempts"),
    ]
    rows = []
    for entry in entries:
        info = entry.info
        weights = info.details.get("weight_bytes")
        rows.append([
            entry.label, info.id, info.revision.removeprefix("sha256:")[:10] or DASH,
            info.engine or DASH, info.device or DASH, info.dtype or DASH,
            info.quantization or DASH, size(weights) if isinstance(weights, int) else DASH,
            count(entry.cost.attempts) if entry.cost else DASH,
        ])  # fmt: skip
    note = (
        "Device, dtype and quantization are those of the loaded weights, if the source records them. A dash: not"
        " recorded."
    )
    blocks: list[Block] = [
        Heading("Models"),
        Table("Models and their effective settings", columns, rows, note=note),
    ]
    return blocks + _adapters(entries) + _scoring(entries) + _prompts(entries)


def _adapters(entries: Sequence[Entry]) -> list[Block]:
    """LoRA adapters, and whether they were merged."""
    rows = []
    for entry in entries:
        details = entry.info.details
        if adapter := details.get("adapter"):
            revision = str(details.get("adapter_revision") or "").removeprefix("sha256:")[:10]
            merged = {True: "merged", False: "not merged"}.get(details.get("adapter_merged"), DASH)  # type: ignore[arg-type]
            rows.append([entry.label, str(adapter), revision or DASH, merged])
    columns = [
        Column("Label", "left", 1),
        Column("Adapter", "left", 1.2),
        Column("Revision", "left"),
        Column("Applied", "left"),
    ]
    return [Table("LoRA adapters", columns, rows)] if rows else []


def _prompts(entries: Sequence[Entry]) -> list[Block]:
    """What chat templates add to the prompts: thinking, a date, a system message."""
    rows = []
    for entry in entries:
        thinking, date = entry.info.prompts
        added = str(entry.info.details.get("template_system") or "")
        if thinking or date or added:
            shown = added if len(added) <= SHOWN_CHARACTERS else f"{added[:SHOWN_CHARACTERS]}…"
            rows.append([entry.label, thinking or DASH, date or DASH, shown.replace("\n", " / ") or DASH])
    columns = [
        Column("Label", "left", 1),
        Column("Thinking", "left"),
        Column("Date", "left"),
        Column("System message", "left", 2),
    ]
    note = "Date: today's date as the template prints it. System message: a default one that the template adds."
    return [Table("What chat templates add to the prompts", columns, rows, note=note)] if rows else []


def _scoring(entries: Sequence[Entry]) -> list[Block]:
    rows = []
    for entry in entries:
        details = entry.info.details
        if not details.get("architecture") and not details.get("scoring_path"):
            continue
        parameters = details.get("parameters")
        rows.append(
            [
                entry.label,
                str(details.get("architecture") or DASH),
                count(parameters) if isinstance(parameters, int) else DASH,
                str(details.get("scoring_path") or DASH),
                {True: "yes", False: "no"}.get(details.get("chat_template"), DASH),  # type: ignore[arg-type]
                fingerprint(entry.fingerprints),
            ]
        )
    if not rows:
        return []
    columns = [
        Column("Label", "left", 1),
        Column("Architecture", "left"),
        Column("Parameters"),
        Column("Scoring path", "left"),
        Column("Chat template", "left"),
        Column("Fingerprint", "left"),
    ]
    note = (
        "Fingerprint: the first digits of a SHA-256 over the fingerprints of all units. Equal digits mean equal"
        " settings and data."
    )
    return [Table("How the models were run", columns, rows, note=note)]


def fingerprint(units: Mapping[str, Mapping[str, Any]]) -> str:
    """Twelve hex digits of a SHA-256 over everything that decides a model's records."""
    if not units:
        return DASH
    return sha256(json.dumps(units, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _protocols(study: Study) -> list[Block]:
    rows = []
    for benchmark in study.benchmarks:
        shared = {k: v for k, v in benchmark.protocol.items() if "(" not in k}
        shared |= {"metric": benchmark.metric} if benchmark.metric else {}
        listing = ", ".join(f"{name} {value}" for name, value in shared.items() if value) or "not recorded"
        rows.append(
            [
                benchmark.name,
                count(benchmark.n),
                count(len(benchmark.subjects)),
                percent(benchmark.chance),
                listing,
            ]
        )
    columns = [
        Column("Benchmark", "left"),
        Column("Questions"),
        Column("Subjects"),
        Column("Chance"),
        Column("Protocol", "left", 1),
    ]
    if not rows:
        return []
    changed = [
        [entry.label, name, str(one)] for entry in study.entries for name, one in entry.changed.items() if str(one)
    ]
    table = [Column("Label", "left", 1), Column("Benchmark", "left"), Column("Difference", "left", 2)]
    more: list[Block] = [Table("Prompts that differ from the manifest", table, changed)] if changed else []
    return [Heading("Benchmarks"), Table("Benchmarks and protocols", columns, rows), *more]


def _machines(runs: Sequence[RawRun]) -> list[Block]:
    rows = []
    for run in runs:
        machine = run.environment.get("machine") or {}
        if not machine:
            continue
        versions = run.environment.get("versions") or {}
        listing = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        memory = machine.get("memory_bytes")
        rows.append([
            run.path.name, f"{machine.get('cpu', DASH)}, {machine.get('cores', DASH)} cores",
            size(memory) if isinstance(memory, int | float) else DASH, str(machine.get("system", DASH)),
            f"llmjobs {run.environment.get('llmjobs', DASH)}" + (f", {listing}" if listing else ""),
        ])  # fmt: skip
    columns = [
        Column("Run", "left"),
        Column("Machine", "left", 1),
        Column("Memory"),
        Column("System", "left"),
        Column("Versions", "left", 1.4),
    ]
    return [Heading("Machines"), Table("Machines and versions", columns, rows)] if rows else []


def _label_fold(measures: Measures) -> list[Block]:
    notes = measures.study.label_notes
    if not notes:
        return []
    faulty = sum(note != "ok" for note in notes.values())
    return [
        Prose(f"The label notes cover {plural(len(notes), 'question')} and mark {count(faulty)} of them as faulty.")
    ]


def _method() -> Prose:
    return Prose(
        "Intervals: Wilson 1927; clustered, Miller 2024 (arXiv 2411.00640); paired, Bonett and Price 2012."
        f" Tests: McNemar's exact test with Holm's correction; shared mistakes by permutations within subjects"
        f" ({count(ALL_DRAWS)} draws with a fixed seed for all models, exact for a pair); Stuart-Maxwell for letters."
        " Error consistency:"
        " Geirhos et al. 2020 (arXiv 2006.16736). CAPA: arXiv 2502.04313. Same wrong answers: arXiv"
        " 2506.07962. Calibration: Guo et al. 2017.",
        "Methods.",
        "note",
    )


SECTION = Section("making", "How it was made", lambda measures: True, build)
