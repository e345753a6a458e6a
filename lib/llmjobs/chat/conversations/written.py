"""A few conversations written by hand: several facts at once, as people talk."""

from collections.abc import Sequence

from llmjobs.chat.conversations.script import Script, Turn

SYSTEM = "You are a helpful assistant. Answer in one short sentence."

MOVING = (
    Turn("Hi! I am packing for a move: I am leaving Leeds for Aberdeen."),
    Turn("My sister Greta helps me. She brings the blue van."),
    Turn("Can you name three things that one should not forget when moving?"),
    Turn("To which city am I moving?", "recall", "Aberdeen", 3, ("Leeds",)),
    Turn("What colour is the van that she brings?", "pronoun", "blue", 3),
    Turn("Small change: not Greta but my brother Felix drives the van."),
    Turn("What is a polite way to thank somebody for help?"),
    Turn("Who drives the van?", "corrected", "Felix", 2, ("Greta",)),
    Turn("And which city do I leave?", "recall", "Leeds", 8, ("Aberdeen",)),
)
DINNER = (
    Turn("I am cooking for six people tonight, and two of them eat no meat."),
    Turn("Please end every answer with the word 'chef'."),
    Turn("What goes well with roasted carrots?", "instruction", "chef", 1, must_end=True),
    Turn("How many of my guests eat meat?", "arithmetic", "4", 3),
    Turn("Three more people have just said that they will come."),
    Turn("How many people am I cooking for now?", "arithmetic", "9", 1),
    Turn("Name a herb that smells of lemon.", "instruction", "chef", 5, must_end=True),
)
TRIP = (
    Turn("Our train to Verona leaves from platform 7 at 8:40."),
    Turn("My aunt Ilse is coming along; she is afraid of tunnels."),
    Turn("What is the capital of Italy?"),
    Turn("What is she afraid of?", "pronoun", "tunnels", 2),
    Turn("From which platform does our train leave?", "recall", "7", 4),
    Turn("They have just changed it: the train leaves from platform 11."),
    Turn("How do you say 'good morning' in Italian?"),
    Turn("Which country borders Italy in the north-west?"),
    Turn("So from which platform does our train leave?", "corrected", "11", 3, ("7",)),
    Turn("And where does it go?", "recall", "Verona", 9),
)
ALL = {"moving": MOVING, "dinner": DINNER, "trip": TRIP}


def scripts(count: int, seed: int, distances: Sequence[int]) -> list[Script]:
    """The first ``count`` of them; seed and distances change nothing here."""
    return [Script(f"written-{name}", turns, SYSTEM) for name, turns in list(ALL.items())[:count]]
