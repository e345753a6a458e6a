"""Log-likelihoods from a server, in the way that the probe verified; calls overlap, results are taken in order."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmjobs.benchmarks.scoring_requests import Request, Score
from llmjobs.calls.client import Lookahead
from llmjobs.engines.batches import Batch, UnitPlan
from llmjobs.engines.endpoint.ask import UNREAD, Client, FailedInARow, is_final
from llmjobs.engines.endpoint.logprobs import Tail, option_values
from llmjobs.engines.endpoint.probe import REMEDY, Way, ask_whole, find_way
from llmjobs.engines.pass_time import Budget
from llmjobs.engines.protocol import Extent, ProbeResult, Warn
from llmjobs.errors import AnswerError, ContextFullError, ModelError, RefusedCallError, UnavailableError

log = logging.getLogger(__name__)
DOCS_A_STEP = 16
NOT_FINITE = "the server sent a log-probability that is not a number; check the model's number format on the server"
Doc = Sequence[Request]


class Scorer:
    """Scores docs by calling the server, after :meth:`probe`."""

    token_limit: int | None = None
    path: str = "none"
    """The verified way; ``none`` before the probe."""

    def __init__(self, client: Client, workers: Callable[[], int], warn: Warn = log.warning) -> None:
        """``workers`` questions are asked at the same time."""
        self._client, self._workers, self._warn = client, workers, warn
        self._way: Way | None = None
        self._none: ModelError | None = None
        self._plan: UnitPlan | None = None
        self._order: dict[int, int] = {}
        self._ahead: Lookahead[list[Score]] | None = None
        self._failed = FailedInARow()

    def probe(self, docs: Sequence[Doc] = (), *, most_tokens: int | None = None) -> ProbeResult:
        """Find a way that can be verified; done again in every run, because the server may have changed.

        Raises:
            ModelError: there is no such way.

        """
        if self._none:
            raise self._none
        if self._way is None:
            try:
                self._way = find_way(self._client, docs)
                self.path = self._way.name
            except ModelError as error:
                self._none = error
                raise
        return ProbeResult(self._way.name, self._way.max_difference, self._way.reason)

    def recall(self, found: object) -> None:
        """Do nothing, because an earlier run's probe may no longer apply."""

    def plan(
        self,
        docs: Sequence[Doc],
        *,
        max_length: int,
        batch_tokens: int,
        prefix_token_id: int | None = None,
    ) -> UnitPlan:
        """Plan sixteen questions per step, in order.

        Raises:
            ModelError: the server's way is not enough for these options.

        """
        if self.path == "top_logprobs" and (longer := _longer(docs)):
            assert self._way is not None
            raise ModelError(
                f"{self._client.endpoint.who}: this server gives log-probabilities of the next token only, not "
                f"enough for options of several characters such as {longer!r} ({self._way.reason}); {REMEDY}"
            )
        self.close()
        options = [[(at, option) for option in range(len(doc))] for at, doc in enumerate(docs)]
        steps = [options[at : at + DOCS_A_STEP] for at in range(0, len(options), DOCS_A_STEP)]
        batches = tuple(Batch(tuple(one for doc in step for one in doc), (), ()) for step in steps)
        return UnitPlan(
            "plain", batches, (), 0, 0, 0, DOCS_A_STEP, max_length, sharing=False, in_batch=False, docs=list(docs)
        )

    def path_of(self, plan: UnitPlan) -> str:
        """The way that the probe verified."""
        return self.path

    def score_batch(self, plan: UnitPlan, at: int) -> list[list[Score]]:
        """Scores of one step's docs; a question without an answer has an error in each of its scores.

        Raises:
            UnavailableError: the server cannot be used.
            SpendingLimitError: the next call could exceed a limit.

        """
        if plan is not self._plan:
            self.close()
            self._plan = plan
        if self._ahead is None:
            docs = plan.docs
            self._ahead = Lookahead(lambda index: self._score(docs[index]), len(docs), self._workers())
        found = []
        for doc in plan.batches[at].docs:
            scores = self._ahead.result(doc)
            self._failed.count(next((one.error for one in scores if one.is_temporary and not one.is_refused), None))
            found.append(scores)
        return found

    def batch_budget(self, extent: Extent, *, kept: Mapping[str, Any] | None = None, spent_s: float = 0.0) -> Budget:
        """The server makes its own batches; this is the number of questions between two checkpoints."""
        return Budget(DOCS_A_STEP, DOCS_A_STEP, None, "questions between two checkpoints; the server batches by itself")

    def close(self) -> None:
        """Wait for the calls in progress, because they are paid for."""
        if self._ahead:
            self._ahead.close()
            self._ahead = None

    def _score(self, doc: Doc) -> list[Score]:
        try:
            return self._by_top(doc) if self.path == "top_logprobs" else self._by_whole(doc)
        except UnavailableError:
            raise
        except (AnswerError, ContextFullError) as error:
            refused = isinstance(error, RefusedCallError)
            return _without(doc, str(error), is_temporary=not is_final(error), is_refused=refused)

    def _by_whole(self, doc: Doc) -> list[Score]:
        tails = []
        for one in doc:
            assert one.prompt is not None
            call = ask_whole(self._client, self.path, one.prompt, one.ending)
            if UNREAD in call:
                return _without(doc, f"{self._client.endpoint.who}: {call[UNREAD]}", is_temporary=True)
            tails.append(Tail.from_builtin(call["tail"]))
        starts = [tail.starts for tail in tails]
        if len({one.prompt for one in doc}) == 1:  # one split for all, where a token reaches over the border
            starts = [max(min(starts), tail.before) for tail in tails]
        scores = [Score(*tail.score(start)) for tail, start in zip(tails, starts, strict=True)]
        return scores if all(math.isfinite(one.loglikelihood) for one in scores) else _without(doc, NOT_FINITE)

    def _by_top(self, doc: Doc) -> list[Score]:
        assert self._way is not None and doc[0].prompt is not None
        call = self._client.next_tokens(doc[0].prompt, top=self._way.top)
        if UNREAD in call:
            return _without(doc, f"{self._client.endpoint.who}: {call[UNREAD]}", is_temporary=True)
        likeliest = [(str(text), float(value)) for text, value in call["positions"][0][2]]
        values = option_values(likeliest, [one.ending for one in doc])
        if values is None:
            return _without(doc, f"not scored: not all options are among the {len(likeliest)} likeliest next tokens")
        if not all(math.isfinite(value) for value in values.values()):
            return _without(doc, NOT_FINITE)
        best = max((value for _, value in likeliest), default=0.0)
        return [Score(values[one.ending], values[one.ending] >= best) for one in doc]


def _longer(docs: Sequence[Doc]) -> str | None:
    """Return an option that has more than one character, or belongs to a different prompt; None if there is none."""
    for doc in docs:
        if len({one.prompt for one in doc}) > 1:
            return doc[0].ending
        if found := next((one.ending for one in doc if len(one.ending.strip()) != 1), None):
            return found
    return None


def _without(doc: Doc, error: str, *, is_temporary: bool = False, is_refused: bool = False) -> list[Score]:
    return [Score(math.nan, False, error, is_temporary, is_refused) for _ in doc]
