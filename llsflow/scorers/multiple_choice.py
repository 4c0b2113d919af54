"""basic::regex_parser_multiple_choice_answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from llsflow.scorers.base import NO_ANSWER, Params, ScoreRow, answers, unscored
from llsflow.scorers.parsing import Parser, RegexScorer, RegexTimeoutError

# The idea of one "Answer:" per language: OpenAI simple-evals, common.py (github.com/openai/simple-evals).
# This list, the small words after the prefix and the letter forms are compiled here.
PREFIXES = (
    *("Answer", "Antwort", "Lösung", "Antwoord", "Svar", "Vastaus"),  # Germanic languages, Finnish
    *("Réponse", "Respuesta", "Resposta", "Risposta", "Răspuns(?:ul)?"),  # Romance languages
    *("Odpowiedź", "Odpověď", "Odpoveď", "Odgovor", "Ответ", "Відповідь", "Отговор", "Одговор"),  # Slavic
    *("Válasz", "Απάντηση", "Cevap", "Yanıt"),
    *("الإجابة", "الاجابة", "إجابة", "الجواب", "جواب", "پاسخ", "תשובה"),  # Arabic, Persian, Urdu, Hebrew
    *("उत्तर", "जवाब", "উত্তর", "ਜਵਾਬ", "જવાબ", "பதில்", "விடை", "సమాధానం", "జవాబు"),  # languages of India
    *("คำตอบ", "Đáp án", "Câu trả lời", "Jawaban", "Jawapan", "Sagot", "Jibu", "Ìdáhùn", "Idahun"),
    *("答案", "回答", "答え", "解答", "正解", "정답", "답변", "답"),  # Chinese, Japanese, Korean
)
_LATIN_LINKS = (
    *("is", "should be", "must be", "would be", "will be", "ist", "es", "est", "é", "è", "är", "er", "on"),
    *("jest", "je", "este", "là", "adalah", "ni"),
)
_NAMES = ("the", "option", "choice", "letter", "opción", "opção", "opzione", "réponse")
_OTHER_LINKS = ("هي", "هو", "है", "是", "为", "為", "は", "은", "는")
LETTER_FORMS = {
    "Arabic": "أبجد",
    "Bengali": "কখগঘ",
    "Devanagari": "कखगघ",
    "Katakana": "アイウエ",
    "Han": "甲乙丙丁",
}
"""The first four choices as other scripts number them; full-width Latin letters are folded by NFKC."""
_LATIN = {form: "ABCD"[i] for forms in LETTER_FORMS.values() for i, form in enumerate(forms)}
# letters of other alphabets that look like Latin ones, and Greek ones in their own order
_LATIN |= dict(zip("АВСЕНΑΒΓΔΕΗΙ", "ABCEHABCDEHI", strict=True))
# bare alif; Bengali letters by their sound, as translated sets use them
_LATIN |= {"\u0627": "A", "অ": "A", "ব": "B", "ড": "C", "দ": "D"}


def _default_regex() -> str:
    prefix = unicodedata.normalize("NFKC", "|".join(sorted(PREFIXES, key=len, reverse=True)))
    links = rf"(?i:{'|'.join(_LATIN_LINKS)})(?!\p{{Latin}})|{'|'.join(_OTHER_LINKS)}"
    marks = r"(?:\\(?:boxed|text)\s*\{|</?\w+>|[\s:*_\-–—(\[\"'`«「$=])*"
    named = rf"(?:(?i:{'|'.join(_NAMES)})(?!\p{{Latin}}){marks})?"
    lead = rf"(?i:{prefix})[\s:*_=]*(?:{links})?{marks}{named}"
    # "Answer: I think…" and "the answer is a number" are words, not choices: those letters must stand alone
    alone = r"([a-jI])(?=\s*(?:$|[.,;:)\]}*_\"'»」$\n]))"
    choices = [r"([A-HJ])(?![\p{Latin}\p{M}\p{N}'’])", alone, r"([АВСЕНΑΒΓΔΕΗΙ])(?![\p{L}\p{M}\p{N}])"]
    for script in LETTER_FORMS:
        forms = "".join(f for f in _LATIN if _script(f) == script)
        choices.append(rf"([{forms}])(?![\p{{{script}}}\p{{M}}])")
    return rf"{lead}(?|{'|'.join(choices)})"


def _script(letter: str) -> str:
    name = unicodedata.name(letter).split()[0]
    return "Han" if name == "CJK" else name.capitalize()


class MultipleChoice(RegexScorer):
    """1.0 when the choice that the generated answer names is the expected one; else 0.0.

    Reads "Answer: B" in some forty languages, with the letters A to J and the first four letters of other
    scripts; the last one in the text counts, as models correct themselves. `parsed_answer` is what was read, null when
    nothing was. A row whose expected answer is no choice is unscored. Regexes of one's own are used as they are: the
    first match counts, and the expected answer may be any text.
    """

    id = "basic::regex_parser_multiple_choice_answer"
    default_regexes = (_default_regex(),)

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        regexes = self.regexes(params)
        parse = Parser(regexes, last=regexes == self.default_regexes)
        # the default regex is written for folded text; one from a user meets the text as it is
        fold = regexes == self.default_regexes

        def score(row: Mapping[str, Any]) -> dict[str, Any]:
            pair = answers(row)
            if pair is None:
                return unscored(NO_ANSWER, parsed_answer=None)
            expected = choice(pair[0])
            if fold and expected not in CHOICES:
                return unscored(
                    f"expected_answer {pair[0][:40]!r} is no choice: a letter from A to J", parsed_answer=None
                )
            try:
                found = parse(folded(pair[1]) if fold else pair[1])
            except RegexTimeoutError as error:
                return unscored(str(error), parsed_answer=None)
            parsed = None if found is None else choice(found)
            return {"score": 1.0 if parsed == expected else 0.0, "parsed_answer": parsed}

        return score


CHOICES = frozenset("ABCDEFGHIJ")


def folded(text: str) -> str:
    """Return a text in the form that the default regex reads: NFKC, without characters that are not seen."""
    return "".join(sign for sign in unicodedata.normalize("NFKC", text) if unicodedata.category(sign) != "Cf")


def choice(text: str) -> str:
    """Return the Latin capital of a choice such as "b", "(B)" or "ب"; another text as it is, stripped."""
    text = unicodedata.normalize("NFKC", text).strip()
    bare = text.strip("()[]*.: ")
    if len(bare) == 1:
        return _LATIN.get(bare, bare.upper())
    return text
