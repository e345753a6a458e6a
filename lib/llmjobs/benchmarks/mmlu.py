"""MMLU: 57 subjects in four categories, four options, answered by letter."""

from collections.abc import Sequence

from llmjobs.benchmarks.base import Doc, Example, Generation, Grade, HubDataset, Options, Row, Shots
from llmjobs.benchmarks.multiple_choice import MultipleChoice, read_letter

# The subjects in their categories, as in the authors' `categories.py`.

CATEGORIES: dict[str, tuple[str, ...]] = {
    "stem": (
        "abstract_algebra",
        "anatomy",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ),
    "humanities": (
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ),
    "social_sciences": (
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ),
    "other": (
        "business_ethics",
        "clinical_knowledge",
        "college_medicine",
        "global_facts",
        "human_aging",
        "management",
        "marketing",
        "medical_genetics",
        "miscellaneous",
        "nutrition",
        "professional_accounting",
        "professional_medicine",
        "virology",
    ),
}


HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"
CHOICE_COLUMNS = (("choice0", "choice1", "choice2", "choice3"), ("A", "B", "C", "D"))


class MMLU(MultipleChoice):
    name = "mmlu"
    title = "MMLU"
    source = "arXiv 2009.03300"
    hub = HubDataset("cais/mmlu", "{subject}", {"test": "test", "fewshot": "dev", "validation": "validation"})
    subjects = tuple(sorted(subject for group in CATEGORIES.values() for subject in group))
    categories = CATEGORIES
    prompts = ("lm-eval", "original", "course")
    output_types = ("loglikelihood", "generate_until")
    max_fewshot = 5
    test_rows = 14_042
    csv_columns = ("question", "A", "B", "C", "D", "answer")

    def __init__(self, options: Options) -> None:
        """Refuse shots for the prompt form that has none."""
        super().__init__(options)
        if options.prompt == "course" and options.num_fewshot:
            raise ValueError("num_fewshot: the course form has no shots; use 0 or another prompt")

    @classmethod
    def belongs(cls, raw: Row, subject: str) -> bool:
        """Compare the column ``subject``, if the file has one."""
        return str(raw.get("subject", subject)).replace(" ", "_") == subject

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read the hub's form, or columns choice0 … choice3 or A … D; the answer is an index from 0 or a letter."""
        if "choices" in raw:
            choices = list(raw["choices"])
        else:
            columns = next((c for c in CHOICE_COLUMNS if c[0] in raw), CHOICE_COLUMNS[0])
            choices = [raw[column] for column in columns]
        if len(choices) != 4 or not all(isinstance(text, str) for text in [raw["question"], *choices]):
            raise ValueError("a row needs a question and four choices, all of them text")
        answer = str(raw["answer"]).strip()
        if answer not in {"0", "1", "2", "3", "A", "B", "C", "D"}:
            raise ValueError(f"answer {answer[:40]!r} is not one of 0, 1, 2, 3, A, B, C, D")
        return {
            "question": raw["question"],
            "choices": choices,
            "answer": int(answer) if answer.isdigit() else "ABCD".index(answer),
        }

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        return Doc(
            doc_id=doc_id,
            subject=subject,
            question=row["question"],
            choices=tuple(row["choices"]),
            gold="ABCD"[row["answer"]],
            questions=(self._text(row),),
            continuations=(" A", " B", " C", " D"),
        )

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Use the first rows of the dev split, in order."""
        if self.options.prompt == "course":
            return Shots()
        name = subject.replace("_", " ")
        header = HEADER.format(subject=f" {name}" if self.options.prompt == "original" else name)
        examples = [Example(self._text(row), " " + "ABCD"[row["answer"]]) for row in rows[: self.options.num_fewshot]]
        return Shots(header, tuple(examples))

    def _text(self, row: Row) -> str:
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True))
        if self.options.prompt == "course":
            return f"{row['question']}\n\n{options}\n\nAnswer:"
        question = row["question"].strip() if self.options.prompt == "lm-eval" else row["question"]
        return f"{question}\n{options}\nAnswer:"

    def generation(self, doc: Doc) -> Generation:
        """Generate one token."""
        return Generation(stop=(), max_new_tokens=1)

    def grade_text(self, doc: Doc, text: str) -> Grade:
        """Read a letter strictly. A reply without one counts as unparsed, never as A."""
        found = read_letter(text)
        return Grade(found, found == doc.gold, {"acc": float(found == doc.gold)})
