"""Settings and fixtures of the whole suite."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from random_llama import make_llama

settings.register_profile(
    "llmjobs", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("llmjobs")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are the parallelism; torch reads it when it is imported
ROOT = Path(__file__).parents[1]

TOGETHER = {
    "cluster": "cluster",
    "mtbench/test_mtbench_cluster.py": "cluster",
    "container/test_cluster_image.py": "cluster",
    "packaging": "packaging",
}
"""Files and folders of which never two run at a time. Clusters look for Ray's processes on the whole machine; packages
are built in the working tree and installed into one environment."""
LONGEST = (
    "docs/test_doc_commands_run.py",
    "prepare/test_plan_shipped.py",
    "cluster",
    "container/test_image.py",
    "packaging",
    "crash/test_job_boundaries.py",
)
"""Begin first, so that no process is left with one of them at the end."""
SPREAD = ("engines/test_every_causal_lm.py", "engines/test_loading_report.py", "test_messages.py")
"""Long files whose tests share nothing: they come last and fill what is left. Each other file is run in one process,
which pays for its fixtures once."""


def _is_in(item: pytest.Item, places: Iterable[str]) -> str | None:
    """Return the first of ``places`` that is the test's file or a folder above it."""
    return next((place for place in places if item.path.is_relative_to(ROOT / "tests" / place)), None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say for ``--dist loadgroup`` which tests stay in one process, and in which order they begin."""
    if config.getoption("dist", "no") != "loadgroup":
        return
    for item in items:
        if place := _is_in(item, TOGETHER):
            item.add_marker(pytest.mark.xdist_group(TOGETHER[place]))
        elif not _is_in(item, SPREAD):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if place := _is_in(item, LONGEST):
        return LONGEST.index(place)
    return len(LONGEST) + bool(_is_in(item, SPREAD))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real benchmark data beside the checkout (or LLMJOBS_SHARED); tests that need it skip aloud without it."""
    path = Path(os.environ.get("LLMJOBS_SHARED", ROOT.parent / "shared")) / "data"
    if not path.is_dir():
        pytest.skip(f"no benchmark data at {path}: set LLMJOBS_SHARED to the folder that holds data/")
    return path


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Logs that other tools wrote, and odd tables, beside the checkout; tests that need them skip aloud without."""
    path = Path(os.environ.get("LLMJOBS_SHARED", ROOT.parent / "shared")) / "cases"
    if not path.is_dir():
        pytest.skip(f"no cases at {path}: set LLMJOBS_SHARED to the folder that holds cases/")
    return path


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path_factory, monkeypatch) -> Path:
    """What one test finds out about a model, another one does not know."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LLMJOBS_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def mmlu_rows(tmp_path_factory) -> Path:
    """Made-up rows in the original CSV layout, two subjects."""
    folder = tmp_path_factory.mktemp("mmlu")
    for subject in ("astronomy", "business_ethics"):
        for split, count in (("dev", 5), ("test", 30)):
            (folder / split).mkdir(exist_ok=True)
            lines = [
                f'"{subject} {split} {n}: which, ""if any""?",one {n},two {n * 7},three,four,{"ABCD"[n * 7 % 4]}'
                for n in range(count)
            ]
            (folder / split / f"{subject}_{split}.csv").write_text("\n".join(lines) + "\n")
    return folder
