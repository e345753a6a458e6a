"""Makes the report: read, line up, measure, write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmjobs.report.assemble import assemble
from llmjobs.report.blocks import Block, Content, Figure, Finding
from llmjobs.report.figures.accuracy import leaderboard
from llmjobs.report.measure import Measures
from llmjobs.report.pdf.document import Chapter, FrontPage, write_pdf
from llmjobs.report.read import read
from llmjobs.report.sections import ORDER
from llmjobs.report.sections.accuracy import labels
from llmjobs.report.sections.base import Section
from llmjobs.report.study import Notice, Study
from llmjobs.report.wording import count, listed, plural
from llmjobs.report.write.figures import draw_figures

FINDINGS_SHOWN = 8


@dataclass(frozen=True)
class ReportResult:
    """What was written, what it found, and what to know about the input."""

    pdf: Path
    files: tuple[Path, ...]
    findings: tuple[Finding, ...]
    notices: tuple[Notice, ...]
    partial: bool


def make_report(
    paths: Sequence[Path],
    output: Path,
    *,
    html: bool = False,
    budget: Mapping[str, float] | None = None,
    common: bool = False,
    where: Mapping[str, str] | None = None,
    questions: Path | None = None,
    label_notes: Path | None = None,
    name: str | None = None,
) -> ReportResult:
    """Write the report on ``paths`` to ``output`` (a PDF) and everything else beside it.

    ``budget`` maps memory, time, cpu, gpu, energy to bytes, seconds, joules. Raises DataError when nothing can be read
    or when the results are not comparable and ``common`` is not set.
    """
    runs = [run for path in paths for run in read(path, name)]
    study = assemble(
        runs, common=common, where=where, budget=budget, questions=questions, label_notes=label_notes
    )
    measures = Measures(study)
    contents = [(section, section.build(measures)) for section in ORDER if section.wanted(measures)]
    findings = rank([finding for _, content in contents for finding in content.findings])
    front = _front(measures, findings)
    output.parent.mkdir(parents=True, exist_ok=True)
    blocks: list[Block] = [*front.blocks, *(block for _, content in contents for block in content.blocks)]
    figures = draw_figures(blocks, output.parent / "figures")
    write_pdf(output, front, [Chapter(s.key, s.title, c.blocks) for s, c in contents], figures)
    files = (output,)
    return ReportResult(output, files, tuple(findings), study.notices, study.partial)


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """Order findings by weight; what weighs the same stays in order."""
    return sorted(findings, key=lambda finding: -finding.weight)


def _front(measures: Measures, findings: Sequence[Finding]) -> FrontPage:
    study, main = measures.study, measures.study.main
    blocks: list[Block] = []
    if main is not None:
        found = measures.accuracy[main.name]
        caption = (
            f"Accuracy on {main.name}: point and bar, micro accuracy with its 95% interval; ring, macro accuracy "
            "(every subject counts the same)."
        )
        blocks.append(Figure("leaderboard", caption, partial(leaderboard, found, labels(measures, found))))
    return FrontPage(_title(study), _subtitle(study), findings[:FINDINGS_SHOWN], blocks, _warning(study))


def _title(study: Study) -> str:
    models = len({entry.info.id for entry in study.entries})
    names = listed([benchmark.name for benchmark in study.benchmarks], limit=3)
    return f"{plural(models, 'model')} on {names}" if study.benchmarks else f"Report on {study.title}"


def _subtitle(study: Study) -> list[str]:
    asked = sum(benchmark.n for benchmark in study.benchmarks)
    lines = [listed(dict.fromkeys(entry.label for entry in study.entries), limit=6)]
    machines = listed(
        dict.fromkeys(str(e.machine.get("cpu")) for e in study.entries if e.machine.get("cpu")), limit=3
    )
    devices = listed(sorted({entry.info.device for entry in study.entries if entry.info.device}))
    parts = [f"{plural(asked, 'question')}, the same for every model"]
    parts += [part for part in (f"on {devices}" if devices else "", machines) if part]
    return [*lines, " · ".join([*parts, f"from {study.title}"])]


def _warning(study: Study) -> str:
    parts = []
    if study.partial:
        parts.append("Partial: the study was not finished when this report was made.")
    if study.notices:
        number = len(study.notices)
        verb, which = ("is", "it is") if number == 1 else ("are", "they are")
        parts.append(f"{count(number)} {'thing' if number == 1 else 'things'} to know about the input {verb} listed under "
                     f"How it was made; the first: {study.notices[0]}.")  # fmt: skip
        del which
    return " ".join(parts)


def unused(sections: Sequence[tuple[Section, Content]]) -> list[str]:
    """Titles of the sections that the data does not have."""
    have = {section.key for section, _ in sections}
    return [section.title for section in ORDER if section.key not in have]
