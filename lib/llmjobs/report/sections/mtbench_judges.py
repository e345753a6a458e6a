"""What judges are worth: what could be read, agreement, what sways them, files that were read."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.report.blocks import Block, Column, Heading, Table
from llmjobs.report.wording import DASH, count, decimal, p_value, percent

Values = Mapping[str, Any]


def judge_blocks(part: Values) -> list[Block]:
    """Tables about the judges themselves; empty where there is nothing to tell."""
    blocks: list[Block] = [Heading("What the judges are worth")]
    columns = [
        Column("Judge", "left", 1),
        Column("Mode", "left"),
        Column("Judgments"),
        Column("Read"),
        Column("Unread"),
    ]
    columns += [Column("Failed"), Column("No answer"), Column("Asked again")]
    keys = ("n", "ok", "unread", "error", "not_judged", "asked_again")
    rows = [[row["judge"], row["mode"], *(count(row[key]) for key in keys)] for row in part["judges"]]
    if rows:
        blocks.append(Table("What could be read", columns, rows))
    blocks += [*_agreement(part["agreement"]), *_bias(part["bias"]), *_files(part["files"])]
    return blocks if len(blocks) > 1 else []


def _agreement(part: Values) -> list[Block]:
    rows = [
        [
            f"{row['first']} and {row['second']}",
            count(row["n"]),
            decimal(row["spearman"]),
            decimal(row["mean_difference"]),
        ]
        + [percent(row["within_one"])]
        for row in part["ratings"]
    ]
    blocks: list[Block] = []
    if rows:
        columns = [
            Column("Judges", "left", 1),
            Column("Answers"),
            Column("Spearman"),
            Column("Difference"),
            Column("Within 1"),
        ]
        blocks.append(Table("Agreement rating by rating", columns, rows))
    rows = [
        [name, count(row["n"]), percent(row["all"]), count(row["n_decided"])]
        + [percent(row["decided"]) if row["decided"] is not None else DASH]
        for name, row in [
            *((f"{row['first']} and {row['second']}", row) for row in part["preferences"]),
            *((f"{row['judge']} and people", row) for row in part["votes"]),
        ]
    ]
    if rows:
        columns = [
            Column("Preferences of", "left", 1),
            Column("Pairs"),
            Column("Same"),
            Column("Decided"),
            Column("Same"),
        ]
        note = (
            "First share with ties as verdicts of their own (chance 33%), second only where both decided (chance 50%)."
        )
        blocks.append(Table("Agreement preference by preference", columns, rows, note=note))
    return blocks


def _bias(rows: Sequence[Values]) -> list[Block]:
    lines = []
    for row in rows:
        position, length, own = row["position"], row["length"], row["self"]
        turned = f"{count(position['flipped'])} of {count(position['n'])}" if position and position["n"] else DASH
        places = f"{position['to_first_place']} : {position['to_second_place']}" if position else DASH
        told = f"{decimal(length['spearman'])} ({p_value(length['p'])})" if length["spearman"] is not None else DASH
        longer = f"{length['longer_won']} of {length['n_decided']}" if length["n_decided"] else DASH
        preference = decimal(own["preference"]) if own and own["preference"] is not None else DASH
        lines.append([row["judge"], turned, places, told, longer, preference])
    if not lines:
        return []
    columns = [Column("Judge", "left", 1), Column("Turned"), Column("1st : 2nd"), Column("Length and rating")]
    columns += [Column("Longer won"), Column("Own answers")]
    note = (
        "Turned: verdicts that changed with the order; 1st : 2nd: those that took what was shown first or second both "
        "times. Length and rating: rank correlation within questions. Own answers: points by which a judge rates its "
        "own model higher than the other judges do; a dash where no other judge rated the same."
    )
    return [Table("What sways a judge", columns, lines, note=note)]


def _files(rows: Sequence[Values]) -> list[Block]:
    if not rows:
        return []
    keys = ("lines", "unread_lines", "duplicates", "pairs", "flips", "other_questions")
    columns = [Column("File", "left", 1), Column("Lines"), Column("No score"), Column("Duplicates"), Column("Pairs")]
    columns += [Column("Turned"), Column("Other questions")]
    lines = [[row["file"], *(count(row[key]) for key in keys)] for row in rows]
    note = "Of a duplicate the last one with a score counts. In the summary each mean over all lines stands too."
    return [Table("Judgments read from files", columns, lines, note=note)]
