import pytest

from llmjobs.benchmarks.scoring_requests import Request, common_length, model_input


def test_the_last_token_is_predicted_not_read() -> None:
    read = model_input(Request((5, 6, 7), (8, 9)), max_length=10)
    assert (read.tokens, read.targets, read.first_scored) == ((5, 6, 7, 8), (8, 9), 2)


def test_one_token_more_than_the_model_reads_is_kept_for_the_prediction() -> None:
    assert model_input(Request((1, 2, 3, 4), (5,)), max_length=4).tokens == (1, 2, 3, 4)
    assert model_input(Request((0, 1, 2, 3, 4), (5,)), max_length=4).tokens == (1, 2, 3, 4)


def test_an_empty_context_becomes_the_prefix_token() -> None:
    assert model_input(Request((), (5, 6)), 10, prefix_token_id=1).tokens == (1, 5)


def test_a_continuation_that_starts_with_the_prefix_token_gives_it_up() -> None:
    read = model_input(Request((), (1, 5, 6)), 10, prefix_token_id=1)
    assert (read.tokens, read.targets) == ((1, 5), (5, 6))


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request((1,), ()), "empty"),
        (Request((), (1,)), "no BOS or EOS"),
        (Request((1,), (1, 2, 3, 4, 5)), "5 tokens, but the model's context length is 4 tokens"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(request_: Request, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        model_input(request_, max_length=4)


def test_common_length_looks_past_its_step() -> None:
    left = tuple(range(200))
    assert common_length(left, left) == 200
    assert common_length(left, (*left[:150], -1)) == 150
    assert common_length(left, (), 0) == 0
