"""Training follows its plan, and an interrupted training ends with the same weights."""

from pathlib import Path

import pytest
import torch

from demo_training import train as training
from demo_training.train import RECIPES, Recipe, Stage, learning_rate, stage_at, train

STAGES = (Stage(2, 0.5, 0.2, 0.3, words_share=0.5, length=64, exchanges=4), Stage(4, 1.0, 0.0, 0.0, length=64))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.RECIPES, "demo-tiny", Recipe(64, 1, 64, STAGES))
    monkeypatch.setattr(training, "LOG_STEPS", 2)
    monkeypatch.setattr(training, "TOKENS_PER_STEP", 256)
    monkeypatch.setattr(training, "validation_line", lambda *_: "")


@pytest.mark.usefixtures("small")
def test_goes_on_where_it_was_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train("demo-tiny", tmp_path / "whole", lambda _: None).state_dict()
    lines: list[str] = []
    with monkeypatch.context() as stopped:
        stopped.setattr(training, "learning_rate", _stop_at_third_step)
        with pytest.raises(KeyboardInterrupt):
            train("demo-tiny", tmp_path / "broken", lines.append)
    resumed = train("demo-tiny", tmp_path / "broken", lines.append).state_dict()
    assert any("steps 2 to 4" in line for line in lines)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def _stop_at_third_step(recipe: Recipe, step: int) -> float:
    if step == 2:
        raise KeyboardInterrupt
    return learning_rate(recipe, step)


def test_rate_and_stage_by_step() -> None:
    recipe = RECIPES["demo-narrow"]
    assert learning_rate(recipe, 0) == pytest.approx(recipe.learning_rate / 200)
    assert learning_rate(recipe, 3000) == recipe.learning_rate
    assert learning_rate(recipe, recipe.steps - 1) < 0.03 * recipe.learning_rate
    assert stage_at(recipe, 1500) == (recipe.stages[1], 1500)
    with pytest.raises(ValueError, match="ends at 6500"):
        stage_at(recipe, 6500)
