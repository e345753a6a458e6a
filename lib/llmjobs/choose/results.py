"""Candidates from results: eval folders, matrix folders, logs of other tools, and a table of costs.

Figures are joined only if they belong to the same model, precision, engine and machine.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmjobs.choose.candidates import UNQUANTIZED, Candidate, Measured, SpeedAt
from llmjobs.choose.constraints import QUANTITIES, make_constraint
from llmjobs.errors import DataError, LlmjobsError
from llmjobs.manifest.fields import not_one_of
from llmjobs.manifest.matrix import FLOATS, OTHER_NAMES
from llmjobs.quantization import METHODS
from llmjobs.records import DONE, CellResult, Spread
from llmjobs.report.assemble import WEIGHTS, assemble, join_parts, select
from llmjobs.report.labels import distinct_labels
from llmjobs.report.read.csv_or_jsonl import csv_lines
from llmjobs.report.read.formats import read
from llmjobs.report.read.run_folder import cell_entries
from llmjobs.report.study import LOADED_AS, Floats, RawEntry, RawRun, Study
from llmjobs.report.wording import listed
from llmjobs.terminal_text import plural


@dataclass(frozen=True)
class Found:
    """The candidates in some results, and what a reader must know about the input."""

    candidates: tuple[Candidate, ...]
    benchmarks: Mapping[str, float]
    """Weight of each benchmark that decides."""
    notices: tuple[str, ...]
    machine: str
    partial: bool


def find_candidates(
    paths: Sequence[Path],
    *,
    costs: Path | None = None,
    benchmarks: Mapping[str, float] | None = None,
    machine: str | None = None,
    where: Mapping[str, str] | None = None,
    name: str | None = None,
    any_prompt: bool = False,
) -> Found:
    """Return every model × precision × engine in ``paths`` with all that was measured of it.

    ``benchmarks`` are the weights of those that decide; None: all that every candidate with answers was asked.

    Raises:
        DataError: nothing can be read, the answers are not comparable, the costs come from several machines, or a
            benchmark is not there.

    """
    runs = [run for path in paths for run in read(path, name)]
    notes: list[str] = []
    members = _members(runs, where or {})
    members, here = _on_one_machine(members, machine, notes)
    groups = _grouped(members, notes)
    _one_source_each(groups)
    study = _assembled(runs, groups, any_prompt)
    notes += [str(notice) for notice in study.notices]
    if not study.benchmarks:
        graded = listed(table.benchmark for table in study.graded)
        why = f"{graded}: mean scores, which this command does not compare" if graded else "no question has an answer"
        raise DataError(f"{listed(map(str, paths))}: no accuracy to decide by ({why}); run llmjobs eval")
    weights = _weights(study, groups, benchmarks, notes)
    answers = _answers(study)
    candidates = [
        candidate for number, group in enumerate(groups) for candidate in _candidates(group, answers.get(number, {}))
    ]
    candidates = _labelled(candidates)
    if costs:
        candidates = _with_costs(candidates, costs, notes)
    return Found(tuple(candidates), weights, tuple(dict.fromkeys(notes)), here, study.partial)


# Entries that belong to one candidate.


@dataclass(frozen=True)
class _Member:
    """One model in one folder or log: its answers, and the cell if it comes from a matrix."""

    run: RawRun
    entry: RawEntry
    cell: CellResult | None = None


@dataclass
class _Group:
    """The members of one model at one precision on one engine: those with answers, and cells with speeds."""

    members: list[_Member] = field(default_factory=list)

    @property
    def cells(self) -> list[CellResult]:
        """Finished cells, one for each number of threads and rows."""
        seen: dict[tuple[int | str, int], CellResult] = {}
        for member in self.members:
            if member.cell and member.cell.status == DONE:
                seen.setdefault((member.cell.threads, member.cell.batch_size), member.cell)
        return list(seen.values())


def _members(runs: Sequence[RawRun], where: Mapping[str, str]) -> list[_Member]:
    cells: dict[int, CellResult] = {}
    everything = []
    for run in runs:
        entries = list(run.entries)
        for cell, entry in cell_entries(run):
            entry = replace(entry, info=replace(entry.info, details={**entry.info.details, "cell": cell.cell}))
            cells[id(entry.info)] = cell
            entries.append(entry)
        everything.append(replace(run, entries=entries))
    originals = {id(copy): run for copy, run in zip(everything, runs, strict=True)}
    pairs = join_parts([(run, entry) for run, entry in select(everything, where)])
    return [_Member(originals[id(run)], entry, cells.get(id(entry.info))) for run, entry in pairs]


def describe_machine(machine: Mapping[str, Any]) -> str:
    """Return a machine in words; empty if nothing is recorded. Equal text means the same machine."""
    cpu, cores, memory = (machine.get(name) for name in ("cpu", "cores", "memory_bytes"))
    parts = [str(cpu or ""), f"{cores} cores" if cores else "", str(machine.get("system") or "")]
    if isinstance(memory, int | float):
        parts.insert(2, f"{round(memory / 2**30)} GiB")
    return ", ".join(filter(None, parts))


def _on_one_machine(
    members: Sequence[_Member], wanted: str | None, notes: list[str]
) -> tuple[list[_Member], str]:  # fmt: skip
    """Keep the members of one machine, and those that name none."""
    machines = list(dict.fromkeys(filter(None, (describe_machine(member.entry.machine) for member in members))))
    if wanted is not None:
        fitting = [name for name in machines if wanted.lower() in name.lower()]
        if len(fitting) != 1:
            problem = "fits several machines" if fitting else "fits no machine"
            raise DataError(f"--machine {wanted}: {problem} of these results: {'; '.join(machines) or 'none is named'}")
        machines, others = fitting, [name for name in machines if name not in fitting]
        if others:
            notes.append(f"left out, because measured on another machine: {'; '.join(others)}")
    elif len(machines) > 1:
        raise DataError(
            f"these results are from {plural(len(machines), 'machine')} ({'; '.join(machines)}), and speed and memory"
            " of one say nothing about another; choose one with --machine and a part of its name"
        )
    kept = [member for member in members if describe_machine(member.entry.machine) in ("", *machines)]
    return kept, machines[0] if machines else ""


def _grouped(members: Sequence[_Member], notes: list[str]) -> list[_Group]:
    """Put members of the same model, precision and engine together."""
    groups: list[_Group] = []
    for member in members:
        if member.cell is None:
            same = [group for group in groups if _same(group.members[0], member, loosely=False)]
            same[0].members.append(member) if same else groups.append(_Group([member]))
    alone: list[_Group] = []
    for member in members:
        if member.cell is None:
            continue
        fitting = [group for group in groups if _same(group.members[0], member, loosely=True)]
        for group in fitting:
            group.members.append(member)
            if not group.members[0].entry.machine and member.entry.machine:
                notes.append(
                    f"{group.members[0].entry.source}: names no machine; its answers are taken together with the speed"
                    f" and memory of {member.entry.source}"
                )
        if not fitting:
            same = [group for group in alone if _same(group.members[0], member, loosely=False)]
            same[0].members.append(member) if same else alone.append(_Group([member]))
    return [*groups, *alone]


def _same(one: _Member, other: _Member, *, loosely: bool) -> bool:
    """Whether both are the same model with the same settings; ``loosely``: what one does not record may differ."""
    a, b = one.entry.info, other.entry.info
    machines = [describe_machine(member.entry.machine) for member in (one, other)]
    if all(machines) and machines[0] != machines[1]:
        return False
    if not loosely and (a.study, a.prompts, machines[0]) != (b.study, b.prompts, machines[1]):
        return False
    plain = [(a.device, b.device), (a.dtype, b.dtype), (a.quantization or "none", b.quantization or "none")]
    plain += [(a.detail(name), b.detail(name)) for name in LOADED_AS]
    if any(x != y and not (loosely and "" in (x, y)) for x, y in plain):
        return False
    if WEIGHTS.fullmatch(a.revision) and WEIGHTS.fullmatch(b.revision):
        return a.revision == b.revision
    if a.revision != b.revision and "" not in (a.revision, b.revision):
        return False
    return a.id == b.id or loosely and family(_name(one.entry)) == family(_name(other.entry))


def _name(entry: RawEntry) -> str:
    return str(entry.info.details.get("name") or entry.info.id)


FORMS = re.compile(
    r"[-_.:]?(?:gguf|gptq|awq|bnb|fp8|fp4|nvfp4|int[248]|w\d+a\d+|[248][-_.]?bits?|nf4|exl[23]|mlx|hqq|"
    r"i?q\d+(?:_[a-z0-9]+)*|bf16|fp?16|fp?32)(?=$|[-_.:])",
    re.IGNORECASE,
)
"""Parts of a name that stand for a form of the weights."""
GGUF_TYPE = re.compile(r"(?:^|[-_.:])(I?Q\d+(?:_[A-Z0-9]+)*|BF16|F16|F32)(?=$|[-_.:])", re.IGNORECASE)


def family(name: str) -> str:
    """Return a model's name without its owner, its precision and the format of its file.

    ``Qwen/Qwen2.5-1.5B-Instruct-GGUF:Q4_K_M`` gives ``Qwen2.5-1.5B-Instruct``.
    """
    last = re.sub(r"\.gguf$", "", name.rstrip("/").rsplit("/", 1)[-1], flags=re.IGNORECASE)
    return FORMS.sub("", last).strip("-_.:") or last


def _one_source_each(groups: Sequence[_Group]) -> None:
    """For each benchmark of a candidate, keep the answers of one member: the one with the most."""
    for group in groups:
        best: dict[str, int] = {}
        for at, member in enumerate(group.members):
            for name, records in member.entry.records.items():
                if name not in best or len(records) > len(group.members[best[name]].entry.records[name]):
                    best[name] = at
        group.members[:] = [
            replace(member, entry=_only(member.entry, [name for name, at in best.items() if at == place]))
            for place, member in enumerate(group.members)
        ]


def _only(entry: RawEntry, benchmarks: Sequence[str]) -> RawEntry:
    def cut(table: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in table.items() if name in benchmarks}

    return replace(
        entry,
        records=cut(entry.records),
        metric=cut(entry.metric),
        by_metric=cut(entry.by_metric),
        protocol=cut(entry.protocol),
    )


NUMBER = "candidate"
"""Detail of an entry's model that says which group it belongs to."""


def _assembled(runs: Sequence[RawRun], groups: Sequence[_Group], any_prompt: bool) -> Study:
    """Match the answers of all groups on the same questions."""
    by_run: dict[int, list[RawEntry]] = {id(run): [] for run in runs}
    for number, group in enumerate(groups):
        for member in group.members:
            if member.entry.records:
                info = member.entry.info
                marked = replace(info, details={**info.details, NUMBER: number})
                by_run[id(member.run)].append(replace(member.entry, info=marked))
    return assemble([replace(run, entries=by_run[id(run)]) for run in runs], common=True, any_prompt=any_prompt)


def _answers(study: Study) -> dict[int, dict[str, Floats]]:
    """Right and wrong by group and benchmark."""
    found: dict[int, dict[str, Floats]] = {}
    for benchmark in study.benchmarks:
        for row, place in enumerate(benchmark.rows):
            number = int(study.entries[place].info.details[NUMBER])
            found.setdefault(number, {})[benchmark.name] = benchmark.correct[row]
    return found


def _weights(
    study: Study, groups: Sequence[_Group], asked: Mapping[str, float] | None, notes: list[str]
) -> Mapping[str, float]:
    there = [benchmark.name for benchmark in study.benchmarks]
    if asked is not None:
        graded = {table.benchmark for table in study.graded}
        for name in asked:
            if name in graded:
                raise DataError(
                    f"--benchmarks {name}: has mean scores, and this command compares right and wrong answers"
                )
            if name not in there:
                raise DataError(f"--benchmarks: {not_one_of(name, there)}")
        return dict(asked)
    most = max(len(benchmark.rows) for benchmark in study.benchmarks)
    used = [benchmark.name for benchmark in study.benchmarks if len(benchmark.rows) == most]
    left = [name for name in there if name not in used]
    if left:
        notes.append(f"{listed(left)}: not every model was asked; used only if --benchmarks names it")
    return dict.fromkeys(used, 1.0)


# What was measured of a candidate.


def _candidates(group: _Group, answers: Mapping[str, Floats]) -> list[Candidate]:
    """One candidate for each number of threads and rows that the matrix timed; one if it timed none."""
    cells = group.cells
    if not cells:
        failed = next((m.cell for m in group.members if m.cell and m.cell.reason), None)
        return [_candidate(group, None, answers, failed)]
    several = len(cells) > 1
    return [_candidate(group, cell, answers, None, several) for cell in cells]


def _candidate(
    group: _Group,
    cell: CellResult | None,
    answers: Mapping[str, Floats],
    failed: CellResult | None,
    several: bool = False,
) -> Candidate:
    first = next((member for member in group.members if member.cell is None), group.members[0])
    info, timed = first.entry.info, cell or next((m.cell for m in group.members if m.cell), None)
    precision = precision_name(info.dtype, info.quantization, timed.precision if timed else None, info.id)
    if several and cell:
        rows = f", batch {cell.batch_size}" if cell.batch_size > 1 else ""
        precision = f"{precision} (threads {cell.threads}{rows})"
    figures = _figures(group, cell)
    machine = next(filter(None, (describe_machine(member.entry.machine) for member in group.members)), "")
    manifest = first.run.path / "manifest.yaml"
    return Candidate(
        label="",
        model=family(timed.model if timed and first.cell else _name(first.entry)),
        precision=precision,
        engine=info.engine,
        id=info.id,
        revision=info.revision,
        device=info.device,
        dtype=info.dtype,
        quantization=info.quantization,
        bits=_bits(group, cell, info.dtype, info.quantization),
        is_reference=bool(cell and cell.is_reference),
        machine=machine,
        answers=dict(answers),
        figures=figures,
        speeds=_speeds(cell) if cell else (),
        failed=str(failed.reason) if failed and not answers else "",
        sources=tuple(dict.fromkeys(member.entry.source for member in group.members)),
        manifest=manifest if first.run.kind == "llmjobs run" and manifest.exists() else None,
        gpu_layers=info.detail("gpu_layers"),
    )


def precision_name(dtype: str, quantization: str, asked: str | None, model: str) -> str:
    """Return the name of a precision: ``bf16``, ``8-bit``, ``NF4``, ``Q4_K_M``; empty if nothing is recorded."""
    if asked and asked.startswith("gguf:"):
        return asked.removeprefix("gguf:")
    if asked in ("nf4", "4bit") or quantization == "4bit":
        return "NF4"
    if quantization not in ("", "none"):
        if quantization in METHODS:
            return METHODS[quantization].title
        named = GGUF_TYPE.search(re.sub(r"\.gguf$", "", model, flags=re.IGNORECASE).rsplit("/", 1)[-1])
        return named[1].upper() if named else quantization
    short: dict[str, str] = {long: name for name, long in FLOATS.items()}
    return short.get(dtype, dtype) or (UNQUANTIZED if quantization else "")


WIDTHS = {"float32": 32.0, "bfloat16": 16.0, "float16": 16.0}


def _bits(group: _Group, cell: CellResult | None, dtype: str, quantization: str) -> float | None:
    """Bits of a weight: from the bytes and the number of the loaded weights, otherwise from the precision's name."""
    details = group.members[0].entry.info.details
    pairs = [(details.get("weight_bytes"), details.get("parameters"))]
    if cell:
        pairs.insert(0, (cell.value("weight_bytes"), cell.parameters))
    for held, number in pairs:
        if isinstance(held, int | float) and isinstance(number, int) and held > 0 and number > 0:
            return 8 * held / number
    if quantization in ("", "none"):
        return WIDTHS.get(dtype, 16.0 if not dtype or quantization else None)
    digits = re.search(r"\d+", quantization)
    return float(digits[0]) if digits else None


def _figures(group: _Group, cell: CellResult | None) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for member in group.members:
        details, cost = member.entry.info.details, member.entry.cost
        if member.cell is None and cost is not None:
            _take(found, "memory", cost.memory_bytes)
            if cost.energy_j is not None and cost.questions:
                _take(found, "energy", 1000 * cost.energy_j / cost.questions)
        _take(found, "size", details.get("weight_bytes"))
        _take(found, "context", details.get("context_length"))
    if cell:
        reached = max((int(row.get("context_tokens") or 0) for row in cell.by_context if _decode(row)), default=0)
        peaks = ("peak_device_bytes", "needed_bytes", "peak_rss_bytes")
        memory = next((spread for name in peaks if (spread := cell.measures.get(name)) and spread.median), None)
        for key, spread in (
            ("memory", memory),
            ("size", cell.measures.get("weight_bytes")),
            ("energy", cell.measures.get("joules_per_1000_questions")),
        ):
            if spread:
                measured = _measured(spread)
                found[key] = replace(measured, context=reached or None) if key == "memory" else measured
    return found


def _take(found: dict[str, Measured], key: str, value: object) -> None:
    if isinstance(value, int | float) and value > 0:
        found.setdefault(key, Measured(float(value)))


def _measured(spread: Spread) -> Measured:
    return Measured(spread.median, spread.low, spread.high, spread.n)


def _at(value: object, context: int) -> Measured | None:
    spread = Spread.from_json(value)
    return replace(_measured(spread), context=context) if spread else None


def _decode(row: Mapping[str, Any]) -> Spread | None:
    return Spread.from_json(row.get("decode_tokens_per_s"))


def _speeds(cell: CellResult) -> tuple[SpeedAt, ...]:
    found = []
    for row in cell.by_context:
        context = row.get("context_tokens")
        if isinstance(context, int):
            decode, first = (_at(row.get(name), context) for name in ("decode_tokens_per_s", "ttft_s"))
            found.append(SpeedAt(context, decode, first, str(row.get("reason") or "")))
    return tuple(found)


def _labelled(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Give each candidate the shortest name that no other one has: model and precision, then engine, device."""
    reads: tuple[Callable[[Candidate], str], ...] = (
        lambda one: one.engine,
        lambda one: one.device,
        lambda one: f"({one.revision.removeprefix('sha256:')[:8]})" if one.revision else "",
        lambda one: f"({one.sources[0]})" if one.sources else "",
    )
    names = [" ".join(filter(None, (one.model, one.precision))) for one in candidates]
    labels = distinct_labels(names, candidates, reads)
    return [replace(one, label=label) for label, one in zip(labels, candidates, strict=True)]


# A table of costs for logs that record none.

COLUMNS = {
    "memory": "memory",
    "decode": "decode",
    "decode_tokens_per_s": "decode",
    "first_token": "first_token",
    "ttft": "first_token",
    "size": "size",
    "context": "context",
    "energy": "energy",
}
"""Column of a table of costs → quantity."""
SELECT = ("device", "dtype", "quantization", "precision", "engine", "machine")


def _with_costs(candidates: Sequence[Candidate], path: Path, notes: list[str]) -> list[Candidate]:
    """Add the figures of a CSV, one row per candidate, where llmjobs measured none."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; --costs takes a CSV with a column 'model' and {listed(COLUMNS, 8)}")
    run = RawRun(path, "costs")
    rows = [
        {str(key).strip().lower(): str(value or "").strip() for key, value in row.items()}
        for row in csv_lines(path, run)
    ]
    notes += [str(notice) for notice in run.notices]
    columns = {column: key for column, key in COLUMNS.items() if rows and column in rows[0]}
    if not rows or "model" not in rows[0] or not columns:
        raise DataError(
            f"{path.name}: a table of costs needs a first row with a column 'model' and at least one of"
            f" {', '.join(COLUMNS)}" + (f"; found: {', '.join(rows[0])[:200]}" if rows else "")
        )
    found = list(candidates)
    taken: set[int] = set()
    for number, row in enumerate(rows, start=2):
        where = f"{path.name}: row {number}"
        fitting = [at for at, one in enumerate(found) if _is_about(row, one)]
        if len(fitting) > 1:
            names = listed(found[at].label for at in fitting)
            raise DataError(
                f"{where}: {row['model']} may be {names}; add a column {', '.join(SELECT[:-1])} or use --where"
            )
        if not fitting:
            notes.append(f"{where}: {row['model']} is none of these candidates")
            continue
        at = fitting[0]
        if at in taken:
            raise DataError(f"{where}: {found[at].label} has another row above; keep one")
        taken.add(at)
        found[at] = _priced(found[at], row, columns, where, notes)
    return found


def _is_about(row: Mapping[str, str], one: Candidate) -> bool:
    model = row["model"].lower()
    if model not in {one.id.lower(), one.id.rsplit("/", 1)[-1].lower(), one.model.lower(), one.label.lower()}:
        return False
    have = {
        "device": (one.device,),
        "dtype": (one.dtype, one.precision),
        "quantization": (one.quantization or "none", one.precision),
        "precision": (one.precision, one.dtype, OTHER_NAMES.get(one.dtype, "")),
        "engine": (one.engine,),
    }
    return all(
        row[name].lower() in {value.lower() for value in values} for name, values in have.items() if row.get(name)
    )


def _priced(
    one: Candidate, row: Mapping[str, str], columns: Mapping[str, str], where: str, notes: list[str]
) -> Candidate:
    machine = row.get("machine", "")
    if machine and one.machine and machine.lower() not in one.machine.lower():
        notes.append(f"{where}: measured on another machine ({machine}) than {one.label}; not used")
        return one
    figures = dict(one.figures)
    for column, key in columns.items():
        if not row[column]:
            continue
        try:
            value = make_constraint(key, row[column]).limit
        except LlmjobsError as error:
            raise DataError(f"{where}, column {column}: {str(error).partition(': ')[2]}") from None
        if one.measured(key)[0] is not None:
            notes.append(f"{where}: {QUANTITIES[key].noun} of {one.label} was measured; the table's is not used")
        else:
            figures[key] = Measured(value, given=True)
    return replace(one, figures=figures, machine=one.machine or machine)
