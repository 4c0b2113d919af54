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
_LATIN_LINKS = ("is", "ist", "es", "est", "é", "è", "är", "er", "on", "jest", "je", "este", "là", "adalah", "ni")
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
# bare alif; Bengali letters by their sound, as translated sets use them
_LATIN |= {"\u0627": "A", "অ": "A", "ব": "B", "ড": "C", "দ": "D"}


def _default_regex() -> str:
    prefix = unicodedata.normalize("NFKC", "|".join(sorted(PREFIXES, key=len, reverse=True)))
    links = rf"(?i:{'|'.join(_LATIN_LINKS)})(?!\p{{Latin}})|{'|'.join(_OTHER_LINKS)}"
    marks = r"(?:\\(?:boxed|text)\s*\{|[\s:*_\-–—(\[\"'«「$])*"
    lead = rf"(?i:{prefix})[\s:*_]*(?:{links})?{marks}"
    # "Answer: I think…" and "the answer is a number" are words, not choices: those letters must stand alone
    alone = r"([a-jI])(?=\s*(?:$|[.,;:)\]}*_\"'»」$\n]))"
    choices = [r"([A-HJ])(?![\p{Latin}\p{M}\p{N}'’])", alone]
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
    scripts; the first one in the text counts. `parsed_answer` is what was read, null when nothing was.
    """

    id = "basic::regex_parser_multiple_choice_answer"
    default_regexes = (_default_regex(),)

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        regexes = self.regexes(params)
        parse = Parser(regexes)
        # the default regex is written for folded text; one from a user meets the text as it is
        fold = regexes == self.default_regexes

        def score(row: Mapping[str, Any]) -> dict[str, Any]:
            pair = answers(row)
            if pair is None:
                return unscored(NO_ANSWER, parsed_answer=None)
            try:
                found = parse(unicodedata.normalize("NFKC", pair[1]) if fold else pair[1])
            except RegexTimeoutError as error:
                return unscored(str(error), parsed_answer=None)
            parsed = None if found is None else choice(found)
            return {"score": 1.0 if parsed == choice(pair[0]) else 0.0, "parsed_answer": parsed}

        return score


def choice(text: str) -> str:
    """Return the Latin capital of a choice such as "b", "(B)" or "ب"; another text as it is, stripped."""
    text = unicodedata.normalize("NFKC", text).strip()
    bare = text.strip("()[]*.: ")
    if len(bare) == 1:
        return _LATIN.get(bare, bare.upper())
    return text
