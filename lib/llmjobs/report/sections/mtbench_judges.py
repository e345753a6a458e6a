"""What judges are worth: what could be read, agreement, what sways them, files that were read."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.report.blocks import Block, Column, Finding, Heading, Table
from llmjobs.report.wording import DASH, count, decimal, interval, p_value, percent, plural

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
        weak = sum(row.get("single_brackets") or 0 for row in part["judges"])
        note = (
            f"{plural(weak, 'rating')} stand{'s' if weak == 1 else ''} in single brackets only, read as FastChat does;"
            " it may be code such as a[1] instead of a rating."
            if weak
            else ""
        )
        blocks.append(Table("What could be read", columns, rows, note=note))
    blocks += [*_agreement(part["agreement"]), *_bias(part["bias"]), *_files(part["files"])]
    return blocks if len(blocks) > 1 else []


def _agreement(part: Values) -> list[Block]:
    rows = [
        [
            f"{row['first']} and {row['second']}",
            count(row["n"]),
            decimal(row["spearman"]),
            decimal(row["mean_difference"]),
            _decimals(row, "mean_difference"),
        ]
        + [percent(row["within_one"]), _shares(row, "within_one")]
        for row in part["ratings"]
    ]
    blocks: list[Block] = []
    if rows:
        columns = [
            Column("Judges", "left", 1),
            Column("Answers"),
            Column("Spearman"),
            Column("Difference"),
            Column("95% interval"),
            Column("Within 1"),
            Column("95% interval"),
        ]
        blocks.append(Table("Agreement rating by rating", columns, rows))
    rows = [
        [name, count(row["n"]), percent(row["all"]), _shares(row, "all"), count(row["n_decided"])]
        + [percent(row["decided"]) if row["decided"] is not None else DASH, _shares(row, "decided")]
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
            Column("95% interval"),
            Column("Decided"),
            Column("Same"),
            Column("95% interval"),
        ]
        note = (
            "First share with ties as verdicts of their own, second only where both decided (two coins: 50%). Intervals"
            " count questions as independent."
        )
        blocks.append(Table("Agreement preference by preference", columns, rows, note=note))
    return blocks


def _shares(row: Values, name: str) -> str:
    """The interval of a share; a dash where a summary has none."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return DASH if low is None or high is None else interval(max(low, 0.0), min(high, 1.0))


def _decimals(row: Values, name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return DASH if low is None or high is None else f"{decimal(low)} to {decimal(high)}"


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
        "times. Length and rating: rank correlation within questions, p by permutation within questions. Own answers: "
        "points by which a judge rates its own model higher than the other judges do; a dash where no other judge "
        "rated the same."
    )
    return [Table("What sways a judge", columns, lines, note=note)]


def bias_findings(row: Values) -> list[Finding]:
    """Sentences for the first page: how often order changes a verdict, and whether longer answers are rated higher."""
    found = []
    judge, position, length = row["judge"], row["position"], row["length"]
    if position and position["n"]:
        share = position["flipped"] / position["n"]
        place = ""
        if position["p"] is not None and position["p"] < 0.05:
            first = position["to_first_place"] > position["to_second_place"]
            place = (
                f" Turned verdicts favour the answer shown {'first' if first else 'second'}"
                f" ({count(position['to_first_place'])} to {count(position['to_second_place'])};"
                f" {p_value(position['p'])})."
            )
        text = (
            f"On MT-Bench, {count(position['flipped'])} of {plural(position['n'], 'verdict')} of {judge}"
            f" ({percent(share, 0)}) change when the two answers swap places.{place}"
        )
        found.append(Finding(percent(share, 0), text, 53))
    if length["spearman"] is not None and length["p"] < 0.05:
        way = "longer" if length["spearman"] > 0 else "shorter"
        text = (
            f"On MT-Bench, {judge} rates the {way} of the answers to one question higher (rank correlation of length"
            f" and rating within questions {decimal(length['spearman'])}, {p_value(length['p'])}). This does not tell"
            " whether for their length or because they are better."
        )
        found.append(Finding(decimal(length["spearman"]), text, 52))
    return found


def _files(rows: Sequence[Values]) -> list[Block]:
    if not rows:
        return []
    keys = ("lines", "unread_lines", "duplicates", "pairs", "flips", "other_questions")
    columns = [Column("File", "left", 1), Column("Lines"), Column("No score"), Column("Duplicates"), Column("Pairs")]
    columns += [Column("Turned"), Column("Other questions")]
    lines = [[row["file"], *(count(row[key]) for key in keys)] for row in rows]
    note = "Of a duplicate the last one with a score counts. In the summary each mean over all lines stands too."
    return [Table("Judgments read from files", columns, lines, note=note)]
