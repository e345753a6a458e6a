"""Checkpoints: any damage is noticed, the generation before serves, nothing foreign is run."""

import hashlib
import io
import os
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.errors import RunFolderError
from llmjobs.work import checkpoint

STATE = {
    "declared": {"a": 1, "b": [None, True, 2.5, "ü"]},
    "steps_done": 3,
    "big": 2**70,
    "raw": b"\0\1",
    "pair": (1, (2,)),
}


def packed(payload: bytes) -> bytes:
    return b"llmjobs checkpoint 1\n" + hashlib.sha256(payload).digest() + payload


def test_round_trip_and_previous(tmp_path):
    path = tmp_path / "checkpoint.pkl"
    assert checkpoint.load(path) is None
    checkpoint.save(path, {"n": 1})
    checkpoint.save(path, STATE)
    assert checkpoint.load(path).state == STATE
    assert checkpoint.read(checkpoint.previous_of(path)) == {"n": 1}
    assert not list(tmp_path.glob("*.tmp"))


def test_every_flipped_byte_and_every_length_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.pkl"
    checkpoint.save(path, {"n": 1})
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
    damaged += [whole[:i] for i in range(len(whole))]
    for data in damaged:
        path.write_bytes(data)
        found = checkpoint.load(path)
        assert found.state == {"n": 1}
        assert "continuing from checkpoint.pkl.previous" in found.remark


def test_both_generations_damaged(tmp_path):
    path = tmp_path / "checkpoint.pkl"
    checkpoint.save(path, {"n": 1})
    checkpoint.save(path, STATE)
    path.write_bytes(b"")
    checkpoint.previous_of(path).write_bytes(b"other")
    with pytest.raises(RunFolderError, match=r"pkl is empty or cut off; .*previous is not a checkpoint"):
        checkpoint.load(path)


def test_another_version_is_told(tmp_path):
    path = tmp_path / "checkpoint.pkl"
    checkpoint.save(path, {"n": 1})
    checkpoint.save(path, STATE)
    path.write_bytes(path.read_bytes().replace(b"checkpoint 1\n", b"checkpoint 2\n"))
    found = checkpoint.load(path)
    assert found.state == {"n": 1}
    assert "has version 2, but this llmjobs reads version 1; continuing from checkpoint.pkl.previous" in found.remark


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps({"a": Evil()}),
        pickle.dumps({"a": Evil()}, protocol=0),
        b"cos\nmkdir\n(S'evil-was-here'\ntR.",
        pickle.dumps({"a": io.BytesIO}),
        b"\x80\x05}r\xff\xff\xff\x7f.",
        b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05K\x01.",
        b"",
        b"\x80\x05\x8c\x02os\x8c\x05mkdir\x93\x8c\revil-was-here\x85R.",
        b"\x80\x02cos\nmkdir\nX\r\0\0\0evil-was-here\x85R.",
        b"(ios\nmkdir\nS'evil-was-here'\n.",
        b"(cos\nmkdir\nS'evil-was-here'\no.",
        b"\x80\x02cos\nmkdir\n)\x81}b.",
        b"\x80\x02}}(X\x05\0\0\0queryX\x01\0\0\0aub.",
        b"\x80\x02\x82\x01.",
        b"Pevil-was-here\n.",
        b"\x80\x05\x97\x98.",
        b"\x80\x05}\x94h\x00h\x00s.",
        b"\x80\x05]\x94h\x00a.",
        b"\x80\x05}K\x00]\x94h\x00as.",
        b"\x80\x05]\x94" + b"".join(b"]\x94(h%ch%ce" % (n, n) for n in range(90)) + b"}K\x00h\x5as.",
        b"\x80\x05" + b"(" * 100_000 + b".",
        b"\x80\x05" + b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
    ids=[
        "reduce",
        "reduce-0",
        "global",
        "class",
        "huge-memo",
        "huge-bytes",
        "no-mapping",
        "empty",
        "stack-global",
        "global-2",
        "inst",
        "obj",
        "newobj-build",
        "build",
        "extension",
        "persistent",
        "buffer",
        "key-of-itself",
        "holds-itself",
        "deep-in-itself",
        "doubling",
        "marks",
        "deep",
    ],
)
def test_a_foreign_pickle_is_refused_and_runs_nothing(tmp_path, monkeypatch, payload):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pkl"
    path.write_bytes(packed(payload))
    with pytest.raises(RunFolderError):
        checkpoint.load(path)
    assert not (tmp_path / "evil-was-here").exists()


def test_the_payloads_above_would_work_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(b"\x80\x05\x8c\x02os\x8c\x05mkdir\x93\x8c\revil-was-here\x85R.")  # noqa: S301
    assert (tmp_path / "evil-was-here").exists()


OPCODES = st.sampled_from([bytes([code]) for code in range(256)])
PICKLES = st.lists(OPCODES | st.binary(max_size=6), max_size=40).map(lambda parts: b"\x80\x05" + b"".join(parts) + b".")


@given(st.binary(max_size=200) | PICKLES)
def test_any_payload_with_a_right_checksum_is_a_mapping_or_damage(tmp_path_factory, payload):
    path = tmp_path_factory.mktemp("fuzz") / "checkpoint.pkl"
    path.write_bytes(packed(payload))
    began = time.process_time()
    try:
        assert isinstance(checkpoint.read(path), dict)
    except checkpoint.DamagedCheckpointError as error:
        assert "\n" not in str(error)
    assert time.process_time() - began < 5
