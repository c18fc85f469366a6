"""Every rule from a model's answer to sentences, one by one, and together on an answer that needs them all."""

import pytest

from fewshot.texts import clean as rules
from fewshot.texts.clean import Unusable, clean
from fewshot.texts.prompts import PROMPTS
from fewshot.texts.vocabulary import visual_words


def test_unicode_quotes_line_breaks_and_markdown_are_made_plain():
    raw = "```text\r\n## **The** bird’s _bill_ is `red`\r\ncafe\u0301 – 3\u00a0cm\r\n```"
    assert rules.normalised(raw).strip() == "The bird's bill is red\ncaf\u00e9 - 3 cm"


def test_underscores_inside_a_name_become_spaces():
    assert rules.normalised("an american_bulldog, _really_") == "an american bulldog, really"


def test_lines_are_split_and_empty_ones_dropped():
    assert rules.split("  one two three \n\n \n four five six") == ["one two three", "four five six"]


def test_a_lone_paragraph_comes_apart_at_its_sentence_ends():
    assert rules.split("It is red. It is 4.5 cm long. It has a tail.") == [
        "It is red.",
        "It is 4.5 cm long.",
        "It has a tail.",
    ]
    assert rules.split("It is red. It has a tail.") == ["It is red. It has a tail."]


@pytest.mark.parametrize("mark", ["- ", "• ", "•", "(1) ", "1. ", "10. ", "1) ", "a) ", "(b) ", "+ "])
def test_one_list_mark_goes(mark):
    assert rules.without_mark(mark + "The bill is red.") == "The bill is red."


@pytest.mark.parametrize("line", ["18 to 20 cm long.", "1.5 metres of wing.", "A red bill.", "-like tail", "2 bars."])
def test_what_only_looks_like_a_list_mark_stays(line):
    assert rules.without_mark(line) == line


def test_only_one_list_mark_goes():
    assert rules.without_mark("1. 2. The bill is red.") == "2. The bill is red."


@pytest.mark.parametrize(
    "line",
    ["Here are ten lines", "Sure! Ten lines about it.", "Certainly, ten lines.", "Size and shape:", "In summary, it is red.",
     "Note: colours vary.", "As an AI model I have no eyes.", "I hope this helps you.", "Of course."],
)  # fmt: skip
def test_chatter_is_dropped(line):
    assert rules.is_chatter(line)


@pytest.mark.parametrize("line", ["Surely the reddest of all.", "Heretofore unseen red bill.", "Noted for a red bill."])
def test_sentences_are_not_taken_for_chatter(line):
    assert not rules.is_chatter(line)


def test_quotes_spaces_and_full_stops_are_tidied():
    assert rules.tidy('"The  bill\tis red"') == "The bill is red."
    assert rules.tidy("The bill is red,") == "The bill is red."
    assert rules.tidy("Is it red?") == "Is it red?"
    assert rules.tidy('"Red" and "blue"') == '"Red" and "blue".'


def test_the_last_line_of_an_answer_cut_for_length_is_dropped():
    raw = "The bill is long and red.\nThe bird is large, measuring about 5."
    assert clean(raw, cut=True) == ["The bill is long and red."]
    assert len(clean(raw)) == 2


def test_lines_of_fewer_than_three_words_are_dropped():
    assert clean("Red bill\nA red bill\nBill") == ["A red bill."]


def test_duplicates_are_dropped_without_regard_to_case_and_punctuation():
    assert clean("The bill is red.\nThe BILL, is red!\nThe eye is red.") == ["The bill is red.", "The eye is red."]


def test_visual_only_drops_what_a_picture_does_not_show():
    raw = "The bill is red.\nIts song is a trill.\nIt weighs 20 grams.\nIt feeds on seeds.\nThe coat is short."
    assert clean(raw, visual_only=True) == ["The bill is red.", "The coat is short."]
    assert len(clean(raw)) == 5


def test_a_long_line_is_cut_at_the_last_comma_or_sentence_that_fits():
    def tokens(line):
        return len(line.split()) + 2

    line = "The bill is red, the eye is black, and the tail is green."
    assert rules.fitting(line, tokens, 9) == "The bill is red."
    assert rules.fitting(line, tokens, 12) == "The bill is red, the eye is black."
    assert rules.fitting(line, tokens, 20) == line
    assert rules.fitting("one two three four five six", tokens, 5) is None


def test_cleaning_with_a_token_counter_never_returns_a_line_too_long():
    raw = "\n".join(["A bird, " + "very " * 100 + "red.", "word " * 90, "The bill is red."])
    lines = clean(raw, tokens=lambda line: len(line.split()) + 2)
    assert lines == ["The bill is red."]


@pytest.mark.parametrize("raw", ["", "  \n\n", "```\n```", None])
def test_an_empty_answer_is_unusable(raw):
    with pytest.raises(Unusable, match="an empty answer"):
        clean(raw)


@pytest.mark.parametrize(
    "raw",
    ["I'm sorry, but I can't help with that.", "I’m sorry, I do not know this bird.", "As an AI, I cannot see birds.",
     "I don't have information about this bird.", "Unfortunately, I cannot describe it.\nPlease ask me something else."],
)  # fmt: skip
def test_a_refusal_is_unusable(raw):
    with pytest.raises(Unusable, match="a refusal"):
        clean(raw)


def test_an_apology_in_front_of_a_full_answer_is_only_dropped():
    raw = "As an AI, I have no eyes, but:\n1. The bill is red.\n2. The eye is black.\n3. The tail is long."
    assert clean(raw) == ["The bill is red.", "The eye is black.", "The tail is long."]


def test_all_rules_together():
    raw = (
        "Sure! Here are 10 lines about the bird:\r\n\r\n1. **Bill:** The bill is long and “red”\n2. Its eyes are black.\n"
        "3.  Its EYES are black\n4. 18 to 20 cm long\n5. Nice\n\nI hope this helps!"
    )
    assert clean(raw) == ['Bill: The bill is long and "red".', "Its eyes are black.", "18 to 20 cm long."]


def test_cleaning_twice_changes_nothing():
    once = clean("- The bill is “red”\n- *Black* eyes, large")
    assert clean("\n".join(once)) == once


def test_prompts_take_the_article_of_the_name():
    assert PROMPTS["visual10"].about("Black Footed Albatross") == (
        "Describe the visual characteristics of a Black Footed Albatross in 10 lines."
    )
    assert "of an american bulldog in" in PROMPTS["visual10"].about("american_bulldog")
    assert "a kind of bird," in PROMPTS["visual10_domain"].about("Ovenbird", "bird")


def test_visual_words_are_words_to_be_seen():
    assert visual_words("The Red bill, which is nice.") == {"red", "bill"}
    assert not visual_words("It was known to the ancients.")
