"""A GGUF file of a repository on the hub: one file is fetched, found offline, and an unclear choice is reported."""

import io
from typing import Any

import pytest
from hub_world import World
from standin_repos import Repo

from llmjobs import fetch
from llmjobs.engines import registry
from llmjobs.engines.llama_cpp.locate import first_part
from llmjobs.errors import ModelError
from llmjobs.manifest import Manifest
from llmjobs.manifest.models import ModelSpec

REPO = "maker/Small-GGUF"
FILES = {
    "README.md": b"#",
    "small-Q4_K_M.gguf": b"GGUF four" * 50,
    "small-Q8_0.gguf": b"GGUF eight" * 70,
    "split-F16-00001-of-00002.gguf": b"GGUF one" * 10,
    "split-F16-00002-of-00002.gguf": b"GGUF two" * 10,
}


@pytest.fixture
def quants(world: World) -> World:
    """The stand-in hub with a repository of GGUF files."""
    world.hub.models[REPO] = Repo(dict(FILES))
    return world


def run(model: Any) -> tuple[int, str]:
    out = io.StringIO()
    study = {"name": "s", "models": [model], "eval": {"benchmarks": ["demo"]}}
    return fetch.run(Manifest.model_validate(study), stream=out), out.getvalue()


@pytest.mark.parametrize(("which", "names"), [("Q4_K_M", ["small-Q4_K_M.gguf"]), ("F16", sorted(FILES)[-2:])])
def test_only_the_file_that_is_named_is_fetched(quants: World, which: str, names: list[str]) -> None:
    spec = ModelSpec.model_validate(f"{REPO}:{which}")
    code, text = run(f"{REPO}:{which}")
    assert code == 0, text
    located = registry.locate(spec)
    assert located.source == f"{REPO}:{names[0]}" and located.revision == quants.hub.models[REPO].commit
    path = first_part(located)
    assert path is not None
    assert sorted(one.name for one in path.parent.iterdir()) == names
    assert registry.weight_file_bytes(spec, located) == sum(len(FILES[name]) for name in names)
    quants.go_offline()
    assert registry.locate(spec) == located
    assert run(f"{REPO}:{which}")[0] == 0


def test_what_is_unclear_or_missing_is_one_line(quants: World) -> None:
    code, text = run(REPO)
    assert code != 0 and f"{REPO} has several GGUF files; name one as {REPO}:NAME" in text
    code, text = run(f"{REPO}:Q2_K")
    assert code != 0 and f"{REPO} has no GGUF file Q2_K; it has small-Q4_K_M.gguf" in text
    quants.go_offline()
    with pytest.raises(ModelError):
        registry.locate(ModelSpec.model_validate(f"{REPO}:Q8_0"))
