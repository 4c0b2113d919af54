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


@pytest.mark.parametrize(
    "text",
    [
        "Answer: B\n\nExplanation:\n- Answer A: wrong because it is old\n- Answer C: wrong because it is new",
        "The answer is B. Answer choice D is incorrect since it is old",
        "The correct answer is B. The answer A is a distractor.",
        "Answer: B. I ruled out answer C.",
        "Answer: B\n\nThe answer A) is wrong",
        "Answer: A\nWait, option B is correct.",
        "Answer: B. Option A is correct only if it rains.",
        "Answer: B, A is wrong",
        "Answer: B, C and D are wrong",
        "Option A is wrong. Option B is correct.",
        "(B) is the correct answer.",
        "The correct option is B.",
        "Answer choice: B",
        "Answer - B",
        "## Answer\n\nB) Paris",
        "**Answer**\nB",
        "Answer (B)",
        "Answer B, because it is old",
        "<answer>B</answer>\nA is wrong because it is old",
        "The answer is not A but B.",
        "I ruled out answer A. So I go with answer B.",
    ],
)
def test_a_mention_is_no_statement(text: str) -> None:
    assert parsed(text) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "I ruled out answer C.",
        "I would not pick answer C.",
        "Answer A: wrong\nAnswer C: right",
        "The answer A) is wrong",
    ],
)
def test_mentions_alone_state_nothing(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Answer: A or B",
        "Answer: A, B",
        "Answer: A and B are both possible",
        "Answer: A & C",
        "Answer: A/B/C/D",
        "Answer: [A/B/C/D]",
        "The answer is A or C.",
        "Answer: **A** or **B**",
        "Answer: A) or B)",
        "Answer: A+B",
        "Answer: a or b",
        "Format: 'Answer: A/B/C/D'",
        "Answer: A, B, C or D",
        "答案：A和B",
        "A or B",
        "Answer: A\n\nNo, the answer is A or B.",
        "Answer: C++",
        "Answer: D'Artagnan",
        "Answer: C#",
    ],
)
def test_several_choices_are_none(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize("echo", ["Format: 'Answer: A/B/C/D'", "Write 'Answer: A, B, C or D'", "Answer: [A|B|C|D]"])
def test_how_the_question_asked_to_be_answered_is_no_statement(echo: str) -> None:
    assert parsed(f"{echo}\n\nAnswer: B") == "B"
    assert parsed(f"Answer: B\n\n({echo})") == "B"


@pytest.mark.parametrize(
    "text",
    [
        r"Answer: \(B\)",
        r"Answer: \(\boxed{B}\)",
        r"The answer is \(\boxed{\text{B}}\).",
        r"Answer: \[\boxed{B}\]",
        r"Answer $\boxed{B}$",
        r"Answer: $\mathbf{B}$",
        r"Answer: \textbf{B}",
        r"Answer: \mathrm{B}",
        r"\mathrm{B}",
        "Answer: “B”",
        "Answer: ‘B’",
        "Answer: 'B'",
        "{'answer': 'B'}",
        '{"answer": "B"}',
        "Answer:&nbsp;B",
        'Answer: <span class="x">B</span>',
        "<answer>B</answer>",
        "<answer>\nb\n</answer>",
    ],
)
def test_markup_and_quotes_are_read_through(text: str) -> None:
    assert parsed(text) == "B"


def test_a_choice_that_is_denied_is_not_named() -> None:
    assert parsed("The answer is not A, it is C.") == "C"
    assert parsed("The answer is not A.") is None


@pytest.mark.parametrize(
    "text", ["B", "(B)", "B.", r"\boxed{B}", " b\n", "**B**", "B)", "Option B", "Ｂ", r"$\boxed{\text{(B)}}$"]
)
def test_a_reply_that_is_nothing_but_a_choice_counts_as_it(text: str) -> None:
    assert parsed(text) == "B"


@pytest.mark.parametrize(
    "unit", ["Answer: ", "answer ", "the ", "\\text{", "A or ", "Answer: A, ", "* ", "not A, ", "<a b ", "*\n"]
)
def test_long_texts_are_read_in_time(unit: str) -> None:
    row = {"expected_answer": "B", "generated_answer": f"{unit * 3000}\nAnswer: B"}
    assert MultipleChoice().score(row) == {"score": 1.0, "parsed_answer": "B"}
