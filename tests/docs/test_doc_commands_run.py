"""Run every complete llmjobs command of the documentation, one after another in one folder, as a person would.

What needs the hub gets the stand-in: each name of a model serves one layer of a demo model, MMLU a few made rows a
subject. The commands share an interpreter's start: that ``llmjobs`` itself starts is seen by every other test.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_checks import is_placeholder
from doc_commands import ROOT, Command, all_commands
from safetensors.torch import load_file, save
from warm_processes import WarmCommands

sys.path += [str(ROOT / "tests" / "hub"), str(ROOT / "tests" / "benchmarks")]

from benchmark_samples import SAMPLES  # noqa: E402
from hub_world import parquet  # noqa: E402
from standin import StandIn  # noqa: E402
from standin_repos import Repo  # noqa: E402

from llmjobs.benchmarks.registry import benchmark_class  # noqa: E402
from llmjobs.demo import DEMO_MODELS  # noqa: E402
from llmjobs.exit_codes import EXIT_NONE_FITS, EXIT_OK  # noqa: E402
from llmjobs.report.write.notes import MACHINES, MISSING  # noqa: E402

pytestmark = pytest.mark.slow
TOKEN = "hf_standInTokenThatMustNeverBeShown"
EXAMPLE = "docs/adding-a-benchmark.md"
NEVER_ENDS = {"serve"}
OTHERS = {"--ray"}
"""Options whose commands another suite runs: ``tests/cluster``."""
ORDER = (
    "benchmarks",
    "manifest",
    "doctor",
    "fetch",
    "plan",
    "run",
    "eval",
    "converse",
    "mtbench",
    "matrix",
    "chat",
    "report",
    "choose",
)
MODELS = ("Qwen/Qwen2.5-0.5B-Instruct",)
"""Named in commands; those of the manifests are found there."""
GATED = "meta-llama/"


def whole_commands() -> list[tuple[str, ...]]:
    """Words of every command that can be run unchanged, each once; commands that make results come first."""
    found = [c for c in all_commands() if c.words[0] == "llmjobs" and c.page != EXAMPLE and not is_placeholder(c)]
    words = list(dict.fromkeys(c.words for c in found if _is_whole(c)))
    return sorted(words, key=lambda one: ORDER.index(one[1]))


def _is_whole(command: Command) -> bool:
    """In a sentence ``llmjobs eval`` only names the command."""
    if OTHERS & {*command.words}:
        return False
    alone = {"benchmarks", "doctor", "chat"}
    named = len(command.words) > 2 or command.words[1] in alone
    return named and command.words[1] not in NEVER_ENDS and not command.words[1].startswith("-")


def _hub_models() -> set[str]:
    """Every model of the hub that a manifest or a command names."""
    named = [one for path in (ROOT / "manifests").glob("*.yaml") for one in yaml.safe_load(path.read_text())["models"]]
    ids = {one if isinstance(one, str) else one["id"] for one in named} | set(MODELS)
    return {one for one in ids if not one.startswith("llmjobs/")}


def _datasets() -> dict[str, Repo]:
    """The benchmarks' data sets with their sample rows, MMLU with every subject."""
    configs: dict[str, dict[str, dict[str, list[dict[str, object]]]]] = {}
    for name, (subject, samples) in SAMPLES.items():
        found = benchmark_class(name)
        assert found.hub is not None
        for one in found.subjects if name == "mmlu" else (subject,):
            config = (found.hub.config or "default").format(subject=one)
            rows = {split: [r | {"subject": one} if name == "mmlu" else r for r in rs] for split, rs in samples.items()}
            configs.setdefault(found.hub.path, {})[config] = rows
    return {path: _dataset(inside) for path, inside in configs.items()}


def _dataset(configs: dict[str, dict[str, list[dict[str, object]]]]) -> Repo:
    card, files = "---\nconfigs:\n", {}
    for config, splits in configs.items():
        card += f"- config_name: {config}\n  data_files:\n"
        for split, rows in splits.items():
            files[f"{config}/{split}-00000-of-00001.parquet"] = parquet(rows)
            card += f"  - {{split: {split}, path: {config}/{split}-*}}\n"
    return Repo({"README.md": f"{card}---\n".encode(), **files})


def _one_layer() -> dict[str, bytes]:
    """The files of the smallest demo model with its first layer alone: what is run here is the commands."""
    folder = DEMO_MODELS["demo-tiny"]
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    weights = load_file(folder / "model.safetensors")
    kept = {name: one for name, one in weights.items() if not re.match(r"model\.layers\.[1-9]", name)}
    config = json.loads(files["config.json"]) | {"num_hidden_layers": 1}
    config.pop("layer_types", None)
    return files | {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(kept, {"format": "pt"}),
    }


SMALLER = {"chat": ("conversations: 24", "conversations: 4"), "matrix": ("repetitions: 3", "repetitions: 1")}
"""What the commands run of two manifests, which take minutes as they are: what is tried here is the commands."""


def _write_smaller(folder: Path) -> None:
    """A manifest in the working folder comes before a bundled one."""
    folder.mkdir()
    for name, (old, new) in SMALLER.items():
        text = (ROOT / "manifests" / f"{name}.yaml").read_text(encoding="utf-8")
        assert text.count(old) == 1
        (folder / f"{name}.yaml").write_text(text.replace(old, new), encoding="utf-8")


class Desk:
    """A folder, an environment and a hub, in which commands run."""

    def __init__(self, folder: Path, hub_url: str) -> None:
        self.folder = folder
        self.warm: WarmCommands
        self.done: dict[tuple[str, ...], subprocess.CompletedProcess[str]] = {}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "LLMJOBS_"))},
            "HF_ENDPOINT": hub_url,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": TOKEN,
            "LLMJOBS_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """Run a command once; what a report or a choice reads is made first."""
        if words not in self.done:
            if words[1] in ("report", "choose"):
                for place in words[2:]:
                    self._need(Path(place))
            once = ["--dry-run"] if words[1] == "matrix" and "--set" in words else []  # the plain one runs whole
            said = "My name is Ben.\n" if words[1] == "chat" else ""
            self.done[words] = self.warm.run([*words[1:], *once], self.folder, said)
        return self.done[words]

    def _need(self, place: Path) -> None:
        """Make what a report's command line names: a run by its manifest, another machine's, a table of answers."""
        if place == Path("results/colab"):
            self._need(Path("results/laptop"))
            shutil.copytree(self.folder / "results" / "laptop", self.folder / place, dirs_exist_ok=True)
        elif place.parent == Path("results") and not (self.folder / place / "summary.json").exists():
            makers = [one for one in whole_commands() if f"manifests/{place.name}.yaml" in one and "--set" not in one]
            self.run(
                next(
                    one
                    for one in makers
                    if one[1] in {"run", "eval", "matrix", "converse", "mtbench"} and "--dry-run" not in one
                )
            )
        elif place == Path("predictions.csv"):
            self._write_predictions()

    def _write_predictions(self) -> None:
        lines = ["study,device,model,subject,doc_id,gold,prediction"]
        for study in ("study-1", "study-2"):
            for model, letters in (("one", "ABCDABCDAB"), ("two", "ABCAAACDBB")):
                pairs = enumerate(zip("ABCDABCDAB", letters, strict=True))
                lines += [f"{study},cuda,{model},astronomy,{at},{gold},{answer}" for at, (gold, answer) in pairs]
        (self.folder / "predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        questions = self.folder / "mmlu" / "test"
        questions.mkdir(parents=True, exist_ok=True)
        rows = [f"Which is letter {at}?,first,second,third,fourth,{gold}" for at, gold in enumerate("ABCDABCDAB")]
        (questions / "astronomy.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    model = _one_layer()
    with StandIn() as hub:
        hub.accounts = {TOKEN: "ada"}
        for name in _hub_models():
            gated = name.startswith(GATED)
            hub.models[name] = Repo(dict(model), gated=gated, allowed={TOKEN} if gated else set())
        hub.datasets = _datasets()
        found = Desk(tmp_path_factory.mktemp("desk"), hub.url)
        _write_smaller(found.folder / "manifests")
        with WarmCommands(found.environment) as found.warm:
            yield found


@pytest.mark.parametrize("words", whole_commands(), ids=" ".join)
def test_it_runs(words: tuple[str, ...], desk: Desk) -> None:
    ended = desk.run(words)
    # whether a candidate is fast enough for a limit of choose depends on this machine
    allowed = (EXIT_OK, EXIT_NONE_FITS) if words[1] == "choose" and "--decode" in words else (EXIT_OK,)
    assert ended.returncode in allowed, f"{' '.join(words)}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
    assert "Traceback" not in ended.stderr and TOKEN not in ended.stdout + ended.stderr


def accuracy_columns(text: str) -> list[list[str]]:
    """Model, accuracy with its interval, macro average and questions, of each line of the table."""
    found = re.findall(r"^(demo-\w+) +(\d\S+%) (\(\S+\)) +(\S+%) +([\d,]+) ", text, flags=re.M)
    assert [line[0] for line in found] == list(DEMO_MODELS), text
    return [list(line) for line in found]


def test_the_demo_gives_what_the_readme_and_its_page_print(desk: Desk) -> None:
    printed = desk.run(("llmjobs", "run", "manifests/demo.yaml")).stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert accuracy_columns(printed) == accuracy_columns(readme)
    (line,) = re.findall(r"^demo-base, conversations: (history on .*)$", readme, flags=re.M)
    assert line in printed
    summary = json.loads((desk.folder / "results" / "demo" / "summary.json").read_text(encoding="utf-8"))
    by_subject: dict[str, list[int]] = {}
    for model in summary["eval"]["models"]:
        for part in model["benchmarks"][0]["subjects"]:
            by_subject.setdefault(part["subject"], []).append(part["correct"])
    page = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    in_page = re.findall(r"^\| ([a-z_]+) \| (\d+) \| (\d+) \| (\d+) \|$", page, flags=re.M)
    assert {subject: list(map(int, counts)) for subject, *counts in in_page} == by_subject


def test_results_are_where_the_assignment_says(desk: Desk) -> None:
    """Places that docs/assignment.md names, for the commands that ran."""
    named = {
        "eval manifests/small.yaml": ["results/small/summary.json", "results/small/environment.json"],
        "eval manifests/laptop.yaml": ["results/laptop/eval", "results/laptop/summary.json"],
        "matrix manifests/matrix.yaml": ["results/matrix/summary.json", "results/matrix/figures/matrix-times.png"],
        "report results/small --html": [
            "results/small/report.pdf",
            "results/small/notes.md",
            "results/small/report.html",
        ],
        "chat": ["results/chat/chat/001/records.jsonl", "results/chat/chat/001/checkpoint.pkl"],
        "mtbench manifests/mtbench.yaml": ["results/mtbench/mtbench"],
    }
    for command, places in named.items():
        assert desk.run(("llmjobs", *command.split())).returncode == 0
        for place in places:
            assert (desk.folder / place).exists(), f"llmjobs {command} leaves no {place}"
    portfolio = next(one for one in whole_commands() if "portfolio/report.pdf" in one)
    assert desk.run(portfolio).returncode == 0
    notes = (desk.folder / "portfolio" / "notes.md").read_text(encoding="utf-8")
    unanswered = [question for question, missing in MISSING.items() if missing in notes]
    assert unanswered == [MACHINES]  # one machine here
    assert list((desk.folder / "results" / "small" / "eval").rglob("checkpoint.pkl"))
