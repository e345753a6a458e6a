"""Rows of parquet data sets from the stand-in, at a pinned commit, and offline."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_world import DATASET, ROWS, TOKEN, World, dataset_repo, parquet

from llmjobs.benchmarks.mmlu import MMLU
from llmjobs.benchmarks.rows import load_rows
from llmjobs.errors import DataError
from llmjobs.hub import datasets
from llmjobs.hub import repositories as hub


def test_rows_by_subject_and_split(world: World) -> None:
    found = load_rows(MMLU, "astronomy", "test")
    assert found.rows == [{k: row[k] for k in ("question", "choices", "answer")} for row in ROWS]
    assert found.revision == world.hub.datasets[DATASET].commit
    assert found.origin == "cais/mmlu/astronomy/test"
    assert len(load_rows(MMLU, "anatomy", "fewshot").rows) == 5


def test_the_same_rows_have_the_same_hash_from_a_folder(world: World, tmp_path: object) -> None:
    folder = world.home / "local" / "astronomy"
    folder.mkdir(parents=True)
    (folder / "test-00000-of-00001.parquet").write_bytes(parquet(ROWS))
    local = load_rows(MMLU, "astronomy", "test", data=str(folder.parent))
    assert local.hash == load_rows(MMLU, "astronomy", "test").hash


def test_a_pinned_revision_needs_the_hub_once(world: World) -> None:
    commit = load_rows(MMLU, "astronomy", "test").revision
    before = len(world.hub.seen)
    assert load_rows(MMLU, "astronomy", "fewshot", revision=commit).revision == commit
    assert len(world.hub.seen) == before, "the split came along with the first"


def test_offline_after_fetching(world: World) -> None:
    online = load_rows(MMLU, "astronomy", "test")
    world.go_offline()
    before = len(world.hub.seen)
    assert load_rows(MMLU, "astronomy", "test") == online
    assert len(world.hub.seen) == before


@pytest.mark.parametrize("cached", ["nothing", "another subject"])
def test_offline_what_is_missing_is_one_line(world: World, cached: str) -> None:
    if cached != "nothing":
        load_rows(MMLU, "anatomy", "test")
    world.go_offline()
    with pytest.raises(DataError) as caught:
        load_rows(MMLU, "astronomy", "test")
    assert "cached and HF_HUB_OFFLINE is set; run 'llmjobs fetch'" in str(caught.value)


def test_offline_another_revision_is_not_taken_for_the_one_asked(world: World) -> None:
    first = load_rows(MMLU, "astronomy", "test").revision
    world.hub.datasets[DATASET].files["README.md"] += b"\nchanged"
    second = load_rows(MMLU, "astronomy", "test").revision
    assert first != second
    world.go_offline()
    assert load_rows(MMLU, "astronomy", "test", revision=first).revision == first
    with pytest.raises(DataError, match="cache"):
        load_rows(MMLU, "astronomy", "test", revision="0" * 40)


def test_private_and_unknown(world: World) -> None:
    world.hub.datasets[DATASET] = dataset_repo(private=True, allowed={TOKEN})
    with pytest.raises(DataError, match="there is no data set cais/mmlu on the hub, or it is private"):
        load_rows(MMLU, "astronomy", "test")
    world.log_in(TOKEN)
    assert load_rows(MMLU, "astronomy", "test").rows


def test_gated(world: World) -> None:
    world.hub.datasets[DATASET] = dataset_repo(gated=True, allowed={TOKEN})
    with pytest.raises(DataError, match="is gated and there is no token; request access at .*/datasets/cais/mmlu"):
        load_rows(MMLU, "astronomy", "test")


def test_an_unknown_configuration(world: World) -> None:
    with pytest.raises(DataError, match=r"cais/mmlu/virology/test: .*virology"):
        load_rows(MMLU, "virology", "test")


def test_a_damaged_file_is_noticed(world: World) -> None:
    world.hub.fail("test-00000-of-00001.parquet/", corrupt=True)
    with pytest.raises(DataError, match=r"was damaged during download \(its hash differs\)"):
        load_rows(MMLU, "astronomy", "test")
    assert load_rows(MMLU, "astronomy", "test").rows


def test_a_row_of_another_form_names_its_place(world: World) -> None:
    files = world.hub.datasets[DATASET].files
    files["astronomy/test-00000-of-00001.parquet"] = parquet([{**ROWS[0], "choices": ["a"]}])
    with pytest.raises(DataError, match=r"cais/mmlu/astronomy/test:1: not a row of mmlu"):
        load_rows(MMLU, "astronomy", "test")


def test_a_busy_hub_is_asked_again(world: World, no_sleep: list[float]) -> None:
    world.hub.fail("GET /api/datasets/", times=2, status=503)
    assert load_rows(MMLU, "astronomy", "test").rows
    assert hub.token_state().source is None


def bomb() -> bytes:
    """A megabyte that unpacks to gigabytes: one long text that every row names."""
    text = pa.array(["x" * (datasets.MAX_CELL_CHARS // 2)]).dictionary_encode()
    stream = io.BytesIO()
    pq.write_table(pa.table({"question": text.take(pa.array([0] * 5000))}), stream)
    return stream.getvalue()


def test_a_parquet_bomb_is_not_unpacked(world: World) -> None:
    files = world.hub.datasets[DATASET].files
    name = next(name for name in files if "astronomy/test" in name)
    files[name] = bomb()
    assert len(files[name]) < 2 << 20
    with pytest.raises(DataError, match=r"unpacks to more than 1,0.. MiB") as caught:
        load_rows(MMLU, "astronomy", "test")
    assert "\n" not in str(caught.value) and str(world.home) not in str(caught.value)
    assert not list(world.home.rglob("*.arrow"))


def test_a_compressed_file_is_not_unpacked(world: World) -> None:
    files = world.hub.datasets[DATASET].files
    for name in [name for name in files if name.startswith("astronomy/")]:
        files[name.replace(".parquet", ".jsonl.gz")] = gzip.compress(b'{"question": "q"}\n')
        files["README.md"] = files["README.md"].replace(name.encode(), name.replace(".parquet", ".jsonl.gz").encode())
        del files[name]
    with pytest.raises(DataError, match="is not parquet, CSV or JSON; compressed files are not unpacked"):
        load_rows(MMLU, "astronomy", "test")
    assert not list(world.home.rglob("*.arrow"))
