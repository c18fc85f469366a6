"""What a language model is asked about a class: the templates by their ids, and a template filled with a name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """One question. {name} is the class, {a} its article, {domain} what the classes are ("bird")."""

    text: str
    lines: int  # that a good answer has
    least: int  # below which an answer is asked for again

    def about(self, name: str, domain: str = "object") -> str:
        """The message for one class."""
        name = name.replace("_", " ").strip()
        article = "an" if name[:1].lower() in "aeiou" else "a"
        return self.text.format(a=article, name=name, domain=domain)


# `visual10` is the paper's, word by word; the others are this project's own.
PROMPTS = {
    "visual10": Prompt("Describe the visual characteristics of {a} {name} in 10 lines.", 10, 8),
    "visual10_domain": Prompt(
        "Describe what {a} {name}, a kind of {domain}, looks like in a photo. Write 10 short sentences, one per line, "
        "no numbering, only what can be seen.",
        10,
        8,
    ),
    "features": Prompt(
        "List the visible features that tell {a} {name} apart from similar {domain}s. One short phrase per line.", 5, 4
    ),
    "looks": Prompt("What does {a} {name} look like? Answer in one sentence.", 1, 1),
    "caption": Prompt("Write one caption of a photo of {a} {name}.", 1, 1),
    "contrast": Prompt("In 10 lines, describe how to recognise {a} {name} among other {domain}s by sight.", 10, 8),
}
