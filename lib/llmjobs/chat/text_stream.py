"""Turn tokens into text as they arrive: whole characters only, no blanks at either end, nothing of a stop text."""

from collections.abc import Callable, Sequence

from llmjobs.stop_strings import may_become_stop, stop_place
from llmjobs.thinking import Marks

UNFINISHED = "\ufffd"


class TextStream:
    """The text of one answer. The joined results of :meth:`add` and :meth:`end` are the answer."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        """``decode`` turns tokens into text; ``stops`` end the answer and are not part of it."""
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        self._ids: list[int] = []
        self._known = self._read = 0
        self._pending = ""
        self._began = False
        self.stopped = False
        """A stop text was found."""

    def add(self, token: int) -> str:
        """Add one token; return the text that is certain so far."""
        self._ids.append(token)
        before = self._decode(self._ids[self._known : self._read])
        now = self._decode(self._ids[self._known :])
        if len(now) <= len(before) or now.endswith(UNFINISHED):
            return ""
        self._known, self._read = self._read, len(self._ids)
        return self._take(now[len(before) :])

    def end(self) -> str:
        """Return the rest of the text, after the last token."""
        if self.stopped:
            return ""
        rest = self._decode(self._ids[self._known :])[len(self._decode(self._ids[self._known : self._read])) :]
        self._known = self._read = len(self._ids)
        text = self._take(rest) + self._pending.rstrip()
        self._pending = ""
        return text

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        self._pending += text
        if not self._began:
            self._pending = self._pending.lstrip() if not self._begins_stop(self._pending) else self._pending
        if (end := stop_place(self._pending, self._stops)) is not None:
            self.stopped = True
            text, self._pending = self._pending[:end].rstrip(), ""
            return text if self._began else text.lstrip()
        return self._release()

    def _release(self) -> str:
        """Hold back trailing blanks and text that may become a stop text."""
        held = may_become_stop(self._pending, self._stops)
        certain = self._pending[: len(self._pending) - held].rstrip()
        if not certain or (not self._began and not certain.strip()):
            return ""
        self._pending = self._pending[len(certain) :]
        text = certain if self._began else certain.lstrip()
        self._began = True
        return text

    def _begins_stop(self, text: str) -> bool:
        return any(stop.startswith(text) or text.startswith(stop) for stop in self._stops)


class ReplyStream:
    """The text of a reply that may begin with thinking. Marks are included; stops only count in the answer."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        decode_all: Callable[[Sequence[int]], str],
        stops: Sequence[str] = (),
        *,
        marks: Marks | None = None,
        begun: bool = False,
    ) -> None:
        """``decode_all`` keeps special tokens, which may be marks; ``begun``: the prompt has opened the block."""
        self._decode_all, self._marks = decode_all, marks
        self._answer = TextStream(decode, stops)
        self._thought = TextStream(decode_all)
        self._ids: list[int] = []
        self._state = "answer" if marks is None else "thinking" if begun else "start"
        self._opening = f"{marks.open}\n" if marks and begun else ""
        self.thinking_tokens = 0
        """Tokens of the thinking so far, including its closing mark."""

    @property
    def stopped(self) -> bool:
        """A stop text was found."""
        return self._answer.stopped

    def add(self, token: int) -> str:
        """Add one token; return the text that is certain so far."""
        if self._marks is None or self._state == "answer":
            return self._answer.add(token)
        self._ids.append(token)
        if self._state == "start":
            begun = self._decode_all(self._ids).lstrip()
            if not begun.startswith(self._marks.open):
                if self._marks.open.startswith(begun):
                    return ""
                self._state = "answer"
                return "".join(map(self._answer.add, self._ids))
            self._state = "thinking"
            return self._think("".join(map(self._thought.add, self._ids)))
        return self._think(self._thought.add(token))

    def end(self) -> str:
        """Return the rest of the text, after the last token."""
        if self._state == "start":
            return "".join(map(self._answer.add, self._ids)) + self._answer.end()
        return self._answer.end() if self._state == "answer" else self._opened(self._thought.end())

    def _think(self, text: str) -> str:
        assert self._marks is not None
        self.thinking_tokens = len(self._ids)
        if self._marks.close in self._decode_all(self._ids[-4 * len(self._marks.close) :]):
            self._state = "answer"
            text += self._thought.end() + "\n\n"
        return self._opened(text)

    def _opened(self, text: str) -> str:
        opening, self._opening = self._opening, ""
        return opening + text
