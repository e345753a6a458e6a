"""The summary of an mtbench job, from the records alone, its table on the terminal, and ``--show``."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from llmjobs.calls.refused_parameters import LEFT_OUT
from llmjobs.calls.spending import Spending, spending_lines
from llmjobs.changed_prompts import empty_answers, empty_text, thinking_cut, thinking_cut_text
from llmjobs.errors import printable
from llmjobs.mtbench import agreement, scores
from llmjobs.mtbench.fastchat import Compared, Judged, JudgmentFile, read_judgments
from llmjobs.mtbench.tasks import NO_HISTORY, AgentTask, Bench
from llmjobs.records import AnswerRecord, Judgment, Kind, as_records
from llmjobs.terminal_text import fixed, plural, table
from llmjobs.work import unit_progress
from llmjobs.work.folder import RECORDS, RunFolder
from llmjobs.work.journal import Record, read_records
from llmjobs.work.outcome import Outcome
from llmjobs.work.units import Unit

# Nothing is dropped: what could not be read is counted.

Figures = dict[str, Any]
AnyJudgment = TypeVar("AnyJudgment", Judged, Compared)
STATUSES = ("ok", "unread", "error", "not_judged")


@dataclass
class Collected:
    """The records of a run and its imported files, in one form."""

    answers: dict[str, list[AnswerRecord]] = field(default_factory=dict)
    judgments: dict[str, list[Judgment]] = field(default_factory=dict)
    """Keyed by the unit's path."""
    single: list[Judged] = field(default_factory=list)
    pairs: list[Compared] = field(default_factory=list)
    files: dict[str, JudgmentFile] = field(default_factory=dict)
    between_files: int = 0
    """Number of judgments that are in more than one file; the last readable one counts."""
    categories: dict[str, str] = field(default_factory=dict)
    lengths: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def judges(self) -> list[str]:
        """Every judge, in order of appearance."""
        return list(dict.fromkeys([*(one.judge for one in self.single), *(one.judge for one in self.pairs)]))


def collect(folder: RunFolder, bench: Bench) -> Collected:
    """Read all records; imported judgments are listed under the name of their judge."""
    found = Collected(categories={question.id: question.category for question in bench.questions})
    for agent in bench.agents:
        records = found.answers[agent.name] = _read(folder.path / agent.path, AnswerRecord)
        for record in records:
            for turn, text in enumerate(record["turns"], start=1):
                found.lengths[agent.name, record["question_id"], turn] = len(text)
    for task in bench.judges:
        judgments = found.judgments[task.path] = _read(folder.path / task.path, Judgment)
        kept = [record for record in judgments if record["status"] != "not_judged"]
        found.single += [judged_of(record) for record in kept if record["mode"] == "single"]
        found.pairs += [compared_of(record) for record in kept if record["mode"] == "pairwise"]
    own = {judge.name for judge in bench.section.judges}
    files = JudgmentFile()
    for name in bench.section.judgments:
        file = found.files[name] = read_judgments(Path(name))
        files.single += [_renamed(one, own) for one in file.distinct() if one.question_id in found.categories]
        files.pairs += [_renamed(one, own) for one in file.pairs if one.question_id in found.categories]
    distinct = files.distinct()
    found.between_files = len(files.single) - len(distinct)
    found.single += distinct
    found.pairs += files.pairs
    return found


def _renamed(one: AnyJudgment, own: Collection[str]) -> AnyJudgment:
    """Distinguish a file's judge from the run's own judge of that name."""
    return replace(one, judge=f"{one.judge} (file)") if one.judge in own else one


def judged_of(record: Judgment) -> Judged:
    """A rating record in the form that the scores need."""
    return Judged(
        judge=record["judge"],
        prompt=record["prompt"] or "",
        model=record["model"],
        question_id=record["question_id"],
        turn=record["turn"],
        rating=record["rating"],
        judgment=str(record.get("judgment") or ""),
    )


def compared_of(record: Judgment) -> Compared:
    """A comparison record in the form that the scores need."""
    a, b = (order["verdict"] or "" for order in record["orders"])
    orders = {"A": "first", "B": "second", "tie": "tie"}.get(a), {"A": "second", "B": "first", "tie": "tie"}.get(b)
    return Compared(
        judge=record["judge"],
        prompt=record["prompt"] or "",
        first=record["first"],
        second=record["second"],
        question_id=record["question_id"],
        turn=record["turn"],
        winner=record["winner"],
        flipped=record["flipped"],
        orders=orders,
    )


def _read(folder: Path, kind: Callable[..., Kind]) -> list[Kind]:
    path = folder / RECORDS
    return as_records(read_records(path, allow_torn=True), kind) if path.exists() else []


def summarize(folder: RunFolder, bench: Bench, outcome: Outcome, spending: Spending) -> Figures:
    """The ``mtbench`` part of ``summary.json``."""
    found = collect(folder, bench)
    missing = [path for path, task in bench.tasks.items() if not unit_progress.is_done(folder, path, task.declared)]
    return {
        "status": "partial" if missing or outcome.failed else "complete",
        "interval": scores.INTERVAL,
        "questions": len(bench.questions),
        "categories": list(dict.fromkeys(found.categories.values())),
        "prompts": bench.prompts.source,
        "agents": [_agent(agent, found.answers[agent.name]) for agent in bench.agents],
        "judges": _judges(bench, found),
        "scores": scores.score_all(found.single, found.categories),
        "differences": scores.differences(found.single),
        "pairwise": _pairwise(found.pairs),
        "history": _history(found.single),
        "agreement": _agreement(bench, found),
        "bias": _bias(bench, found),
        "files": [_file(name, file, found.categories) for name, file in found.files.items()],
        "between_files": found.between_files,
        "spending": spending.to_record(),
        "parameters": spending.parameters,
        "units_missing": [path for path in missing if path not in outcome.failed],
        "units_failed": [{"unit": path, "error": line} for path, line in outcome.failed.items()],
    }


def _agent(agent: AgentTask, records: Sequence[AnswerRecord]) -> Figures:
    new = [count for record in records for count in record.get("tokens_new", ())]
    spec = agent.spec
    kind = "imported" if spec is None else "endpoint" if spec.endpoint else "local"
    return {
        "model": agent.name,
        "kind": kind,
        "id": spec.id if spec else None,
        "history": agent.history,
        "answered": sum(record["status"] == "ok" for record in records),
        "errors": sum(record["status"] == "error" for record in records),
        "first_error": _first_error(records),
        "turns": sum(len(record["turns"]) for record in records),
        "tokens_new": sum(new) if new else None,
        "tokens_sent": sum(count for record in records for count in record.get("tokens_sent", ())) if new else None,
        "characters": sum(len(text) for record in records for text in record["turns"]),
        "cut_off": sum(reason == "length" for record in records for reason in record.get("finish_reasons", ())),
        **empty_answers(text for record in records for text in record["turns"]),
        **thinking_cut(sum(record.get("thinking_cut", ()).count(True) for record in records)),
    }


def _judges(bench: Bench, found: Collected) -> list[Figures]:
    """Counts per judge: judgments that could be read, could not be read, failed, or were not requested."""
    rows = []
    for judge in bench.section.judges:
        for mode in bench.section.modes:
            tasks = [task for task in bench.judges if task.judge is judge and task.mode == mode]
            records = [record for task in tasks for record in found.judgments[task.path]]
            counts = {status: sum(record["status"] == status for record in records) for status in STATUSES}
            again = sum(_asked_again(record) for record in records)
            row = {"judge": judge.name, "mode": mode, "n": len(records), **counts, "asked_again": again}
            row["first_error"] = _first_error(part for one in records for part in (one, *one.get("orders", ())))
            row |= empty_answers(text for record in records for text in _replies(record))
            row |= thinking_cut(sum(_thinking_cut(record) for record in records))
            rows.append(row | _weak(records) | ({"is_rules": True} if judge.is_rules else {}))
    return rows


def _first_error(records: Iterable[Mapping[str, Any]]) -> str | None:
    return next((str(record["error"]) for record in records if record.get("error")), None)


def _weak(records: Sequence[Judgment]) -> Figures:
    """Ratings in single brackets, which may be code such as ``a[1]``: they are read as in FastChat, and counted."""
    found = [f"{record['question_id']}.{record['turn']}" for record in records if record.get("single_brackets")]
    return {"single_brackets": len(found), "single_brackets_in": found[:20]} if found else {}


def _asked_again(record: Judgment) -> bool:
    return any(part.get("asked", 1) > 1 for part in (record, *record.get("orders", ())))


def _replies(record: Judgment) -> list[str | None]:
    """The judge's last replies: one, or one for each order of a comparison."""
    orders = record.get("orders")
    return [order.get("judgment") for order in orders] if orders else [record.get("judgment")]


def _thinking_cut(record: Judgment) -> bool:
    """Whether the judge's thinking reached its limit, in at least one reply."""
    return any(part.get("thinking_cut") is True for part in (record, *record.get("orders", ())))


def _pairwise(pairs: Sequence[Compared]) -> list[Figures]:
    rows = []
    for judge in dict.fromkeys(one.judge for one in pairs):
        mine = [one for one in pairs if one.judge == judge]
        rows.append(
            {
                "judge": judge,
                "turns": sorted({one.turn for one in mine}),
                "win_rates": scores.win_rates(mine),
                "pairs": scores.pair_table(mine),
                "bradley_terry": scores.bradley_terry(mine),
            }
        )
    return rows


def _history(single: Sequence[Judged]) -> list[Figures]:
    """Rating with history minus rating without, by turn, on the same questions."""
    rows = []
    for judge, model in dict.fromkeys((one.judge, one.model) for one in single):
        first, second = (
            [one for one in single if (one.judge, one.model) == (judge, name)] for name in (model, model + NO_HISTORY)
        )
        rows += [
            {"judge": judge, "model": model, **gap}
            for turn in (1, 2)
            if second and (gap := scores.difference(first, second, turn))
        ]
    return rows


def _agreement(bench: Bench, found: Collected) -> Figures:
    judges = found.judges()
    sources: dict[str, agreement.Preferences] = {}
    for judge in judges:
        mine = [one for one in found.single if one.judge == judge]
        pairs = [one for one in found.pairs if one.judge == judge]
        if ratings := agreement.preferences_of_ratings(mine):
            sources[f"{judge}, ratings"] = ratings
        if verdicts := agreement.preferences_of_pairs(pairs):
            sources[f"{judge}, pairs"] = verdicts
    votes = [vote for name in bench.section.votes for vote in agreement.read_votes(Path(name))]
    return {
        "ratings": agreement.rating_agreement(found.single),
        "preferences": agreement.preference_agreement(sources),
        "votes": agreement.votes_agreement(sources, votes),
        "votes_read": len(votes),
    }


def _bias(bench: Bench, found: Collected) -> list[Figures]:
    rows = []
    specs = {judge.name: judge for judge in bench.section.judges}
    for judge in found.judges():
        single = [one for one in found.single if one.judge == judge]
        pairs = [one for one in found.pairs if one.judge == judge]
        is_judge = {specs[judge].id, judge} if judge in specs else {judge}
        own = [
            agent.name for agent in bench.agents if agent.name in is_judge or (agent.spec and agent.spec.id in is_judge)
        ]
        rows.append(
            {
                "judge": judge,
                "position": agreement.position_bias(pairs) if pairs else None,
                "length": agreement.length_bias(single, pairs, found.lengths),
                "self": agreement.self_preference(judge, own, found.single),
            }
        )
    return rows


def _file(name: str, file: JudgmentFile, categories: Mapping[str, str]) -> Figures:
    """The contents of an imported file, and its scores as FastChat computes them: over every line with a score."""
    known = [one for one in file.single if one.question_id in categories]
    asked = [*(one.question_id for one in file.single), *(one.question_id for one in file.pairs)]
    other = sum(question not in categories for question in asked)
    return {
        "file": Path(name).name,
        **file.counts(),
        "other_questions": other,
        "fastchat_scores": scores.score_all(known, categories),
    }


Values = Mapping[str, Any]
SHOWN_CHARACTERS = 400


def render_summary(summary: Values) -> str:
    """Scores by judge, judgments that could not be parsed, comparisons, history, spending, failures."""
    lines: list[str] = []
    for judge in dict.fromkeys(row["judge"] for row in summary["scores"]):
        rows = [_score_row(row) for row in summary["scores"] if row["judge"] == judge]
        header = ("agent", "score (95% interval)", "turn 1", "turn 2", "rated", "not rated")
        lines += [f"judge {judge} · ratings from 1 to 10{_by_rule(judge, summary)}", *table([header, *rows]), ""]
    for part in summary["pairwise"]:
        lines += [f"judge {part['judge']} · comparisons in both orders", *_pair_rows(part), ""]
    lines += [_judge_line(row) for row in summary["judges"]]
    lines += [_history_line(row) for row in summary["history"]]
    lines += [_agent_line(row) for row in summary["agents"] if row["errors"]]
    lines += [
        f"{row['model']}: {empty_text(empty)}, judged as answers"
        for row in summary["agents"]
        if (empty := row.get("empty"))
    ]
    lines += [
        f"{row['model']}: {thinking_cut_text(cut)}" for row in summary["agents"] if (cut := row.get("thinking_cut"))
    ]
    lines += [_file_line(row) for row in summary["files"]]
    lines += spending_lines(summary["spending"])
    lines += [_parameters_line(name, changed) for name, changed in summary["parameters"].items()]
    lines += [f"failed: {one['unit']}: {one['error']}" for one in summary["units_failed"]]
    if summary["units_missing"]:
        lines.append(f"not finished: {plural(len(summary['units_missing']), 'unit')}; run the same command to resume")
    return "\n".join(lines).rstrip()


def _by_rule(judge: str, summary: Values) -> str:
    is_rules = any(row["judge"] == judge and row.get("is_rules") for row in summary["judges"])
    return " · by rule, not by a model: for the demo only" if is_rules else ""


def _number(value: float | None) -> str:
    return "–" if value is None else fixed(value, 2)


def _score_row(row: Values) -> tuple[str, ...]:
    turns = {part["turn"]: part["score"] for part in row["by_turn"]}
    ends = f" ({_number(row['low'])}–{_number(row['high'])})" if row["low"] is not None else ""
    score = f"{fixed(row['score'], 2)}{ends}" if row["score"] is not None else "–"
    return (row["model"], score, _number(turns.get(1)), _number(turns.get(2)), str(row["n"]), str(row["unread"]))


def _pair_rows(part: Values) -> list[str]:
    ratings = {row["model"]: row for row in part["bradley_terry"]}
    rows = [("agent", "win rate", "won", "tied", "lost", "unread", "Bradley-Terry (95% interval)")]
    for row in part["win_rates"]:
        rating = ratings.get(row["model"])
        rate = f"{row['win_rate']:.0%}" if row["win_rate"] is not None else "–"
        rating_text = f"{rating['rating']:.0f} ({rating['low']:.0f}–{rating['high']:.0f})" if rating else "–"
        rows.append((row["model"], rate, *(str(row[key]) for key in ("wins", "ties", "losses", "unread")), rating_text))
    return list(table(rows))


def _judge_line(row: Values) -> str:
    parts = [f"{row['ok']} of {plural(row['n'], 'judgment')} read", f"{row['unread']} unread"]
    parts += [
        f"{row[key]} {words}" for key, words in (("error", "failed"), ("not_judged", "without an answer")) if row[key]
    ]
    parts += [f"{row['asked_again']} asked again"] if row["asked_again"] else []
    if empty := row.get("empty"):
        parts.append(empty_text(empty, "reply" if empty == 1 else "replies"))
    if cut := row.get("thinking_cut"):
        parts.append(thinking_cut_text(cut, "judgment"))
    if weak := row.get("single_brackets"):
        where = ", ".join(row["single_brackets_in"][:3])
        parts.append(f"{plural(weak, 'rating')} in single brackets only, which may be code (question.turn {where})")
    why = f"; first error: {printable(row['first_error'])}" if row["error"] else ""
    return f"judge {row['judge']} ({row['mode']}): {', '.join(parts)}{why}"


def _history_line(row: Values) -> str:
    return (
        f"{row['model']} by {row['judge']}, turn {row['turn']}: with history {row['difference']:+.2f} points "
        f"({row['low']:+.2f} to {row['high']:+.2f}, {plural(row['n'], 'question')})"
    )


def _agent_line(row: Values) -> str:
    count = f"{plural(row['errors'], 'question')} without a complete answer"
    return f"{row['model']}: {count}; missing turns are not judged; first error: {printable(row['first_error'])}"


def _file_line(row: Values) -> str:
    return (
        f"{row['file']}: {plural(row['lines'], 'line')}, {row['unread_lines']} without a score, "
        f"{plural(row['duplicates'], 'duplicate')}, {plural(row['flips'], 'verdict')} that changed with the order"
    )


def _parameters_line(name: str, changed: Mapping[str, str]) -> str:
    sent = [f"{key} left out" if other == LEFT_OUT else f"{key} sent as {other}" for key, other in changed.items()]
    return f"{name}: the server does not accept every parameter: {', '.join(sent)}"


def record_printer(write: Callable[[str], Any]) -> Callable[[Unit, Sequence[Record]], None]:
    """Return the function that the runner calls with the records of each step."""

    def show(unit: Unit, records: Sequence[Record]) -> None:
        for record in records:
            write(f"── {unit.path} · {_short(record['question_id'])}")
            for line in _answer_lines(record) if "questions" in record else _judgment_lines(record):
                write(f"  {line}")

    return show


def _short(text: object) -> str:
    flat = printable(str(text or ""))
    return flat[:SHOWN_CHARACTERS] + (" …" if len(flat) > SHOWN_CHARACTERS else "")


def _answer_lines(record: Record) -> list[str]:
    said = [*record["turns"], *["[no answer]"] * (len(record["questions"]) - len(record["turns"]))]
    pairs = zip(record["questions"], said, strict=True)
    return [line for asked, answer in pairs for line in (f" user  {_short(asked)}", f"agent  {_short(answer)}")]


def _judgment_lines(record: Record) -> list[str]:
    if record["mode"] == "single":
        verdict = record["rating"] if record["rating"] is not None else f"[{record['status']}]"
        return [f"turn {record['turn']}: {verdict}  {_short(record['judgment'])}"]
    verdict = {"first": record["first"], "second": record["second"]}.get(record["winner"], record["winner"])
    return [f"turn {record['turn']}: {verdict or '[' + record['status'] + ']'}"]
