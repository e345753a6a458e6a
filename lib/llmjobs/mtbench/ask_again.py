"""When a judge or an agent is asked again: in the same conversation, and in the next run.

What is sent again over HTTP is decided in ``calls.retry``. In a conversation, a judge whose reply has no rating
gets one reminder. After several questions without an answer in a row, a unit ends and the rest is not sent.

Failed calls are no results. A record whose call failed stands in its place, in error, so that everything after it can
be read. The next run moves the unit back to the first such record: finished calls come from the journal of calls and
are not paid again, so only what failed is asked, and the records become those of a server that never failed.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmjobs.terminal_text import agree
from llmjobs.work import unit_progress
from llmjobs.work.folder import RECORDS, RunFolder
from llmjobs.work.journal import Record, read_records

if TYPE_CHECKING:
    from llmjobs.mtbench.tasks import AgentTask, Bench, JudgeTask


FAILED_IN_A_ROW = 3
"""After this many consecutive questions without an answer, a unit ends and the rest is not sent to the server."""


def failed_call(record: Mapping[str, object]) -> str | None:
    """Why a record of an endpoint has no answer, if another try may give one.

    ``final`` marks failures that no other try can change: a prompt that does not fit.
    """
    orders = record.get("orders")
    parts = [record, *(orders if isinstance(orders, list) else [])]
    for part in parts:
        if part.get("status") == "error" and not part.get("final") and part.get("error"):
            return str(part["error"])
    return None


def failed_calls(folder: RunFolder, task: "AgentTask | JudgeTask") -> list[tuple[Record, str]]:
    """The records of a unit whose call failed, each with the reason."""
    if not task.is_endpoint:
        return []
    return [(record, why) for record in _records(folder, task.path) if (why := failed_call(record))]


def waiting(folder: RunFolder, task: "AgentTask | JudgeTask") -> list[Record]:
    """The judge's records without an answer to judge, because the call for that answer failed."""
    failed = {
        (record["model"], record["question_id"]) for agent in task.agents for record, _ in failed_calls(folder, agent)
    }
    return [
        record
        for record in (_records(folder, task.path) if failed else ())
        if record["status"] == "not_judged"
        and any((agent.name, record["question_id"]) in failed for agent in task.agents)
    ]


def ask_again(folder: RunFolder, bench: "Bench") -> None:
    """Rewind every unit to the first record that must be requested again; judges before the agents they judge.

    Raises:
        FingerprintError: a unit was made with other settings.

    """
    for judge in bench.judges:
        has_new_answers = any(failed_calls(folder, agent) for agent in judge.agents)
        again = [record for record, _ in failed_calls(folder, judge)] + waiting(folder, judge)
        if again or has_new_answers:
            _rewind(folder, judge, again, forget_effective=has_new_answers)
    for agent in bench.agents:
        if again := [record for record, _ in failed_calls(folder, agent)]:
            _rewind(folder, agent, again)


def _rewind(
    folder: RunFolder, task: "AgentTask | JudgeTask", again: Iterable[Record], *, forget_effective: bool = False
) -> None:
    unit = folder.unit(task.path)
    if not unit.checkpoint.exists():
        return
    cursor, _ = unit_progress.load(unit, task.declared)
    steps = [int(record["step"]) for record in again]
    unit_progress.rewind(unit, cursor, min([*steps, cursor.steps_done]), forget_effective=forget_effective)


def what_failed(folder: RunFolder, bench: "Bench") -> dict[str, str]:
    """One line per unit with failed calls: their number, and the first reason."""
    lines = {}
    for path, task in bench.tasks.items():
        failed = failed_calls(folder, task)
        late, size, what = waiting(folder, task), task.size, task.noun
        if failed:
            record, why = failed[0]
            turn = f", turn {record['turn']}" if "turn" in record else ""
            again = f"; run the same command to ask for {agree(len(failed), 'it', 'them')} again"
            first = f"question {record['question_id']}{turn}: {why}"
            lines[path] = f"{len(failed)} of {size} {what} failed, first {first}{again}"
        elif late:
            lines[path] = (
                f"{len(late)} of {size} {what} are missing because an answer failed; run the same command again"
            )
    return lines


def _records(folder: RunFolder, path: str) -> list[Record]:
    file: Path = folder.path / path / RECORDS
    return read_records(file, allow_torn=True) if file.exists() else []
