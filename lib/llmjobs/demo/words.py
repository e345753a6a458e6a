"""The words of the demo, the form of its questions, and the split of a text."""

import hashlib


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CATEGORIES: dict[str, tuple[str, ...]] = {
    "animals": _split("cat dog horse goat lion bear wolf mouse sheep tiger rabbit fox"),
    "fruits": _split("apple pear plum cherry lemon grape peach melon fig mango kiwi olive"),
    "tools": _split("hammer saw drill knife spade axe rake needle brush ladder chisel file"),
    "clothes": _split("shirt coat hat sock glove dress scarf boot jacket belt vest tie"),
    "furniture": _split("table chair bed desk sofa shelf bench stool lamp mirror carpet cupboard"),
    "instruments": _split("piano violin drum flute guitar harp trumpet organ cello banjo oboe tuba"),
    "weather": _split("rain snow wind storm fog hail frost thunder cloud sunshine mist ice"),
    "vehicles": _split("car bus train ship plane truck tram bicycle ferry van taxi rocket"),
}
MONTHS = _split("January February March April May June July August September October November December")
OFFSETS = ("one month", "two months", "three months", "four months", "five months", "six months")

LANDS = _split("Vell Ostra Quil Narn")
FOODS = _split("moss seeds berries roots")
CREATURES = _split(
    "dax wug blick tove fep zorb mimble gorp nool pim rask snurf trill ulf vonk yarp bilt crong "
    "drume flib glim hask jub kelp"
)

NAMES = _split("Ana Ben Cara Dan Eva Finn Gina Hugo Ida Jan Kim Leo Mia Nils Olga Paul")
COLOURS = _split("red blue green white black pink brown yellow")
CITIES = _split("Rome Paris Oslo Cairo Lima Delhi Tokyo Quito")
THINGS = _split("boat house door bag cup bike kite pen clock tent")
COUNTED = _split("coins books stamps shells keys cards")
DOGS = _split("Max Rex Bello Luna Rocky Bruno Molly Daisy")


def common_words() -> tuple[str, ...]:
    """Return every word of the categories, in a fixed order."""
    return tuple(word for words in CATEGORIES.values() for word in words)


LETTERS = "ABCD"
STOP = "\n"


def prompt(question: str, choices: tuple[str, ...] | list[str] = ()) -> str:
    """Return the prompt, byte for byte: question, `A. …` to `D. …` if there are options, `Answer:`, one line each."""
    options = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *options, "Answer:"])


def split_of(identity: str) -> str:
    """Return `test` for a tenth of all texts, `dev` for a twentieth, otherwise `train`; by SHA-256 of the text."""
    bucket = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") % 20
    return "test" if bucket < 2 else "dev" if bucket == 2 else "train"
