"""Tokens into text: however the text falls into tokens, the pieces make up the same answer."""

from hypothesis import given
from hypothesis import strategies as st

from llmjobs.chat.text_stream import ReplyStream, TextStream
from llmjobs.thinking import KNOWN, split_reply


def run(chunks: list[bytes], stops=()) -> tuple[str, TextStream]:
    stream = TextStream(lambda ids: b"".join(chunks[i] for i in ids).decode("utf-8", "replace"), stops)
    said = ""
    for place in range(len(chunks)):
        said += stream.add(place)
        if stream.stopped:
            break
    return said + stream.end(), stream


@st.composite
def pieces(draw):
    text = draw(st.text(alphabet="ab \nU:é日🙂", max_size=30)).encode()
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)) | {0, len(text)})
    return [text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


@given(pieces(), st.sampled_from([(), ("\nU:",), ("ab", "U"), ("日🙂",)]))
def test_the_pieces_make_up_the_answer(chunks, stops):
    whole = b"".join(chunks).decode()
    ends = [whole.find(stop) for stop in stops if stop in whole]
    said, stream = run(chunks, stops)
    assert said == whole[: min(ends, default=len(whole))].strip()
    assert stream.stopped == bool(ends)


def test_half_a_character_waits_and_a_stop_never_shows():
    chunks = [b" Hi ", *(bytes([byte]) for byte in "é".encode()), b"\nUs", b"er: x"]
    stream = TextStream(lambda ids: b"".join(chunks[i] for i in ids).decode("utf-8", "replace"), ["\nUser:"])
    assert [stream.add(i) for i in range(5)] == ["Hi", "", " é", "", ""]
    assert stream.stopped and stream.end() == ""


def test_a_broken_character_at_the_end_is_not_lost():
    assert run([b"a", b"\xff"])[0] == "a\ufffd"


def test_thinking_is_followed_token_by_token():
    """Marks may be special tokens, which the answer's decoding leaves out; stops count in the answer alone."""
    words = ["<think>", "Is", " it", " STOP", " B?", "</think>", "\n\n", "B", " it is.", "STOP", "more"]
    special = {0, 5}

    def decode(ids):
        return "".join(words[i] for i in ids if i not in special)

    def decode_all(ids):
        return "".join(words[i] for i in ids)

    for begun in (False, True):
        stream = ReplyStream(decode, decode_all, ["STOP"], marks=KNOWN[0], begun=begun)
        text = ""
        for token in range(1 if begun else 0, len(words)):
            text += stream.add(token)
            if stream.stopped:
                break
        text += stream.end()
        said = split_reply(text)
        assert (said.thinking, said.answer) == ("Is it STOP B?", "B it is.")
        assert stream.thinking_tokens == (5 if begun else 6)
    plain = ReplyStream(decode, decode_all, ["STOP"], marks=KNOWN[0])
    assert "".join([*map(plain.add, [7, 8, 9]), plain.end()]) == "B it is."
