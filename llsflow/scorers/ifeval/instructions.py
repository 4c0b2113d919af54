"""The 25 instructions of IFEval: the arguments of each, and whether a text follows it.

Source: Zhou et al. 2023, arXiv:2311.07911, table 4; where the paper's words leave it open, as its published checks do.
Keywords, markers and phrases are taken as they are written, never as a regex.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llsflow.scorers.ifeval.language import LANGUAGES, language_of
from llsflow.scorers.ifeval.text import count_capital_words, count_sentences, count_words

Instruction = Callable[[str], bool]
"""A text -> whether it follows the instruction."""

RELATIONS = ("less than", "at least")
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def whole_number(value: object) -> int:
    """Return a count; a float counts where a file's format has made one of it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise ValueError("an integer of at least 0 is needed")
    return int(value)


def place(value: object) -> int:
    """Return a number that counts from 1."""
    number = whole_number(value)
    if number < 1:
        raise ValueError("it counts from 1")
    return number


def text(value: object) -> str:
    """Return a text without the white space around it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text is needed")
    return value.strip()


def texts(value: object) -> list[str]:
    """Return a list of texts."""
    if not isinstance(value, list) or not value:
        raise ValueError("a list of texts is needed")
    return [text(one) for one in value]


def letter(value: object) -> str:
    """Return a letter, small."""
    found = text(value).lower()
    if len(found) != 1:
        raise ValueError("one letter is needed")
    return found


def relation(value: object) -> str:
    """Return how a number is compared."""
    if value not in RELATIONS:
        raise ValueError(f"allowed are {', '.join(RELATIONS)}")
    return str(value)


def language(value: object) -> str:
    """Return an ISO 639-1 code; that of a region ("zh-cn") counts as its language's."""
    code = text(value).lower().split("-")[0]
    if code not in LANGUAGES:
        raise ValueError(f"known are {', '.join(sorted(LANGUAGES))}")
    return code


def compared(number: int, how: str, wanted: int) -> bool:
    """Return whether a number is less than, or at least, the wanted one."""
    return number < wanted if how == "less than" else number >= wanted


def keywords_exist(answer: str, keywords: list[str]) -> bool:
    """Every keyword stands somewhere, in capitals or not."""
    return all(keyword.lower() in answer.lower() for keyword in keywords)


def keyword_frequency(answer: str, keyword: str, frequency: int, relation: str) -> bool:
    """A keyword stands so often, within words too."""
    return compared(answer.lower().count(keyword.lower()), relation, frequency)


def no_forbidden_words(answer: str, forbidden_words: list[str]) -> bool:
    """None of the words stands by itself."""
    words = "|".join(map(re.escape, forbidden_words))
    return re.search(rf"(?<!\w)(?:{words})(?!\w)", answer, re.IGNORECASE) is None


def letter_frequency(answer: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """A letter stands so often, in capitals or not."""
    return compared(answer.lower().count(letter), let_relation, let_frequency)


def response_language(answer: str, language: str) -> bool:
    """The text is in a language; one without letters is in any."""
    return language_of(answer) in (language, None)


def number_sentences(answer: str, num_sentences: int, relation: str) -> bool:
    """There are so many sentences."""
    return compared(count_sentences(answer), relation, num_sentences)


def number_words(answer: str, num_words: int, relation: str) -> bool:
    """There are so many words."""
    return compared(count_words(answer), relation, num_words)


def number_paragraphs(answer: str, num_paragraphs: int) -> bool:
    """There are exactly so many paragraphs with *** between them, and none is empty."""
    parts = [part.strip() for part in answer.split("***")]
    kept = parts[not parts[0] : len(parts) - (not parts[-1])]
    return all(kept) and len(kept) == num_paragraphs


def nth_paragraph_first_word(answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """There are exactly so many paragraphs with a blank line between them, and the nth begins with a word."""
    parts = answer.split("\n\n")
    filled = sum(bool(part.strip()) for part in parts)
    if filled != num_paragraphs or nth_paragraph > filled:
        return False
    words = parts[nth_paragraph - 1].split()
    if not words:
        return False
    return re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'))[0].lower() == first_word.lower()


def number_placeholders(answer: str, num_placeholders: int) -> bool:
    """There are at least so many [placeholders]."""
    # the innermost brackets: as many as the outermost, and found in one pass whatever the text
    return len(re.findall(r"\[[^\n\[\]]*\]", answer)) >= num_placeholders


def postscript(answer: str, postscript_marker: str) -> bool:
    """The marker of a postscript stands somewhere; P.S. and P.P.S may have blanks within."""
    spaced = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    return re.search(spaced.get(postscript_marker, re.escape(postscript_marker.lower())), answer.lower()) is not None


def number_bullet_lists(answer: str, num_bullets: int) -> bool:
    """Exactly so many lines begin with a bullet, "* " or "-"."""
    stars = re.findall(r"^[^\S\n]*\*[^*]", answer, re.MULTILINE)
    return len(stars) + len(re.findall(r"^[^\S\n]*-", answer, re.MULTILINE)) == num_bullets


def constrained_response(answer: str) -> bool:
    """One of the three given answers stands in the text."""
    return any(option in answer for option in OPTIONS)


def number_highlighted_sections(answer: str, num_highlights: int) -> bool:
    """There are at least so many *highlights*, in one star or two."""
    single = [found for found in re.findall(r"\*([^\n*]*)\*", answer) if found.strip()]
    double = [found for found in re.findall(r"\*\*([^\n*]*)\*\*", answer) if found.strip()]
    return len(single) + len(double) >= num_highlights


def multiple_sections(answer: str, section_spliter: str, num_sections: int) -> bool:
    """There are at least so many sections, each with "SECTION 1" and so on before it."""
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", answer)) >= num_sections


def json_format(answer: str) -> bool:
    """The whole text is JSON, in a fence of markdown or not."""
    inner = re.sub(r"^```(?:json)?|```$", "", answer.strip(), flags=re.IGNORECASE)
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return False
    return True


def title(answer: str) -> bool:
    """There is a <<title>> within a line."""
    for line in answer.split("\n"):
        found = line[line.find("<<") : line.rfind(">>") + 2]
        if "<<" in line and len(found) > 4 and found.lstrip("<").rstrip(">").strip():
            return True
    return False


def two_responses(answer: str) -> bool:
    """There are two different answers with six stars between them."""
    parts = [part.strip() for part in answer.split("******")]
    kept = [part for part in parts if part]
    return all(parts[1:-1]) and len(kept) == 2 and kept[0] != kept[1]


def repeat_prompt(answer: str, prompt_to_repeat: str) -> bool:
    """The text begins with the request, in capitals or not."""
    return answer.strip().lower().startswith(prompt_to_repeat.lower())


def end_checker(answer: str, end_phrase: str) -> bool:
    """The text ends with a phrase, in capitals or not; quotation marks around the whole do not count."""
    return answer.strip().strip('"').lower().endswith(end_phrase.lower())


def quotation(answer: str) -> bool:
    """Double quotation marks stand around the whole text."""
    stripped = answer.strip()
    return len(stripped) > 1 and stripped[0] == stripped[-1] == '"'


def capital_word_frequency(answer: str, capital_frequency: int, capital_relation: str) -> bool:
    """There are so many words in capitals."""
    return compared(count_capital_words(answer), capital_relation, capital_frequency)


def english_capital(answer: str) -> bool:
    """The text is in English, and in capitals."""
    return answer.isupper() and language_of(answer) == "en"


def english_lowercase(answer: str) -> bool:
    """The text is in English, and in small letters."""
    return answer.islower() and language_of(answer) == "en"


def no_comma(answer: str) -> bool:
    """There is no comma."""
    return "," not in answer


_COMPARED: dict[str, Callable[[object], Any]] = {"relation": relation}

INSTRUCTIONS: dict[str, tuple[Callable[..., bool], dict[str, Callable[[object], Any]]]] = {
    "keywords:existence": (keywords_exist, {"keywords": texts}),
    "keywords:frequency": (keyword_frequency, {"keyword": text, "frequency": whole_number, **_COMPARED}),
    "keywords:forbidden_words": (no_forbidden_words, {"forbidden_words": texts}),
    "keywords:letter_frequency": (
        letter_frequency,
        {"letter": letter, "let_frequency": whole_number, "let_relation": relation},
    ),
    "language:response_language": (response_language, {"language": language}),
    "length_constraints:number_sentences": (number_sentences, {"num_sentences": whole_number, **_COMPARED}),
    "length_constraints:number_paragraphs": (number_paragraphs, {"num_paragraphs": whole_number}),
    "length_constraints:number_words": (number_words, {"num_words": whole_number, **_COMPARED}),
    "length_constraints:nth_paragraph_first_word": (
        nth_paragraph_first_word,
        {"num_paragraphs": place, "nth_paragraph": place, "first_word": text},
    ),
    "detectable_content:number_placeholders": (number_placeholders, {"num_placeholders": whole_number}),
    "detectable_content:postscript": (postscript, {"postscript_marker": text}),
    "detectable_format:number_bullet_lists": (number_bullet_lists, {"num_bullets": whole_number}),
    "detectable_format:constrained_response": (constrained_response, {}),
    "detectable_format:number_highlighted_sections": (number_highlighted_sections, {"num_highlights": whole_number}),
    "detectable_format:multiple_sections": (
        multiple_sections,
        {"section_spliter": text, "num_sections": whole_number},
    ),
    "detectable_format:json_format": (json_format, {}),
    "detectable_format:title": (title, {}),
    "combination:two_responses": (two_responses, {}),
    "combination:repeat_prompt": (repeat_prompt, {"prompt_to_repeat": text}),
    "startend:end_checker": (end_checker, {"end_phrase": text}),
    "startend:quotation": (quotation, {}),
    "change_case:capital_word_frequency": (
        capital_word_frequency,
        {"capital_frequency": whole_number, "capital_relation": relation},
    ),
    "change_case:english_capital": (english_capital, {}),
    "change_case:english_lowercase": (english_lowercase, {}),
    "punctuation:no_comma": (no_comma, {}),
}
"""Each instruction by its id: what follows it, and how its arguments are read."""


def check_of(name: object, given: Mapping[str, Any]) -> Instruction:
    """Return whether a text follows an instruction, as a function.

    Raises:
        ValueError: the instruction is unknown, or the arguments are not its own.
    """
    if name not in INSTRUCTIONS:
        raise ValueError(f"{str(name)[:60]!r} is no instruction: known are {', '.join(INSTRUCTIONS)}")
    follows, readers = INSTRUCTIONS[str(name)]
    if given.keys() != readers.keys():
        takes = ", ".join(readers) or "no arguments"
        raise ValueError(f"{name} takes {takes}: found {', '.join(given) or 'none'}")
    arguments = {}
    for key, read in readers.items():
        try:
            arguments[key] = read(given[key])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name}: {key} is {str(given[key])[:40]!r}: {error}") from None
    return lambda answer: follows(answer, **arguments)
