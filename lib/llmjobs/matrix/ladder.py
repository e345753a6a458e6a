"""The ladder: precisions and engines side by side in one table, each compared with the reference precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from llmjobs.matrix.summary import Flips, cell_names, find_flips
from llmjobs.records import DONE, CellResult
from llmjobs.statistics.paired import PairedDifference, difference_from_counts, holm, simultaneous_level
from llmjobs.terminal_text import DASH, fixed, gib, seconds, table


@dataclass(frozen=True)
class Rung:
    """One precision with what it changes against the reference."""

    cell: CellResult
    name: str
    flips: Flips | None
    """None for the reference, and where there is no reference to compare with."""
    p_holm: float | None
    """McNemar's exact p-value, adjusted by Holm's procedure over all rungs that are compared."""
    together: PairedDifference | None
    """The difference with an interval that holds for all rungs at the same time (Bonferroni)."""

    @property
    def prefill(self) -> float | None:
        """Prompt tokens per second."""
        return self.cell.value("prefill_tokens_per_s")

    @property
    def decode(self) -> float | None:
        """New tokens per second."""
        return self.cell.value("decode_tokens_per_s")


@dataclass(frozen=True)
class Ladder:
    """The cells of a matrix that lists ``precisions``."""

    cells: Sequence[CellResult]

    @classmethod
    def of(cls, cells: Sequence[CellResult]) -> "Ladder":
        """Take those cells that have a precision: model by model, the reference first, then by bytes of weights."""
        models = list(dict.fromkeys(cell.model for cell in cells))

        def place(cell: CellResult) -> tuple[int, bool, float, str]:
            return models.index(cell.model), not cell.is_reference, -(cell.value("weight_bytes") or 0.0), cell.cell

        return cls(sorted((cell for cell in cells if cell.precision), key=place))

    @cached_property
    def rungs(self) -> list[Rung]:
        """The finished cells."""
        done = [cell for cell in self.cells if cell.status == DONE and cell.repetitions]
        flips = {id(flip.cell): flip for flip in find_flips(done)}
        compared = list(flips.values())
        adjusted = dict(zip(flips, holm([flip.result.p for flip in compared]), strict=True))
        level = simultaneous_level(len(compared))
        found = []
        for cell, name in zip(done, cell_names(done), strict=True):
            flip = flips.get(id(cell))
            result = flip.result if flip else None
            wide = result and difference_from_counts(result.only_first, result.only_second, result.n, level)
            found.append(Rung(cell, name, flip, adjusted.get(id(cell)), wide))
        return found


HEADER = (
    "precision", "engine", "on disk", "memory", "load", "prefill t/s", "decode t/s", "questions/s",
    "accuracy (95% interval)", "changed", "p (Holm)",
)  # fmt: skip


def render_ladder(ladder: Ladder) -> list[str]:
    """The ladder's table for the terminal, and what its last columns compare with."""
    if not ladder.rungs:
        return []
    source = next(
        (one for one in ("text", "prompts") if any(one in rung.cell.divergence for rung in ladder.rungs)), None
    )
    more = (f"KL ({source})", "same top token") if source else ()
    lines = table(
        [(*HEADER, *more), *((*_row(rung), *(_moved(rung, source) if source else ())) for rung in ladder.rungs)]
    )
    against = dict.fromkeys(rung.flips.against.row for rung in ladder.rungs if rung.flips)
    if against:
        lines.append(
            f"changed: answers that differ from {', '.join(against)}; p: McNemar's exact test, adjusted for the number"
            " of rows (Holm)"
        )
    if source:
        lines.append(
            f"KL: mean KL divergence of the next token's distribution from the reference's over the {source}, in nats"
        )
    lines += [f"{rung.name}: {rung.cell.tokens_differ}" for rung in ladder.rungs if rung.cell.tokens_differ]
    lines += [f"{rung.name}: no divergence: {why}" for rung in ladder.rungs if (why := rung.cell.divergence_reason)]
    if not against and not any(cell.is_reference and cell.status == DONE for cell in ladder.cells):
        lines.append("The reference precision has no result, so there is nothing to compare the others with.")
    return lines


def _row(rung: Rung) -> tuple[str, ...]:
    cell = rung.cell
    return (
        rung.name,
        cell.engine,
        gib(cell.value("file_bytes")),
        gib(cell.memory_bytes),
        seconds(cell.value("load_s")),
        speed(rung.prefill),
        speed(rung.decode),
        speed(cell.value("questions_per_s")),
        accuracy(cell),
        f"{rung.flips.changed} of {rung.flips.result.n}" if rung.flips else DASH,
        DASH if rung.p_holm is None else fixed(rung.p_holm, 3),
    )


def _moved(rung: Rung, source: str) -> tuple[str, str]:
    """Mean divergence from the reference in nats, and the share of positions with the same most likely token."""
    found = rung.cell.divergence.get(source) or {}
    mean, same = ((found.get(name) or {}).get("value") for name in ("mean", "same_top"))
    return DASH if mean is None else f"{mean:.2g}", DASH if same is None else f"{same:.1%}"


def accuracy(cell: CellResult) -> str:
    """The share of right answers with its interval."""
    found = cell.accuracy
    return DASH if found is None else f"{found.value:.1%} ({found.low:.1%}–{found.high:.1%})"


def speed(value: float | None) -> str:
    """A rate with three digits."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
