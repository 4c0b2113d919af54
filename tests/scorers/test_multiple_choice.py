"""basic::regex_parser_multiple_choice_answer: languages, letters, and words that only look like a choice."""

from __future__ import annotations

import pytest

from llsflow.schema.scoring import RegexParserScoringFnParams
from llsflow.scorers import score_rows
from llsflow.scorers.multiple_choice import MultipleChoice, choice


def parsed(generated: str, expected: str = "A") -> str | None:
    row = {"expected_answer": expected, "generated_answer": generated}
    (result,) = score_rows([row], MultipleChoice.id).score_rows
    assert result["score"] == float(result["parsed_answer"] == choice(expected))
    answer = result["parsed_answer"]
    assert answer is None or isinstance(answer, str)
    return answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The correct answer is B, because A is wrong", "B"),
        ("answer: b", "B"),
        ("ANSWER: D)", "D"),
        (r"Answer: $\boxed{B}$", "B"),
        (r"Answer: \text{B}", "B"),
        ("Answer:\n\nB", "B"),
        ("Answer: J", "J"),
        ("Answer: A, then Answer: B", "B"),
        ("First I thought the answer is A, but the final answer is C.", "C"),
        ("<think>maybe answer: A</think>\nAnswer: B", "B"),
        ("Answer: <b>B</b>", "B"),
        ("Answer:\n```\nB\n```", "B"),
        ("Answer: `B`", "B"),
        ("Answer = B", "B"),
        ("Answer: Option B", "B"),
        ("The correct answer should be B.", "B"),
        ("The answer must be option (C)", "C"),
        ("Answer: \u200bB", "B"),
        ("Ответ: С", "C"),  # the Cyrillic letter
        ("Απάντηση: Β", "B"),  # the Greek letter
        ("**Antwort:** (C)", "C"),
        ("Răspunsul C.", "C"),
        ("因为… 答案：Ｃ\nfin", "C"),
        ("คำตอบ: C", "C"),
        ("תשובה: C", "C"),
        ("答えはBです", "B"),
        ("正确答案是B", "B"),
        ("정답은 B입니다", "B"),
        ("Đáp án là D", "D"),
        ("الإجابة: ب", "B"),
        ("উত্তর: গ", "C"),
        ("उत्तर: घ", "D"),
        ("答え：ウ", "C"),
        ("答案：丁", "D"),
    ],
)
def test_the_last_named_choice_is_read(text: str, letter: str) -> None:
    assert parsed(text, letter) == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "the answer is a number",
        "Answer: Apple",
        "Answer: I think it is hard",
        "Answer: B2",
        "Answer: A's",
        "Answer: K",
        "الإجابة: باب",
        "答え：アメリカ",
    ],
)
def test_words_are_no_choice(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize("expected", ["B", "b", "(B)", " B. ", "ب", "Ｂ", "イ"])
def test_the_expected_letter_may_be_written_in_any_of_these_ways(expected: str) -> None:
    assert parsed("Answer: B", expected) == "B"
    assert MultipleChoice().score({"expected_answer": expected, "generated_answer": "Answer: B"})["score"] == 1.0


def test_own_regexes_replace_the_default_ones_and_may_read_longer_answers() -> None:
    params = RegexParserScoringFnParams(parsing_regexes=[r"<<(.*?)>>"])
    scorer = MultipleChoice()
    row = {"expected_answer": "true", "generated_answer": "Answer: B <<true>>"}
    assert scorer.score(row, params) == {"score": 1.0, "parsed_answer": "true"}
    unscored = scorer.score(row)
    assert unscored["unscored"] == "expected_answer 'true' is no choice: a letter from A to J"
    corrected = {"expected_answer": "a", "generated_answer": "<<a>> <<b>>"}
    assert scorer.score(corrected, params)["score"] == 1.0, "of one's own regexes the first match counts"


@pytest.mark.parametrize("expected", ["2", "", "both", "K"])
def test_an_expected_answer_that_is_no_choice_is_unscored(expected: str) -> None:
    result = MultipleChoice().score({"expected_answer": expected, "generated_answer": "Answer: B"})
    assert result["score"] is None
    assert "is no choice: a letter from A to J" in result["unscored"]
