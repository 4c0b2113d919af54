"""basic::regex_parser_multiple_choice_answer."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping
from typing import Any

from llsflow.scorers.base import NO_ANSWER, Params, ScoreRow, answers, unscored
from llsflow.scorers.parsing import TIME_LIMIT_SECONDS, Parser, RegexScorer, RegexTimeoutError, compiled

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


# what may stand around a letter: Markdown, LaTeX, HTML, quotes, brackets
_OPEN = (
    r"(?:\\(?:boxed|fbox|mbox|text\w*|math\w+|bf|rm)\s*\{?|\\[(\[]|</?\w+(?:\s[^<>\n]*)?>"
    r"|[\s:*_\-–—(\[{\"'`«「“”„‘’$=])*+"
)
_CLOSE = r"(?:\\[)\]]|</\w+>|[\s*_)\]}\"'`»」“”’$])*+"
# "Answer: I think…" and "the answer is a number" are words, not choices: those letters must stand alone
_ALONE = r"(?=\s*(?:$|[.,;:)\]}*_\"'»」”’$\n])|[`\\</])(?!\.\p{L})"
_SMALL = rf"[a-jI](?!['’]\p{{L}}){_ALONE}"
# "D'Artagnan" and "C++" are no choices
_CAPITAL = r"[A-HJ](?!['’]?[\p{Latin}\p{M}\p{N}]|\+\+|#)"


def _letters() -> str:
    found = [_CAPITAL, _SMALL, r"[АВСЕНΑΒΓΔΕΗΙ](?![\p{L}\p{M}\p{N}])"]
    for script in LETTER_FORMS:
        forms = "".join(f for f in _LATIN if _script(f) == script)
        found.append(rf"[{forms}](?![\p{{{script}}}\p{{M}}])")
    return rf"(?:{'|'.join(found)})"


def _regexes() -> dict[str, str]:
    """Return the regexes of statements; the letter is group 1."""
    prefix = unicodedata.normalize("NFKC", "|".join(sorted(PREFIXES, key=len, reverse=True)))
    prefix = rf"(?i:{prefix}|(?:correct|right|best)\s+(?:option|choice))"
    links = rf"(?:(?i:{'|'.join(_LATIN_LINKS)})(?!\p{{Latin}})|{'|'.join(_OTHER_LINKS)})"
    named = rf"(?:(?i:{'|'.join(_NAMES)})(?!\p{{Latin}}){_OPEN})?"
    letter = _letters()
    # "Answer: B", "the answer is B", "<answer>B", "Answer $\boxed{B}$"
    says = rf"(?:[\s*_\"'`)\]]*+[:=][\s:*_=]*+{links}?|[\s*_]*+{links}|\s*+(?:[-–—]+>?|→|⇒)\s|\s*\$?(?=\\boxed))"
    other = rf"(?:(?i:not)\s+{named}[(*]*[A-J][)*]*\s*[,;:.–—-]*\s*(?i:but|it\s+is|it['’]s|rather|instead)\s+)?"
    asks = rf"{prefix}(?:\s+(?i:choice|option|letter))?{says}\s*+{other}"
    tag = rf"<{prefix}(?:\s[^<>\n]*)?>"
    clear = rf"(?:{asks}|{tag}){_OPEN}{named}({letter})"
    # "option B is correct", "(B) is the right answer": not "option B is correct only if"
    right = r"(?i:is)\s+(?:(?i:the|only)\s+)*(?i:correct|right|best)(?:\s+(?i:answer|option|choice|one))?"
    ends = r"[\s*_)\"']*(?:[.!\n,;]|$|(?i:because|since|as)\b)"
    called = rf"(?:(?i:option|choice|letter|answer)\s+{_OPEN}|(?<=[\n(*]|^)\s*(?=[A-J][\s)*]))"
    doubted = r"(?<!(?i:\b(?:if|whether|not|why|that))\s+(?:(?i:the)\s+)?)"
    reverse = rf"{doubted}{called}([A-Ja-j](?!\p{{L}})){_CLOSE}{right}(?={ends})"
    # "Answer (B)" as a sentence of its own, or what a reply begins with: elsewhere it is a mention
    few = r"(?:(?i:the|my|so|thus|hence|therefore|final|correct|right|best)[\s,]+)*"
    wrong = r"[^\n.]*\b(?i:wrong|incorrect|false|not|no)\b"
    mention = rf"{prefix}{_OPEN}{named}({letter})"
    only = rf"(?={_CLOSE}[,:;](?!{wrong})(?!(?s:.)*{prefix}{_OPEN}{named}{letter}))"
    picks = r"(?<!(?i:\bnot|n['’]t)\s+)\b(?i:choose|pick|select|go\s+with)\s+(?i:the\s+)?"
    bare = "|".join(
        (
            rf"{picks}{mention}(?={_CLOSE}(?:[.,!;\n]|$))",
            rf"(?:^|[\n.!?:])[\s*_#>\-(\[\"']{{0,20}}+{few}{mention}(?={_CLOSE}(?:[.!]\s|[.!]?$)|[ *_)]*\n)",
            rf"^[\s*_#>\-(\[\"']{{0,20}}+{few}{mention}{only}",
            # a heading, and then "B) Paris"
            rf"(?:^|\n)[ *_#>]*+{few}{prefix}[ *_]*\n{_OPEN}{named}({letter})(?=[*_]*[).:])",
        )
    )
    # "B", "(B)", "Option B."
    whole = rf"^{_OPEN}{named}({letter})(?={_CLOSE}[.!:]?{_CLOSE}$)"
    # what makes several of one: "or B", "/C", ", D"
    words = "and/or|or|and|oder|und|ou|et|o|y|e|и|или"
    joins = rf"(?:\s*([/|&+、]|-(?=[A-J]\b))\s*|\s*,?\s*\b(?i:{words})\s+|\s*[和或]\s*)"
    joined = rf"{joins}{_OPEN}{named}{letter}(?!\s+(?i:is|was|isn|has|would|can|think|am)\b)"
    # "Answer: B, A is wrong" names one
    listed = rf"\s*[,;]\s*{_OPEN}{named}{letter}(?={_CLOSE}(?:$|[.\n,;]|(?i:{words})\b|&))(?!{wrong})"
    next_ = rf"{_CLOSE}(?:{joined}|{listed})"
    return {"stated": rf"(?|{clear}|{reverse})", "bare": rf"(?|{bare})", "whole": whole, "next": next_}


def _script(letter: str) -> str:
    name = unicodedata.name(letter).split()[0]
    return "Han" if name == "CJK" else name.capitalize()


_REGEXES = _regexes()


class MultipleChoice(RegexScorer):
    """1.0 when the choice that the generated answer names is the expected one; else 0.0.

    Reads "Answer: B" in some forty languages, with the letters A to J and the first four letters of other
    scripts; the last clear statement in the text counts, as models correct themselves, and a reply that is nothing but
    a choice is one. Who names several choices names none. `parsed_answer` is what was read, null when nothing was. A
    row whose expected answer is no choice is unscored. Regexes of one's own are used as they are: the first match
    counts, and the expected answer may be any text.
    """

    id = "basic::regex_parser_multiple_choice_answer"
    default_regexes = (_REGEXES["stated"],)

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        regexes = self.regexes(params)
        # the default regexes are written for folded text; one from a user meets the text as it is
        fold = regexes == self.default_regexes
        parse = _stated if fold else Parser(regexes)

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
    """Return a text in the form that the default regexes read: NFKC, without HTML's names and unseen characters."""
    text = unicodedata.normalize("NFKC", html.unescape(text))
    return "".join(sign for sign in text if unicodedata.category(sign) != "Cf")


def _stated(text: str) -> str | None:
    """Return the choice that a folded text states; None when it states none, or several in the end.

    Raises:
        RegexTimeoutError: a search took longer than TIME_LIMIT_SECONDS.
    """
    text = text.strip()
    try:
        for kind in ("stated", "bare", "whole"):
            found, last = False, None
            for match in compiled(_REGEXES[kind]).finditer(text, timeout=TIME_LIMIT_SECONDS, concurrent=True):
                named, separated = _named(text, match.end(1))
                # "Answer: A/B/C/D" is how the question asked to be answered
                if named < 3 and not separated:
                    found, last = True, match[1] if named == 1 else None
            if found:
                return last
    except TimeoutError as error:
        raise RegexTimeoutError(f"the search for a choice took over {TIME_LIMIT_SECONDS:g} s") from error
    return None


def _named(text: str, end: int) -> tuple[int, bool]:
    """Return how many choices stand beside each other, of which the first ends there, and whether by signs as "/"."""
    count, separated = 1, False
    while match := compiled(_REGEXES["next"]).match(text, end, timeout=TIME_LIMIT_SECONDS, concurrent=True):
        count, end = count + 1, match.end()
        separated = separated or match[1] in {"/", "|"}
    return count, separated


def choice(text: str) -> str:
    """Return the Latin capital of a choice such as "b", "(B)" or "ب"; another text as it is, stripped."""
    text = unicodedata.normalize("NFKC", text).strip()
    bare = text.strip("()[]*.: ")
    if len(bare) == 1:
        return _LATIN.get(bare, bare.upper())
    return text
