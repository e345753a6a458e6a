"""Settings and fixtures of the whole suite."""

import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from random_llama import make_llama
from side_by_side import scope_of, turn_of
from warm_processes import WarmChildren

from llmjobs.engines import chat_template
from llmjobs.machine import child

settings.register_profile(
    "llmjobs", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("llmjobs")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are the parallelism; torch reads it when it is imported
os.fsync = os.fstat  # type: ignore[assignment]
"""No test can see what a loss of power would leave, and a disk takes milliseconds for each of the thousands of syncs.
Which of them are asked for, and what follows if one fails, ``crash/faults.py`` plays and checks above this call."""
ROOT = Path(__file__).parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``, hand out tests by file, with the exceptions of ``side_by_side``."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first where tests are run side by side."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: turn_of(item.nodeid))


def pytest_collection_finish() -> None:
    """Leave torch, transformers and every test out of what the garbage collector walks.

    Whenever a model is closed, all garbage is collected: half a second of walking through a million objects that stay.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real benchmark data beside the checkout (or LLMJOBS_SHARED); without it, tests are skipped with a reason."""
    path = Path(os.environ.get("LLMJOBS_SHARED", ROOT.parent / "shared")) / "data"
    if not path.is_dir():
        pytest.skip(f"no benchmark data at {path}: set LLMJOBS_SHARED to the folder that holds data/")
    return path


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Logs of other tools, and odd tables, beside the checkout; without them, tests are skipped with a reason."""
    path = Path(os.environ.get("LLMJOBS_SHARED", ROOT.parent / "shared")) / "cases"
    if not path.is_dir():
        pytest.skip(f"no cases at {path}: set LLMJOBS_SHARED to the folder that holds cases/")
    return path


@pytest.fixture(scope="session", autouse=True)
def not_the_users_cache(tmp_path_factory) -> Iterator[None]:
    """What fixtures of a module find out about a model is not that of earlier runs on this machine either."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LLMJOBS_CACHE", str(tmp_path_factory.mktemp("cache_of_session")))
        yield


@pytest.fixture(scope="module", autouse=True)
def own_cache_folder_of_a_module(tmp_path_factory, not_the_users_cache) -> Iterator[None]:
    """Runs made by a module's fixtures must not depend on which modules ran before on the same worker."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LLMJOBS_CACHE", str(tmp_path_factory.mktemp("cache_of_module")))
        yield


@pytest.fixture(scope="session", autouse=True)
def warm_children(tmp_path_factory) -> Iterator[None]:
    """Children are forks of one process; on macOS, a process that has imported torch cannot be forked safely."""
    if sys.platform != "linux":
        yield
        return
    with TemporaryDirectory(prefix="llmjobs-warm-") as folder, pytest.MonkeyPatch.context() as patch:
        children = WarmChildren(child.Child, f"{folder}/children", "children")
        templates = WarmChildren(subprocess.Popen, f"{folder}/templates", "templates")
        patch.setattr(child, "Child", children)
        patch.setattr(chat_template, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": templates}))
        yield
        children.close()
        templates.close()


NEW_INTERPRETER = child.Child


@pytest.fixture
def new_interpreters(monkeypatch) -> None:
    """Children are new interpreters, as outside of tests."""
    monkeypatch.setattr(child, "Child", NEW_INTERPRETER)
    monkeypatch.setattr(chat_template, "subprocess", subprocess)


@pytest.fixture(scope="session")
def cache_folders(tmp_path_factory) -> Iterator[Path]:
    """Names of folders, one per test; pytest's own numbering would look at all earlier ones."""
    parent = tmp_path_factory.mktemp("caches")
    return (parent / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_cache_folder(cache_folders, monkeypatch) -> Path:
    """What one test finds out about a model, another one does not know."""
    folder = next(cache_folders)
    folder.mkdir()
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
