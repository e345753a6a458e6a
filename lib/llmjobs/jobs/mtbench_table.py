"""The mtbench summary as it stands on the terminal, and ``--show``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmjobs.chat.parameters import LEFT_OUT
from llmjobs.errors import printable
from llmjobs.jobs.eval_table import table
from llmjobs.runner.units import Record, Unit
from llmjobs.statistics.rounding import fixed

Values = Mapping[str, Any]
SHOWN_CHARACTERS = 400


def render_summary(summary: Values) -> str:
    """Scores by judge, what could not be read, comparisons, history, spending, failures."""
    lines: list[str] = []
    for judge in dict.fromkeys(row["judge"] for row in summary["scores"]):
        rows = [_score_row(row) for row in summary["scores"] if row["judge"] == judge]
        header = ("agent", "score (95% interval)", "turn 1", "turn 2", "rated", "unread")
        lines += [f"judge {judge} · ratings from 1 to 10{_by_rule(judge, summary)}", *table([header, *rows]), ""]
    for part in summary["pairwise"]:
        lines += [f"judge {part['judge']} · comparisons in both orders", *_pair_rows(part), ""]
    lines += [_judge_line(row) for row in summary["judges"]]
    lines += [_history_line(row) for row in summary["history"]]
    lines += [_agent_line(row) for row in summary["agents"] if row["errors"]]
    lines += [_file_line(row) for row in summary["files"]]
    lines += _spending(summary["spending"])
    lines += [_parameters_line(name, changed) for name, changed in summary["parameters"].items()]
    lines += [f"failed: {one['unit']}: {one['error']}" for one in summary["units_failed"]]
    if summary["units_missing"]:
        lines.append(f"not finished: {len(summary['units_missing'])} units; run the same command to resume")
    return "\n".join(lines).rstrip()


def _by_rule(judge: str, summary: Values) -> str:
    is_rules = any(row["judge"] == judge and row.get("is_rules") for row in summary["judges"])
    return " · by rule, not by a model: for the demo only" if is_rules else ""


def _number(value: float | None) -> str:
    return "–" if value is None else fixed(value, 2)


def _score_row(row: Values) -> tuple[str, ...]:
    turns = {part["turn"]: part["score"] for part in row["by_turn"]}
    score = (
        f"{fixed(row['score'], 2)} ({_number(row['low'])}–{_number(row['high'])})" if row["score"] is not None else "–"
    )
    return (row["model"], score, _number(turns.get(1)), _number(turns.get(2)), str(row["n"]), str(row["unread"]))


def _pair_rows(part: Values) -> list[str]:
    ratings = {row["model"]: row for row in part["bradley_terry"]}
    rows = [("agent", "win rate", "won", "tied", "lost", "unread", "Bradley-Terry (95% interval)")]
    for row in part["win_rates"]:
        rating = ratings.get(row["model"])
        rate = f"{row['win_rate']:.0%}" if row["win_rate"] is not None else "–"
        told = f"{rating['rating']:.0f} ({rating['low']:.0f}–{rating['high']:.0f})" if rating else "–"
        rows.append((row["model"], rate, *(str(row[key]) for key in ("wins", "ties", "losses", "unread")), told))
    return list(table(rows))


def _judge_line(row: Values) -> str:
    parts = [f"{row['ok']} of {row['n']} judgments read", f"{row['unread']} unread"]
    parts += [
        f"{row[key]} {words}" for key, words in (("error", "failed"), ("not_judged", "without an answer")) if row[key]
    ]
    parts += [f"{row['asked_again']} asked again"] if row["asked_again"] else []
    if weak := row.get("single_brackets"):
        where = ", ".join(row["single_brackets_in"][:3])
        parts.append(f"{weak} ratings stand in single brackets only, which may be code (question.turn {where})")
    return f"judge {row['judge']} ({row['mode']}): {', '.join(parts)}"


def _history_line(row: Values) -> str:
    return (
        f"{row['model']} by {row['judge']}, turn {row['turn']}: with history {row['difference']:+.2f} points "
        f"({row['low']:+.2f} to {row['high']:+.2f}, {row['n']} questions)"
    )


def _agent_line(row: Values) -> str:
    return f"{row['model']}: {row['errors']} questions without a whole answer; their missing turns are not judged"


def _file_line(row: Values) -> str:
    return (
        f"{row['file']}: {row['lines']} lines, {row['unread_lines']} without a score, {row['duplicates']} duplicates, "
        f"{row['flips']} verdicts that turned with the order"
    )


def _spending(row: Values) -> list[str]:
    cost = f", {row['cost']:.4f} {row['currency']}" if row["cost"] is not None else ""
    failed = f" ({row['failed']:,} failed)" if row["failed"] else ""
    return [f"endpoints: {row['calls']:,} calls{failed}, {row['tokens']:,} tokens{cost}"] if row["calls"] else []


def _parameters_line(name: str, changed: Mapping[str, str]) -> str:
    told = [f"{key} left out" if other == LEFT_OUT else f"{key} sent as {other}" for key, other in changed.items()]
    return f"{name}: the server does not take every parameter: {', '.join(told)}"


def shower(write: Callable[[str], Any]) -> Callable[[Unit, Sequence[Record]], None]:
    """Return what the runner calls with each record."""

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
