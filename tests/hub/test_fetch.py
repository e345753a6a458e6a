"""``llmjobs fetch`` against the stand-in: sizes first, everything in the cache, and missing files reported."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_world import DATASET, GATED, MODEL, TOKEN, World, dataset_repo

from llmjobs import fetch
from llmjobs.benchmarks.mmlu import MMLU
from llmjobs.benchmarks.rows import load_rows
from llmjobs.errors import DataError
from llmjobs.hub import repositories as hub
from llmjobs.hub.files import DownloadProgress, size_text
from llmjobs.manifest import Manifest

LIB = Path(__file__).parents[2] / "lib"
MMLU_SPEC = {"name": "mmlu", "subjects": ["astronomy", "anatomy"], "num_fewshot": 5}


def study(*models: Any, benchmarks: list[Any] | None = None) -> Manifest:
    wanted = [MMLU_SPEC, "demo"] if benchmarks is None else benchmarks
    return Manifest.model_validate({"name": "s", "models": list(models), "eval": {"benchmarks": wanted}})


def run(manifest: Manifest, **how: Any) -> tuple[int, str]:
    out = io.StringIO()
    return fetch.run(manifest, stream=out, **how), out.getvalue()


def test_sizes_come_first_and_everything_arrives(world: World) -> None:
    code, text = run(study(MODEL, "llmjobs/demo-base"))
    lines = text.splitlines()
    assert code == 0
    assert lines[0].split()[0] == MODEL and lines[0].endswith("to download")
    assert lines[1].split()[0] == DATASET and world.hub.datasets[DATASET].commit[:12] in lines[1]
    assert lines[2].startswith("total ") and lines[3].startswith("complete: with HF_HUB_OFFLINE=1")
    assert len(lines) == 4, "demo model and demo benchmark come along"
    code, text = run(study(MODEL))
    assert code == 0 and "0 B to download" in text and text.count("cached") == 2


def test_dry_run_fetches_nothing(world: World) -> None:
    code, text = run(study(MODEL), dry_run=True)
    assert code == 0 and "to download" in text
    assert not any(seen.store for seen in world.hub.seen)


def test_afterwards_nothing_needs_the_network(world: World) -> None:
    run(study(MODEL))
    world.go_offline()
    before = len(world.hub.seen)
    for subject in ("astronomy", "anatomy"):
        assert load_rows(MMLU, subject, "test").rows and load_rows(MMLU, subject, "fewshot").rows
    assert hub.resolve_model(MODEL) == world.hub.models[MODEL].commit
    code, text = run(study(MODEL))
    assert code == 0 and "0 B to download" in text
    assert len(world.hub.seen) == before


def test_offline_says_what_is_missing(world: World) -> None:
    run(study(MODEL, benchmarks=[{**MMLU_SPEC, "subjects": ["astronomy"]}]))
    world.go_offline()
    code, text = run(study(MODEL, GATED))
    assert code == 3
    assert f"not downloaded: {GATED}: {GATED} is not completely cached and HF_HUB_OFFLINE is set" in text
    assert f"not downloaded: {DATASET}: anatomy: not cached and HF_HUB_OFFLINE is set" in text


def test_one_that_fails_does_not_stop_the_others(world: World) -> None:
    code, text = run(study(GATED, "maker/tinny", MODEL))
    assert code == 3
    assert f"not downloaded: {GATED}: {GATED} is gated and there is no token" in text
    assert "not downloaded: maker/tinny: there is no model maker/tinny on the hub" in text
    assert hub.cached_snapshot("model", MODEL) is not None
    assert load_rows(MMLU, "anatomy", "test").rows


def test_rows_of_a_wrong_form_are_told_now(world: World) -> None:
    world.hub.datasets[DATASET] = dataset_repo()
    _, text = run(study(MODEL, benchmarks=["arc_easy"]))
    assert "not downloaded: allenai/ai2_arc: there is no data set" in text


def test_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"to download, 1\.0 kB free; free some space, or set HF_HOME to another disk"):
        run(study(MODEL))


def test_a_model_asked_for_twice_is_fetched_once(world: World) -> None:
    _, text = run(study(MODEL, {"id": MODEL, "name": "again", "quantization": "4bit"}))
    assert text.count(MODEL) == 1


@pytest.fixture
def environment(world: World) -> Iterator[dict[str, str]]:
    yield {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": world.hub.url,
        "HF_HOME": str(world.home),
        "HF_TOKEN": TOKEN,
        "PYTHONPATH": str(LIB),
    }


@pytest.mark.slow
def test_the_command_shows_no_token_anywhere(world: World, environment: dict[str, str], tmp_path: Path) -> None:
    manifest = tmp_path / "study.yaml"
    manifest.write_text(
        f"models: [{GATED}]\neval:\n  benchmarks:\n    - {{name: mmlu, subjects: [astronomy]}}\n", encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "llmjobs", "-v", "fetch", str(manifest)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "complete:" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    held = [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    assert held == [], "the token is in no file"
    again = subprocess.run(
        [sys.executable, "-m", "llmjobs", "fetch", str(manifest)],
        env=environment | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0 and "0 B to download" in again.stdout, again.stderr


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_471_645_608, "2.5 GB"), (999_950_000, "1.0 GB")]
)
def test_sizes_as_text(size: int, text: str) -> None:
    assert size_text(size) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    with DownloadProgress(2_000_000, screen) as progress:
        progress.name("maker/tiny")
        progress.advance(1_000_000)
    assert "maker/tiny" in screen.getvalue() and "\r" in screen.getvalue()
    monkeypatch.setattr("llmjobs.hub.files.PLAIN_INTERVAL_S", 0.0)
    lines = io.StringIO()
    with DownloadProgress(2_000_000, lines) as progress:
        progress.name("maker/tiny")
        progress.advance(1_000_000)
    assert lines.getvalue().startswith("maker/tiny: 1.0 MB of 2.0 MB, ") and "\r" not in lines.getvalue()
