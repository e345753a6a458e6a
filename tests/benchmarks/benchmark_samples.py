"""Rows made for the tests, in the form in which each benchmark is published on the hub.

They are written to be awkward: blanks at the ends, brackets, digits as labels, three or five options, no support.
"""

from typing import Any

Rows = list[dict[str, Any]]


def labelled(
    question: str, texts: list[str], key: str, labels: str = "ABCDE", name: str = "question"
) -> dict[str, Any]:
    return {
        "id": question[:8],
        name: question,
        "choices": {"text": texts, "label": list(labels[: len(texts)])},
        "answerKey": key,
    }


ARC: dict[str, Rows] = {
    "test": [
        labelled("Which tool measures temperature?", ["ruler", "thermometer", "scale", "clock"], "B"),
        labelled("What do roots take up? ", ["light", "water", "heat"], "2", "12345"),
        labelled("A ball falls.\nWhich force acts?", ["magnetism", "gravity", "a push", "none", "wind"], "B"),
    ],
    "train": [
        labelled("Which is a gas at 20 °C?", ["oxygen", "iron", "salt", "oil"], "A"),
        labelled("Ice is", ["solid water", "a gas", "a metal", "wood"], "1", "1234"),
    ],
}
MMLU: dict[str, Rows] = {
    "test": [
        {"question": " Who digs? ", "subject": "x", "choices": ["Moles", "Swifts", "Trout", "None of it"], "answer": 0},
        {"question": "Two lines\nof text:", "subject": "x", "choices": ["1", " 2", "3 ", "{{4}}"], "answer": 3},
        {"question": "42", "subject": "x", "choices": ["a", "b", "c", "é ß 水"], "answer": 2},
    ],
    "dev": [
        {
            "question": f"Shot {n}: what is {n} + {n}?",
            "subject": "x",
            "choices": [str(k) for k in range(n, n + 4)],
            "answer": 0,
        }
        for n in range(5)
    ],
}


def scene(label: str, a: str, b: str, endings: list[str], gold: int) -> dict[str, Any]:
    return {"activity_label": label, "ctx_a": a, "ctx_b": b, "endings": endings, "label": str(gold)}


HELLASWAG: dict[str, Rows] = {
    "validation": [
        scene("Baking bread", "A person kneads dough.", "the person", ["waits.", "sings  loudly.", "swims.", "ÄHM"], 0),
        scene(
            "Home and Garden",
            "[header] How to sow peas [title] Choose a bed. [step] It needs sun.",
            "",
            ["[substeps] Dig well.", "Go out [now].", "Eat them.", "Wait."],
            3,
        ),
    ],
    "train": [scene("Rowing", "Two people row.", "they", ["reach the bank.", "fly.", "sink.", "bake."], 0)] * 3,
}
WINOGRANDE: dict[str, Rows] = {
    "validation": [
        {
            "sentence": "The cup did not fit the box as the _ was too small.",
            "option1": "cup",
            "option2": "box",
            "answer": "2",
        },
        {"sentence": "_ thanked Ben because Ana was kind.  ", "option1": "Ben", "option2": "Ana", "answer": "1"},
    ],
    "train": [
        {"sentence": "Mia called Tom since _ was late.", "option1": "Mia", "option2": "Tom", "answer": "1"},
        {"sentence": "The rope broke, the _ was old.", "option1": "rope", "option2": "knot", "answer": "1"},
    ],
}
TRUTHFULQA: dict[str, Rows] = {
    "validation": [
        {
            "question": "Do fish sleep?",
            "mc1_targets": {"choices": ["They rest.", "They never do.", "Only at sea."], "labels": [1, 0, 0]},
            "mc2_targets": {"choices": ["They rest.", "In a way, yes.", "They never do."], "labels": [1, 1, 0]},
        },
        {
            "question": "What is under the bed?",
            "mc1_targets": {"choices": ["Dust.", "A monster."], "labels": [1, 0]},
            "mc2_targets": {
                "choices": ["Dust.", "The floor.", "A monster.", "A cave.", "A cave."],
                "labels": [1, 1, 0, 0, 0],
            },
        },
    ]
}
PIQA: dict[str, Rows] = {
    "validation": [
        {
            "goal": "Dry a wet shoe",
            "sol1": "Stuff it with paper.",
            "sol2": "Put it into a bowl of water overnight.",
            "label": 0,
        },
        {"goal": "How do I cut an onion? ", "sol1": "With a spoon", "sol2": "With a knife", "label": 1},
    ],
    "train": [{"goal": "Open a jar", "sol1": "Turn the lid.", "sol2": "Look at it.", "label": 0}] * 2,
}
BOOLQ: dict[str, Rows] = {
    "validation": [
        {"question": "is the heron a bird", "passage": "The heron is a bird of the shore.", "idx": 0, "label": 1},
        {"question": "does it fly south", "passage": "Some stay.\nOthers leave.", "idx": 1, "label": 0},
    ],
    "train": [{"question": "is ice cold", "passage": "Ice is frozen water.", "idx": 0, "label": 1}] * 2,
}
OPENBOOKQA: dict[str, Rows] = {
    "test": [
        labelled("A plant grows towards", ["the light", "the wall", "the pot", "a cat"], "A", name="question_stem"),
        labelled("Metal spoons get hot as they", ["rust", "shine", "bend", "conduct"], " D", name="question_stem"),
    ],
    "train": [labelled("Rain fills", ["lakes", "suns", "roofs", "books"], "A", name="question_stem")] * 2,
}
COMMONSENSE: dict[str, Rows] = {
    "validation": [
        labelled(" Where do you put a hat? ", ["head", "oven", "river", "cloud", "nail"], "A"),
        labelled("What rings?", ["sand", "a stone", "wool", "a bell", "milk"], "D"),
    ],
    "train": [labelled("What is wet?", ["rain", "dust", "sand", "fire", "chalk"], "A")] * 2,
}


def science(question: str, options: list[str], support: str) -> dict[str, Any]:
    a, b, c, right = options
    return {
        "question": question,
        "distractor3": c,
        "distractor1": a,
        "distractor2": b,
        "correct_answer": right,
        "support": support,
    }


SCIQ: dict[str, Rows] = {
    "test": [
        science("What pumps blood?", ["the liver", "skin", "a lung", "the heart"], "  The heart pumps blood."),
        science("What is H2O?", ["salt", "iron", "gold", "water"], ""),
    ],
    "train": [science("What shines?", ["mud", "clay", "peat", "the sun"], "The sun shines.")] * 2,
}
GSM8K: dict[str, Rows] = {
    "test": [
        {
            "question": "Ida has 3 bags of 6 nuts. How many nuts?",
            "answer": "3 bags hold 3*6=<<3*6=18>>18 nuts.\n#### 18",
        },
        {"question": "A car costs $1,200 and loses $50. Worth?", "answer": "1200-50=<<1200-50=1150>>1150\n#### 1,150"},
    ],
    "train": [
        {"question": f"Add {n} and 2.", "answer": f"{n}+2=<<{n}+2={n + 2}>>{n + 2}\n#### {n + 2}"} for n in range(6)
    ],
}


def pro(question: str, options: list[str], answer: str, category: str, cot: str = "") -> dict[str, Any]:
    return {
        "question_id": 1,
        "question": question,
        "options": options,
        "answer": answer,
        "answer_index": "ABCDEFGHIJ".index(answer),
        "cot_content": cot,
        "category": category,
        "src": "made",
    }


MMLU_PRO: dict[str, Rows] = {
    "test": [
        pro("What is 2 + 2?", [" 1", "2 ", "3", "4"], "D", "math"),
        pro("Which byte is largest?", [f"{n:02x}" for n in range(10)], "J", "computer science"),
        pro("What is 3 * 3?", ["9", "6", "N/A"], "A", "math"),
    ],
    "validation": [
        pro(
            f"What is {n} + 1?",
            [str(n), str(n + 1), str(n + 2)],
            "B",
            category,
            f"A: Let's think step by step. {n} + 1 = {n + 1}. The answer is (B).",
        )
        for category in ("computer science", "math")
        for n in range(5)
    ],
}
LAMBADA: dict[str, Rows] = {
    "test": [
        {"text": "The lamp went out and all he saw was the dark"},
        {"text": 'She asked twice. "Come in," he said to the  girl.'},
    ]
}

SAMPLES: dict[str, tuple[str, dict[str, Rows]]] = {
    "arc_easy": ("all", ARC),
    "arc_challenge": ("all", ARC),
    "mmlu": ("astronomy", MMLU),
    "hellaswag": ("all", HELLASWAG),
    "winogrande": ("all", WINOGRANDE),
    "truthfulqa_mc1": ("all", TRUTHFULQA),
    "truthfulqa_mc2": ("all", TRUTHFULQA),
    "piqa": ("all", PIQA),
    "boolq": ("all", BOOLQ),
    "openbookqa": ("all", OPENBOOKQA),
    "commonsense_qa": ("all", COMMONSENSE),
    "sciq": ("all", SCIQ),
    "gsm8k": ("all", GSM8K),
    "mmlu_pro": ("computer_science", MMLU_PRO),
    "lambada_openai": ("all", LAMBADA),
}
"""Name → (subject, hub split → rows)."""

SIX_PAIRS: Rows = [{"question": f"Is {n} even?", "answer": "Yes." if n % 2 == 0 else "No."} for n in range(6)]
"""Stand in for TruthfulQA's own pairs, which do not come along."""
