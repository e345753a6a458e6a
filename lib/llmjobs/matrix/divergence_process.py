"""One side of a comparison, in its own process: write the reference's distributions, or compare a precision with them.

``python -m llmjobs.matrix.divergence_process``; apart from a cell's own process, so that distributions over the whole
vocabulary do not count among the memory of the cell.
"""

import datetime
import itertools
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmjobs import file_operations
from llmjobs.benchmarks.prompting import EncodedUnit, encode_unit
from llmjobs.engines.protocol import Engine, NextTokenEngine, prefix_token_id
from llmjobs.engines.registry import open_model
from llmjobs.errors import DataError, LlmjobsError, ModelError
from llmjobs.eval.tasks import Task, make_tasks
from llmjobs.machine.child import Reporter, serve
from llmjobs.manifest import BenchmarkSpec, EvalSection, Manifest, ModelSpec
from llmjobs.manifest.matrix import DivergenceSection
from llmjobs.matrix.distributions import (
    Distributions,
    Text,
    keep_part,
    kept_part,
    position_bytes,
    read_distributions,
    read_vocabulary,
    same_vocabulary,
    vocabulary_texts,
    write_distributions,
    write_vocabulary,
)
from llmjobs.statistics.divergence import Stored, kl_divergence, store
from llmjobs.work.folder import Revisions, RunFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUNDLED = "alice.txt"
DIGITS = 6
"""Significant digits of a recorded figure."""


def read_text(path: str | None) -> str:
    """Read the text of a manifest, or the bundled one.

    Raises:
        DataError: it cannot be read, or is not UTF-8.

    """
    if path is None:
        return files("llmjobs.matrix").joinpath("data", BUNDLED).read_text(encoding="utf-8")
    try:
        return file_operations.read_whole(Path(path).expanduser()).decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check matrix: divergence: text:") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; check matrix: divergence: text:") from None


def text_chunks(tokenizer: Any, content: str, context: int, most: int) -> Iterator[Text]:
    """Cut a text into parts of ``context`` tokens, as llama-perplexity does.

    Each begins with BOS in place of its first token if the tokenizer adds one. The positions are those behind the first
    half, up to the last that is followed by a token of the part.
    """
    tokens = list(tokenizer(content, add_special_tokens=True)["input_ids"])
    bos = prefix_token_id(tokenizer)
    begins = bos is not None and tokens[:1] == [bos] and tokenizer.bos_token_id == bos
    for index in range(min(most, len(tokens) // context)):
        part = tokens[index * context : (index + 1) * context]
        if begins:
            part[0] = bos
        positions = range(context // 2, context - 1)
        yield Text("text", index, tuple(part), tuple(positions), tuple(part[at + 1] for at in positions))


def prompt_texts(engine: Engine, tasks: Sequence[Task], most: int, date: datetime.date | None) -> Iterator[Text]:
    """The first prompts of each subject, as the benchmark asks them; compared where the answer begins."""
    if not tasks or not most:
        return
    share = -(-most // len(tasks))
    encoded = [_encoded(engine, task, share, date) for task in tasks]
    prompts = [[_prompt(one, at) for at in range(len(one.shots_used))] for one in encoded]
    chosen = itertools.chain.from_iterable(_in_turns(prompts))
    for index, tokens in enumerate(itertools.islice((one for one in chosen if one), most)):
        kept = tokens[-engine.max_length :]
        yield Text("prompts", index, tuple(kept), (len(kept) - 1,))


def _in_turns(rows: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """The first of every row, the second of every row that has one, and so on."""
    for at in range(max(map(len, rows), default=0)):
        yield [row[at] for row in rows if len(row) > at]


def _encoded(engine: Engine, task: Task, most: int, date: datetime.date | None) -> EncodedUnit:
    spec, data = task.model, task.data
    if task.error:
        raise LlmjobsError(task.error)
    return encode_unit(
        data.benchmark,
        data.docs[:most],
        data.shots,
        engine.tokenizer,
        max_length=engine.max_length,
        chat_template=spec.chat_template,
        fewshot_as_turns=spec.fewshot_as_turns,
        system=spec.system,
        thinking=spec.thinking,
        date=date,
        who=spec.name,
    )


def _prompt(encoded: EncodedUnit, at: int) -> tuple[int, ...]:
    return tuple(encoded.requests[at][0].context if encoded.requests else encoded.contexts[at])


class Side:
    """A loaded model, with the texts in its own tokenizer's tokens."""

    def __init__(self, task: Mapping[str, Any], reporter: Reporter) -> None:
        """Load the model and find the texts."""
        self.task, self.reporter = task, reporter
        self.section = DivergenceSection.model_validate(task["divergence"])
        self.spec = ModelSpec.model_construct(**task["model"])
        reporter.phase("load")
        self.engine = open_model(self.spec, threads=task["threads"])
        if not isinstance(self.engine, NextTokenEngine):
            raise ModelError(f"{self.spec.name}: its engine does not give the distribution of the next token")
        self.date = datetime.date.fromisoformat(task["date"]) if task.get("date") else None

    def texts(self, width: int) -> tuple[list[Text], int]:
        """The texts that fit into the allowed disk space, and how many parts of the text were left out."""
        section, engine = self.section, self.engine
        content = read_text(section.text) if section.chunks else ""
        context = min(section.context, engine.max_length)
        parts = list(text_chunks(engine.tokenizer, content, context, section.chunks)) if section.chunks else []
        if section.chunks and not parts:
            raise DataError(f"the text has fewer than {context} tokens; use a longer one, or a smaller context")
        prompts = list(prompt_texts(engine, self._tasks(), section.prompts, self.date))
        room = int(section.disk_gib * 2**30) - len(prompts) * position_bytes(width)
        most = max(room // (position_bytes(width) * len(parts[0].positions)), 0) if parts else 0
        if parts and not most:
            needed = position_bytes(width) * len(parts[0].positions)
            raise DataError(f"one part of the text takes {needed / 2**30:.2f} GiB; raise disk_gib, or lower context")
        return [*parts[:most], *prompts], max(len(parts) - most, 0)

    def logprobs(self, text: Text) -> "NDArray[np.float32]":
        """The distributions of the next token at a text's positions."""
        assert isinstance(self.engine, NextTokenEngine)
        return self.engine.next_token_logprobs(text.tokens, text.positions)

    def width(self) -> int:
        """How many tokens a distribution has."""
        assert isinstance(self.engine, NextTokenEngine)
        return int(self.engine.next_token_logprobs([prefix_token_id(self.engine.tokenizer) or 0], [0]).shape[1])

    def _tasks(self) -> list[Task]:
        if not self.section.prompts:
            return []
        benchmarks = [BenchmarkSpec.model_validate(one) for one in self.task["benchmarks"]]
        study = Manifest.model_construct(
            name="cell", description="", models=[self.spec], eval=EvalSection(benchmarks=benchmarks)
        )
        with tempfile.TemporaryDirectory(prefix="llmjobs-cell-") as folder:
            return make_tasks(study, Revisions.of(RunFolder(Path(folder)), writes=False))


def write_reference(side: Side, folder: Path) -> dict[str, Any]:
    """Write the distributions of each text that has none yet; return a record for each."""
    width = side.width()
    file_operations.make_folder(folder)
    vocabulary = write_vocabulary(folder, vocabulary_texts(side.engine.tokenizer, width))
    texts, left_out = side.texts(width)
    records = []
    for text in texts:
        side.reporter.phase(f"distributions {text.name}")
        path = folder / f"{text.name}.dist"
        found = _kept(path, text, width)
        if found is None:
            values = side.logprobs(text)
            nll = [_short(-values[at, token]) for at, token in enumerate(text.targets)]
            found = write_distributions(path, text, store(values), nll)
        records.append(
            {
                "source": text.source,
                "index": text.index,
                "tokens": len(text.tokens),
                "positions": len(text.positions),
                "nll": found.nll,
                "sha256": found.sha256,
            }
        )
    return {"records": records, "vocabulary": {"tokens": width, "sha256": vocabulary}, "left_out": left_out}


def _kept(path: Path, text: Text, width: int) -> Distributions | None:
    """What an earlier attempt wrote for this text; None if it is missing or damaged."""
    try:
        found = read_distributions(path)
    except DataError:
        return None
    return found if found.text == text and found.stored.steps.shape[1] == width else None


def compare(side: Side, folder: Path, parts: Path, expected: Mapping[str, str]) -> dict[str, Any]:
    """Compare with each of the reference's texts; return a record for each, or why the two cannot be compared."""
    width, known = side.width(), read_vocabulary(folder)
    if why := same_vocabulary(known, vocabulary_texts(side.engine.tokenizer, width)):
        return {"records": [], "refused": f"its vocabulary is not the reference's: {why}"}
    own = {text.name: text for text in side.texts(width)[0]}
    records, other_tokens = [], []
    for name, sha256 in expected.items():
        side.reporter.phase(f"comparing {name}")
        reference = read_distributions(folder / f"{name}.dist", sha256)
        text = reference.text
        if name not in own or own[name].tokens != text.tokens:
            other_tokens.append(name)
        record = kept_part(parts, text, sha256)
        if record is None:
            values = side.logprobs(text)
            both = min(values.shape[1], reference.stored.steps.shape[1])  # without the fillers that one of them lacks
            stored = Stored(reference.stored.heads, reference.stored.steps[:, :both])
            kl, same = kl_divergence(stored, values[:, :both])
            record = {
                "source": text.source,
                "index": text.index,
                "kl": [_short(one) for one in kl],
                "same_top": [int(one) for one in same],
                "nll": [_short(-values[at, token]) for at, token in enumerate(text.targets)],
            }
            keep_part(parts, text, sha256, record)
        records.append(dict(record))
    differ = None
    if other_tokens:
        differ = (
            f"its tokenizer splits {len(other_tokens)} of {len(expected)} texts into different tokens than the "
            f"reference's (the first: {other_tokens[0]}), so its answers differ for that reason too; the divergence is "
            "over the reference's tokens"
        )
    return {"records": records, "refused": None, "tokens_differ": differ}


def _short(value: float) -> float:
    return float(f"{float(value):.{DIGITS}g}")


def run_side(task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Do what the task asks for.

    Raises:
        LlmjobsError: the model cannot be loaded, a text cannot be read, or a file of the reference was changed.

    """
    logging.basicConfig(level=logging.ERROR, force=True)
    side = Side(task, reporter)
    folder = Path(task["folder"])
    if task["mode"] == "reference":
        return write_reference(side, folder)
    return compare(side, folder, Path(task["parts"]), task["expected"])


if __name__ == "__main__":
    serve(run_side)
