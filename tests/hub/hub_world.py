"""The stand-in hub, and a process that uses it: endpoint, caches and token are in a temporary folder."""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from standin import StandIn
from standin_repos import Repo

from llmjobs.demo import DEMO_MODELS
from llmjobs.hub import repositories as hub_module

TOKEN = "hf_standInTokenThatMustNeverBeShown"
MODEL, GATED, DATASET = "maker/tiny", "maker/gated", "cais/mmlu"
CARD = """---
configs:
- config_name: astronomy
  data_files:
  - {split: test, path: astronomy/test-*}
  - {split: dev, path: astronomy/dev-*}
- config_name: anatomy
  data_files:
  - {split: test, path: anatomy/test-*}
  - {split: dev, path: anatomy/dev-*}
---
"""
ROWS = [
    {"question": f"Q{n}?", "choices": ["a", "b", "c", "d"], "answer": n % 4, "subject": "astronomy"} for n in range(6)
]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def model_repo(size: int = 300_000, **what: Any) -> Repo:
    folder = DEMO_MODELS["demo-base"]
    files = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    files.setdefault("config.json", b'{"model_type": "llama"}')
    files["model.safetensors"] = bytes(range(256)) * (size // 256)
    files["pytorch_model.bin"] = b"a pickle that nobody asked for"
    return Repo(files, **what)


def dataset_repo(**what: Any) -> Repo:
    files = {"README.md": CARD.encode()}
    for subject in ("astronomy", "anatomy"):
        for split, rows in (("test", ROWS), ("dev", ROWS[:5])):
            files[f"{subject}/{split}-00000-of-00001.parquet"] = parquet([{**r, "subject": subject} for r in rows])
    return Repo(files, **what)


@dataclass
class World:
    """The hub, and the switches of the process that talks to it."""

    hub: StandIn
    home: Path
    patch: pytest.MonkeyPatch

    def log_in(self, token: str | None, *, file: bool = False) -> None:
        self.patch.delenv("HF_TOKEN", raising=False)
        (self.home / "token").unlink(missing_ok=True)
        if token and file:
            (self.home / "token").write_text(token, encoding="utf-8")
        elif token:
            self.patch.setenv("HF_TOKEN", token)

    def go_offline(self) -> None:
        self.patch.setattr(constants, "HF_HUB_OFFLINE", True)
        self.patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    def go_silent(self) -> None:
        """Nobody answers any more, not even on a connection that was kept open."""
        self.hub.__exit__()
        huggingface_hub.utils.close_session()

    def paths(self, method: str = "GET") -> list[str]:
        return [seen.path for seen in self.hub.seen if seen.method == method]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with StandIn() as hub:
        hub.models = {MODEL: model_repo(), GATED: model_repo(gated=True, allowed={TOKEN})}
        hub.datasets = {DATASET: dataset_repo()}
        hub.accounts = {TOKEN: "ada", "hf_other": "ben"}
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        home = tmp_path / "hf"
        settings = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
        if transformers_hub := sys.modules.get("transformers.utils.hub"):
            # it keeps a client of the first test's hub, and waits half a minute for that one's answer
            monkeypatch.setattr(transformers_hub, "_hf_api", None, raising=False)
        for name, found in {
            "HF_ENDPOINT": hub.url,
            "HF_DATASETS_CACHE": home / "datasets",
            "HF_MODULES_CACHE": home / "modules",
            "HF_HUB_OFFLINE": False,
            "DOWNLOADED_DATASETS_PATH": home / "datasets" / "downloads",
            "EXTRACTED_DATASETS_PATH": home / "datasets" / "downloads" / "extracted",
        }.items():
            monkeypatch.setattr(datasets.config, name, found)
        home.mkdir()
        monkeypatch.setattr(hub_module, "FIRST_WAIT_S", 0.01)
        huggingface_hub.HfFileSystem.clear_instance_cache()
        yield World(hub, home, monkeypatch)
        huggingface_hub.utils.close_session() if hasattr(huggingface_hub.utils, "close_session") else None


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are written down instead of waited."""
    waits: list[float] = []
    record: Callable[[float], None] = waits.append
    monkeypatch.setattr(hub_module.time, "sleep", record)
    return waits
