"""What a careful statistician answers from the tables of real studies, worked out by hand, and what choose answers.

The counts below were taken from the published predictions with a spreadsheet's COUNTIFS: for two models, b questions
that only the first has right and c that only the second has right. The difference is (b - c) / n, its error
sqrt(((b + c) / n - d²) / n), and with k candidates each interval uses the quantile of 1 - 0.05 / (k - 1).
"""

import csv
import json
from pathlib import Path

import pytest

from llmjobs.cli import main

SIX = """model,memory,size,decode
meta-llama/Llama-3.1-8B,16.1GiB,15.0GiB,9
meta-llama/Llama-3.2-1B-Instruct,2.9GiB,2.3GiB,48
allenai/OLMo-2-0425-1B-SFT,3.4GiB,2.8GiB,41
allenai/OLMo-2-1124-7B,14.7GiB,13.6GiB,10
Qwen/Qwen2.5-0.5B,1.4GiB,0.92GiB,95
Qwen/Qwen2.5-7B,15.2GiB,14.2GiB,9.5
"""
OTHER_SIX = """model,memory,decode
Qwen/Qwen2.5-0.5B-Instruct,1.4GiB,95
Qwen/Qwen2.5-1.5B-Instruct,3.5GiB,36
Qwen/Qwen2.5-3B-Instruct,6.4GiB,19
allenai/OLMo-2-0425-1B-Instruct,3.4GiB,41
meta-llama/Llama-3.2-1B-Instruct,2.9GiB,48
microsoft/phi-2,5.9GiB,
"""


@pytest.fixture(scope="module")
def studies(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table for each of the two studies, only its runs on CUDA."""
    place = tmp_path_factory.mktemp("studies")
    with (shared_data / "mmlu_predictions" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for study in ("study-1", "study-2"):
        with (place / f"{study}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row for row in rows if row["study"] == study and row["device"] == "cuda")
    return place


@pytest.fixture
def ask(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run the command on one study, with costs beside it."""

    def run(study: str, costs: str, *options: str, code: int = 0):
        table = tmp_path / "costs.csv"
        table.write_text(costs)
        place = str(studies / f"{study}.csv")
        with pytest.raises(SystemExit) as ended:
            main(["choose", place, "--name", "mmlu", "--costs", str(table), "--json", *options])
        shown = capsys.readouterr()
        assert ended.value.code == code, shown.err
        return json.loads(shown.out)

    return run


def of(found, name):
    return next(one for one in found["candidates"] if one["candidate"].startswith(name))


def test_study_1_has_one_clear_winner(ask):
    # Qwen2.5-7B 1,592 of 2,131 = 74.7%. The nearest is Llama-3.1-8B: b = 358, c = 158, d = 200/2131 = 9.39 points,
    # error sqrt((516/2131 - 0.0939²) / 2131) = 1.05 points. Six candidates: quantile of 0.99, 2.576: 9.39 ± 2.69, so
    # 6.7 to 12.1, far above 0. OLMo-2-7B: b = 353, c = 152, 9.43. Decided: the best, with 95% confidence for all five.
    found = ask("study-1", SIX)
    assert found["verdict"] == "best" and found["chosen"].startswith("Qwen2.5-7B")
    assert found["answer"] == "Run Qwen2.5-7B, unquantized: 74.7% on mmlu (72.8 to 76.5), 9.5 tokens/s, 15.2 GiB."
    rival = of(found, "Llama-3.1-8B")["less_the_chosen_one"]
    assert rival["value"] == pytest.approx(-200 / 2131, abs=1e-6)
    assert (rival["low"], rival["high"]) == pytest.approx((-0.1208, -0.0669), abs=0.001)
    assert found["questions"] == 2131 and found["questions_needed"] is None and found["alternatives"] == []


def test_study_1_within_6_gib_is_not_decided(ask):
    # Three fit: Llama-3.2-1B-Instruct 1,086 right, Qwen2.5-0.5B 1,063, OLMo-2-1B-SFT 915. Llama less Qwen: b = 348,
    # c = 325, d = 1.08 points, error sqrt((673/2131 - 0.0001) / 2131) = 1.22 points. Three candidates: quantile of
    # 0.975, 2.241: 1.08 ± 2.73, so -1.65 to 3.81. Neither better (the interval contains 0) nor as good within 1 point
    # (it goes below -1). OLMo: b = 472, c = 301, 8.02 points: out. Qwen needs half the memory (1.4 of 2.9 GiB).
    # Questions: within the margin, (2.241 + 0.842)² · 0.3157 / (0.0108 + 0.01)² = 6,940; apart,
    # (2.241 + 0.842)² · 0.3157 / 0.0108² = 25,800. The smaller counts.
    found = ask("study-1", SIX, "--memory", "6GiB")
    assert found["verdict"] == "undecided" and found["chosen"].startswith("Llama-3.2-1B-Instruct")
    assert found["questions_needed"] == pytest.approx(6940, rel=0.02)
    assert of(found, "Qwen2.5-0.5B")["outcome"] == "not told apart"
    assert of(found, "OLMo-2-0425-1B-SFT")["outcome"] == "worse"
    assert {one["candidate"] for one in found["candidates"] if one["outcome"] == "ruled out"} == {
        one["candidate"] for one in found["candidates"] if "7B" in one["candidate"] or "8B" in one["candidate"]
    }
    (cheaper,) = found["alternatives"]
    assert cheaper["candidate"].startswith("Qwen2.5-0.5B") and not cheaper["as_good"]
    assert (cheaper["difference"]["low"], cheaper["difference"]["high"]) == pytest.approx((-0.0381, 0.0165), abs=0.001)
    # Without the limit the 7B model would win: 1,592 - 1,086 = 506 of 2,131, 23.7 points more, for 15.2 GiB.
    (relaxed,) = found["relaxed"]
    assert relaxed["candidate"].startswith("Qwen2.5-7B") and relaxed["limit"] == pytest.approx(15.2 * 2**30)
    assert relaxed["difference"]["value"] == pytest.approx(506 / 2131, abs=1e-6)


def test_study_1_a_tie_within_the_margin_is_broken_by_memory(ask):
    # The same three with a margin of 5 points: Qwen less Llama is -3.81 at worst, so Qwen is as good within 5 points;
    # OLMo (-8.0 at best guess) is not. The least memory of the two that are as good: Qwen, 1.4 GiB.
    found = ask("study-1", SIX, "--memory", "6GiB", "--margin", "5", "--prefer", "memory")
    assert found["verdict"] == "as good" and found["chosen"].startswith("Qwen2.5-0.5B")
    assert of(found, "OLMo-2-0425-1B-SFT")["outcome"] == "worse"
    # With the default margin, memory alone does not decide: nothing is shown to be as good, so the most accurate stays.
    found = ask("study-1", SIX, "--memory", "6GiB", "--prefer", "memory")
    assert found["verdict"] == "undecided" and found["chosen"].startswith("Llama-3.2-1B-Instruct")


def test_study_1_no_model_fits_1_gib(ask):
    # The smallest needs 1.4 GiB, 40% over; the next 2.9 GiB. Exit code 4.
    found = ask("study-1", SIX, "--memory", "1GiB", code=4)
    assert found["chosen"] is None and found["verdict"] == "none"
    (relaxed,) = found["relaxed"]
    assert relaxed["candidate"].startswith("Qwen2.5-7B") and relaxed["difference"] is None
    assert "needs 1.40 GiB of memory, 410 MiB more than 1.00 GiB" in of(found, "Qwen2.5-0.5B")["reasons"][0]


def test_study_2_a_speed_rules_out_the_best_and_one_was_not_timed(ask):
    # Qwen2.5-3B 1,336 of 2,643 = 50.5%, 1.5B 1,229, phi-2 1,140. 3B less 1.5B: b = 412, c = 305, 4.05 points, error
    # sqrt((717/2643 - 0.0016) / 2643) = 1.01, ± 2.576 · 1.01 = 2.60: 1.4 to 6.7, so without a limit 3B is the best.
    assert ask("study-2", OTHER_SIX)["verdict"] == "best"
    # At 20 tokens/s, 3B (19) is out and phi-2 was not timed. 1.5B less Llama-1B: b = 611, c = 368, 9.19 points, error
    # 1.17; less Qwen-0.5B: b = 579, c = 332, 9.35; four candidates, quantile of 0.983, 2.394: 6.4 at least. Decided.
    found = ask("study-2", OTHER_SIX, "--decode", "20")
    assert found["verdict"] == "best" and found["chosen"].startswith("Qwen2.5-1.5B-Instruct")
    assert of(found, "phi-2")["outcome"] == "not judged"
    assert "decode speed was not measured" in of(found, "phi-2")["reasons"][0]
    assert of(found, "Qwen2.5-3B-Instruct")["reasons"] == [
        "decodes 19.0 tokens/s, 1.0 tokens/s fewer than 20.0 tokens/s"
    ]
    # One token/s less buys 4.05 points.
    (relaxed,) = found["relaxed"]
    assert relaxed["limit"] == 19 and relaxed["difference"]["value"] == pytest.approx(107 / 2643, abs=1e-6)
