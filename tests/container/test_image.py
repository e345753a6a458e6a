"""The CPU image works as the README says, keeps files' owners, survives a kill, and contains no secret."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
TAG = os.environ.get("LLMJOBS_IMAGE", "llmjobs:cpu")
SMOKE = ("eval", "manifests/smoke.yaml", "--limit", "40")
SHORT = ("eval", "manifests/smoke.yaml", "--limit", "2", "--set", "models=[llmjobs/demo-tiny]")
RUNS_AS_ROOT = os.geteuid() == 0
LOCKED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")


def docker(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True)
    assert not check or ended.returncode == 0, ended.stderr
    return ended


def run(results: Path, *arguments: str, options: tuple[str, ...] = (), check: bool = True) -> str:
    """What ``docker run`` wrote to its standard error."""
    return docker("run", "--rm", *options, "-v", f"{results}:/app/results", image(), *arguments, check=check).stderr


@cache
def image() -> str:
    """The image's id: a tag could be moved to another build between two runs that are compared."""
    return docker("image", "inspect", TAG, "--format", "{{.Id}}", check=False).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def need_image() -> None:
    if not shutil.which("docker") or not image():
        pytest.skip(f"no image {TAG} here: make image-cpu")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def records_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("records.jsonl"))}


def owners(folder: Path) -> set[int]:
    return {p.lstat().st_uid for p in [folder, *folder.rglob("*")]}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's command on fewer questions; Docker makes the folder."""
    folder = tmp_path_factory.mktemp("image") / "results"
    run(folder, *SMOKE)
    return folder


def test_size():
    size = int(docker("image", "inspect", image(), "--format", "{{.Size}}").stdout)
    assert size < 2_000_000_000, f"{size / 1e9:.2f} GB"


def test_a_folder_made_by_docker_is_not_roots(unbroken):
    assert owners(unbroken) == {10001}


def test_same_records_as_outside(unbroken, tmp_path):
    from llmjobs.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["eval", "smoke", *SMOKE[2:], "--results", str(tmp_path)])
    assert ended.value.code == 0
    assert records_of(tmp_path) == records_of(unbroken)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_ended_midway_it_goes_on(unbroken, results, how):
    with container(results, *SMOKE) as name:
        wait_for_records(results, name)
        docker(how, name)
        code = docker("inspect", name, "--format", "{{.State.ExitCode}}").stdout.strip()
    assert code == {"kill": "137", "stop": "75"}[how]
    before = records_of(results)
    assert before != records_of(unbroken)
    run(results, *SMOKE)
    assert records_of(results) == records_of(unbroken)


class container:  # noqa: N801 - a context manager, read as a word
    """A container in the background, removed at the end."""

    def __init__(self, results: Path, *arguments: str, options: tuple[str, ...] = ()) -> None:
        self.name = f"llmjobs-test-{os.getpid()}-{time.monotonic_ns()}"
        docker("run", "-d", "--name", self.name, *options, "-v", f"{results}:/app/results", image(), *arguments)

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *_: object) -> None:
        docker("rm", "-f", self.name)


def wait_for_records(results: Path, name: str) -> None:
    deadline = time.monotonic() + 300
    while sum(p.stat().st_size > 0 for p in results.rglob("records.jsonl")) < 3:
        assert time.monotonic() < deadline, docker("logs", name, check=False).stderr
        time.sleep(0.05)


def test_the_job_is_process_1_and_not_root(results):
    with container(results, *SMOKE) as name:
        wait_for_records(results, name)
        lines = docker("top", name, "-eo", "pid,uid,args").stdout.splitlines()[1:]
        inside = docker("exec", name, "/opt/llmjobs/bin/python", "-c", "print(open('/proc/1/cmdline').read())").stdout
    assert [line.split()[1] for line in lines] == [str(results.stat().st_uid)] != ["0"]
    assert "llmjobs" in inside
    assert "eval" in inside


@pytest.mark.skipif(not RUNS_AS_ROOT, reason="changing a folder's owner needs root")
class TestOwner:
    def test_keeps_the_files(self, results):
        os.chown(results, 12345, 54321)
        run(results, *SHORT)
        assert owners(results) == {12345}

    def test_gets_what_root_left_in_runs_and_nothing_else(self, results, tmp_path):
        (results / "smoke").mkdir()
        (results / "smoke" / "manifest.yaml").write_text("")
        (results / "notes").mkdir()
        (results / "smoke" / "link").symlink_to("/etc/hostname")
        os.link(results / "smoke" / "manifest.yaml", tmp_path / "second-name")
        run(results, "manifest", "manifests/smoke.yaml")
        found = {p.name: p.lstat().st_uid for p in [results, *results.rglob("*")]}
        assert found == {"results": 10001, "smoke": 10001, "manifest.yaml": 0, "notes": 0, "link": 0}

    def test_of_a_folder_mounted_by_mistake_stays(self, results):
        (results / "src").mkdir()
        line = run(results, *SHORT, check=False)
        assert owners(results) == {0}
        assert "/app/results cannot be written by user 10001" in line

    def test_other_than_user_is_one_line(self, results):
        line = run(results, *SHORT, options=("--user", "23456"), check=False)
        assert "cannot be written by user 23456; add --user" in line
        assert line.count("\n") == 1

    @pytest.mark.parametrize("user", [None, "23456:23456"])
    def test_locked_down_and_without_network(self, results, user):
        if user:
            os.chown(results, 23456, 23456)
        run(results, *SHORT, options=(*LOCKED, *(("--user", user) if user else ())))
        run(results, "report", "/app/results/smoke", options=(*LOCKED, *(("--user", user) if user else ())))
        assert owners(results) == {23456 if user else 0}
        assert (results / "smoke" / "report.pdf").stat().st_size > 10_000


@pytest.mark.parametrize("option", LOCKED, ids=lambda option: option.strip("-"))
def test_each_lock_alone(results, option):
    """One lock at a time: none of them works only because another one is there."""
    options = (option, "--tmpfs=/tmp") if option == "--read-only" else (option,)
    if option == "--cap-drop=ALL":
        options = (option, "--user", f"{os.geteuid()}:{os.getegid()}")
    run(results, *SHORT, options=options)
    assert records_of(results)


@pytest.mark.skipif(not RUNS_AS_ROOT, reason="changing a folder's owner needs root")
@pytest.mark.parametrize("locks", [(), LOCKED], ids=["open", "locked"])
@pytest.mark.parametrize("user", [None, "owner", "another"])
def test_every_user_on_a_folder_of_somebodys(results, locks, user):
    """The job runs as a user who may write there, or says in one line who may not; never with additional rights."""
    os.chown(results, 23456, 23456)
    given = {"owner": ("--user", "23456:23456"), "another": ("--user", "34567:34567"), None: ()}[user]
    said = run(results, *SHORT, options=(*locks, *given), check=False)
    may = user == "owner" or (user is None and not locks)
    if may:
        assert owners(results) == {23456} and records_of(results)
    else:
        assert not list(results.iterdir())
        assert f"cannot be written by user {0 if user is None else 34567}; add --user" in said
        assert said.count("\n") == 1


def test_no_shell_is_needed(results, tmp_path):
    """With every shell of the image replaced by an empty file the job runs as ever."""
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    looked = docker("run", "--rm", "--entrypoint", "/opt/llmjobs/bin/python", image(), "-c", SHELLS).stdout.split()
    assert looked
    hidden = [part for shell in looked for part in ("-v", f"{empty}:{shell}:ro")]
    run(results, *SHORT, options=(*hidden, *LOCKED, "--user", f"{os.geteuid()}:{os.getegid()}"))
    assert records_of(results)
    entry = json.loads(docker("image", "inspect", image(), "--format", "{{json .Config.Entrypoint}}").stdout)
    assert entry == ["/usr/local/bin/llmjobs-entrypoint"]


SHELLS = """
import os, shutil
found = {os.path.realpath(p) for n in ("sh", "bash", "dash", "zsh", "ash", "busybox") if (p := shutil.which(n))}
print(*sorted(found), sep="\\n")
"""


def test_no_program_has_more_rights_than_who_starts_it():
    found = docker("run", "--rm", "--entrypoint", "/opt/llmjobs/bin/python", image(), "-c", SETUID).stdout.split()
    assert found == []


SETUID = """
import os
for top in ("/usr", "/bin", "/sbin", "/opt", "/etc", "/var", "/app"):
    for folder, _, names in os.walk(top):
        paths = [os.path.join(folder, name) for name in names]
        print(*[path for path in paths if os.lstat(path).st_mode & 0o6000])
"""


def test_a_key_is_in_no_process_list(results):
    secret = "sk-" + "aBcD1234" * 4
    with container(results, *SMOKE, options=("-e", f"OPENAI_API_KEY={secret}", "-e", f"HF_TOKEN={secret}")) as name:
        wait_for_records(results, name)
        assert secret not in docker("top", name, "-eo", "pid,args").stdout
        assert secret not in docker("logs", name).stdout


def test_the_script_gives_the_same_records(results, tmp_path):
    other = tmp_path / "other"
    run(results, *SHORT)
    options = ("--entrypoint", "/opt/llmjobs/bin/python")
    run(other, "jobs/eval.py", *SHORT[1:], options=options)
    assert records_of(other) == records_of(results) != {}


def test_a_token_is_in_no_file_and_no_log(results, tmp_path):
    secret = "hf_" + "aBcD1234" * 4
    (tmp_path / "token").write_text(secret)
    mount = ("-v", f"{tmp_path / 'token'}:/run/secrets/hf:ro", "-e", "HF_TOKEN_PATH=/run/secrets/hf")
    for given in (("-e", f"HF_TOKEN={secret}"), mount):
        assert secret not in run(results, "-v", *SHORT, "--fresh", options=("--network=none", *given))
    assert not [p for p in results.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


def layers() -> Iterator[dict[str, str]]:
    for line in docker("history", "--no-trunc", "--format", "{{json .}}", image()).stdout.splitlines():
        yield json.loads(line)


def test_no_secret_no_cache_and_no_installer_in_a_layer():
    assert not [layer for layer in layers() if "TOKEN" in layer["CreatedBy"]]
    looked = docker("run", "--rm", "--entrypoint", "/opt/llmjobs/bin/python", image(), "-c", LOOK).stdout
    assert json.loads(looked) == []


LOOK = """
import json, shutil
from importlib.util import find_spec
from pathlib import Path
folders = [p for p in ("/root", "/cache", "/tmp", "/var/cache/apt/archives") if Path(p).is_dir()]
files = [str(p) for f in folders for p in Path(f).rglob("*") if p.is_file()]
allowed = {"/root/.bashrc", "/root/.profile", "/var/cache/apt/archives/lock"}
tools = [name for name in ("gcc", "pip", "git", "curl", "wget") if shutil.which(name)]
print(json.dumps(sorted({*files} - allowed) + tools + (["pip module"] if find_spec("pip") else [])))
"""
