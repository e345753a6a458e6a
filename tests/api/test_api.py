"""The Python interface: runs, interrupts, results as tables and as HTML."""

import ast
import base64
import json
import os
import signal
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest
from api_runs import OVERRIDES, STUDY, count, once_there_are, records_of

import llmjobs
from llmjobs.errors import DataError, ManifestError, StoppedError
from llmjobs.work import run as study_module
from llmjobs.work.signals import CAUGHT

LIBRARY = Path(llmjobs.__file__).parent


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> llmjobs.Results:
    return llmjobs.run(STUDY, results=tmp_path_factory.mktemp("unbroken"), overrides=OVERRIDES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_clear_error_and_the_same_call_goes_on(unbroken, tmp_path, number):
    whole, before = records_of(unbroken.folder.parent), [signal.getsignal(one) for one in CAUGHT]

    def stop() -> None:
        os.kill(os.getpid(), number)

    with once_there_are(20, tmp_path, stop), pytest.raises(StoppedError, match=r"Progress is saved.*to resume") as end:
        llmjobs.run(STUDY, results=tmp_path, overrides=OVERRIDES)
    assert "\n" not in str(end.value) and end.value._render_traceback_() == [f"StoppedError: {end.value}"]
    assert [signal.getsignal(one) for one in CAUGHT] == before
    assert 20 <= count(tmp_path) < count(unbroken.folder.parent)
    assert not llmjobs.Results(tmp_path / STUDY).figures()
    llmjobs.run(STUDY, results=tmp_path, overrides=OVERRIDES, report=False)
    assert records_of(tmp_path) == whole


def test_an_interrupt_before_the_first_unit(tmp_path, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(study_module, "describe_machine", interrupted)
    with pytest.raises(StoppedError):
        llmjobs.run(STUDY, results=tmp_path, overrides=OVERRIDES)


def test_in_another_thread(unbroken, tmp_path):
    before, found = [signal.getsignal(one) for one in CAUGHT], []
    during = []

    def work() -> None:
        found.append(llmjobs.run(STUDY, results=tmp_path, overrides=OVERRIDES, report=False))

    with once_there_are(5, tmp_path, lambda: during.extend(signal.getsignal(one) for one in CAUGHT)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert records_of(tmp_path) == records_of(unbroken.folder.parent)
    assert during == before == [signal.getsignal(one) for one in CAUGHT]
    assert found[0].folder == tmp_path / STUDY


def test_nothing_below_the_command_line_ends_the_process():
    """A notebook's kernel is such a process."""
    # os._exit of a child process whose parent is gone, and half a minute after a SIGTERM, which ends a kernel anyhow
    children = {"machine/child.py", "work/signals.py"}
    for path in LIBRARY.rglob("*.py"):
        name = str(path.relative_to(LIBRARY))
        if name in {"cli.py", *children}:
            continue
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        raised = {
            ast.unparse(node.exc)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Raise) and node.exc
        }
        assert not calls & {"sys.exit", "os._exit", "exit", "quit", "os.abort", "os.execv", "SystemExit"}, name
        assert "SystemExit" not in raised, name


def test_errors_are_raised_and_nothing_exits(tmp_path):
    with pytest.raises(ManifestError, match="No such file"):
        llmjobs.run("nothing.yaml", results=tmp_path)
    with pytest.raises(ManifestError, match="pass them to load_manifest"):
        llmjobs.run(llmjobs.load_manifest("smoke"), results=tmp_path, overrides=["name=x"])
    with pytest.raises(DataError, match="contains no run"):
        llmjobs.Results(tmp_path)


def test_a_failed_unit_is_in_the_results(tmp_path, caplog):
    overrides = ["models=[./nowhere]", "eval.benchmarks[0].subjects=[letters]"]
    found = llmjobs.run(STUDY, results=tmp_path, overrides=overrides)
    assert [*found.failed.values()] and all("there is no folder ./nowhere" in line for line in found.failed.values())
    assert "no report: " in caplog.text
    assert "there is no folder" in found._repr_html_()
    with pytest.raises(DataError, match="has no records of 'eval'; it has none"):
        found.records()


def test_results_folder_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMJOBS_RESULTS", str(tmp_path / "there"))
    study = llmjobs.load_manifest(STUDY, [*OVERRIDES, "eval.benchmarks[0].subjects=[letters]"])
    assert llmjobs.run(study, report=False).folder == tmp_path / "there" / STUDY


def test_tables(unbroken):
    assert unbroken.jobs == ["eval"]
    records = unbroken.records()
    lines = [json.loads(line) for content in records_of(unbroken.folder).values() for line in content.splitlines()]
    assert len(records) == len(lines) > 100
    assert records["correct"].sum() == sum(bool(line["correct"]) for line in lines)
    assert set(records["unit"]) == {f"eval/demo-tiny/demo.{subject}" for subject in records["subject"]}
    table = unbroken.table()
    assert table.equals(unbroken.accuracy()) and list(table["model"]) == ["demo-tiny"]
    scored = records[records["status"] != "error"]
    assert table["acc"][0] == pytest.approx(scored["correct"].astype(bool).mean(), abs=1e-6)
    assert len(unbroken.records("eval/demo-tiny")) == len(records)


@pytest.mark.parametrize("job", ["evl", "", ".", "..", "eval/../eval", "/", "converse"])
def test_records_of_no_job(unbroken, job):
    with pytest.raises(DataError, match="it has eval"):
        unbroken.records(job)


def test_a_torn_last_line_is_left_out(unbroken, tmp_path):
    (tmp_path / "manifest.yaml").write_text("models: [a]\n")
    unit = tmp_path / "eval" / "m" / "demo.letters"
    unit.mkdir(parents=True)
    (unit / "records.jsonl").write_text('{"model":"m","correct":true}\n{"model":"m","corr')
    found = llmjobs.Results(tmp_path)
    assert len(found.records()) == 1
    assert "No job of this run has finished yet" in found._repr_html_()
    with pytest.raises(DataError, match="nothing"):
        found.table("nothing")


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def page_of(found: llmjobs.Results) -> Page:
    page = Page()
    page.feed(found._repr_html_())
    return page


def test_a_notebook_shows_tables_and_figures(unbroken):
    page = page_of(unbroken)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == 1 and "demo-tiny" in page.text and "macro_acc" in page.text
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(unbroken.figures()) > 3
    for source, path in zip(images, unbroken.figures(), strict=True):
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data) == path.read_bytes()
    assert repr(unbroken) == f"Results({str(unbroken.folder)!r})"


def test_text_of_others_is_shown_not_obeyed(unbroken, tmp_path):
    evil = "<script>alert(1)</script>"
    summary = unbroken.summary
    summary["eval"]["models"][0]["model"] = evil
    summary["eval"]["models"][0]["benchmarks"][0]["benchmark"] = "<img src=x onerror=alert(2)>"
    summary["eval"]["units_failed"] = [{"unit": evil, "error": f"</p>{evil}"}]
    folder = tmp_path / "a&lt;<b>"
    (folder / "figures").mkdir(parents=True)
    (folder / "manifest.yaml").write_text("models: [a]\n")
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "figures" / '"><script>.png').write_bytes(b"png")
    page = page_of(llmjobs.Results(folder))
    tags = {tag for tag, _ in page.tags}
    assert tags == {"h4", "h5", "table", "thead", "tbody", "tr", "th", "td", "p", "img"}
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == ['"><script>']
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(evil) == 3 and "a&lt;<b>" in page.text
