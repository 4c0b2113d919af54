"""basic::regex_parser_math_response: reading the final answer and comparing it by value."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.schema.scoring import RegexParserScoringFnParams
from llsflow.scorers import equivalence
from llsflow.scorers.equivalence import UndecidedError, Worker, equivalent
from llsflow.scorers.math_response import MathResponse
from llsflow.scorers.mathtext import number, plain
from tests.patience import PATIENCE_SECONDS


def score(expected: Any, generated: str) -> dict[str, Any]:
    return MathResponse().score({"expected_answer": expected, "generated_answer": generated})


@pytest.mark.parametrize(
    ("generated", "answer"),
    [
        (r"The final answer is: $\boxed{5}$. I hope it is correct.", "5"),
        (r"final answer is $\boxed{5}$", "5"),
        (r"Final Answer is: \boxed{ 5 }", "5"),
        ("final answer is: $\\boxed{4}$\nNo: the final answer is: $\\boxed{5}$", "5"),
        (r"final answer is: $\boxed{\frac{1}{\sqrt{2}}}$", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{5}", "5"),
        (r"First $\boxed{4}$. Then $x = \boxed{5}$, which was asked for.", "5"),
        (r"The final answer is: $\boxed{5}$. Indeed \boxed{4} would be too few.", "5"),
        ("the final answer is 5", "5"),
        ("The final answer is 5. I hope it is correct.", "5"),
        ("**Final answer:** 5.", "5"),
        ("**Final Answer**\n\n5", "5"),
        ("**The answer is 5.**", "5"),
        (r"The answer is $5.0$. It is small.", "$5.0$"),
        ("Answer: 4\nNo. Answer: 5 apples", "5 apples"),
        (r"final answer is: $\boxed{5", None),
        ("I do not know.", None),
        ("5", "5"),
        ("5 and more", None),
        (r"The final answer is: \(\boxed{5}\)", "5"),
        (r"The final answer is: \[\boxed{5}\]", "5"),
        ("The final answer is:\n\n\\[\n\\boxed{5}\n\\]", "5"),
        (r"**Final Answer:** $\boxed{5}$", "5"),
        ("**The final answer is:**\n$$\\boxed{5}$$", "5"),
        (r"### Final Answer\n".replace("\\n", "\n") + r"$\boxed{5}$", "5"),
    ],
)
def test_the_last_final_answer_is_read(generated: str, answer: str | None) -> None:
    result = score("5", generated)
    assert result["parsed_answer"] == answer
    assert result["score"] == float(answer in ("5", "5 apples", "$5.0$"))


@pytest.mark.parametrize("expected", ["0.5", 0.5, r"\frac{1}{2}", r"so $x = \boxed{\frac12}$.", "$1/2$"])
def test_the_expected_answer_may_be_a_plain_value_or_a_solution(expected: Any) -> None:
    assert score(expected, r"final answer is: $\boxed{0.50}$")["score"] == 1.0


SAME = [
    (r"\frac{1}{2}", "0.5"),
    (r"\frac12", "1/2"),
    (r"\dfrac{3}{4}", r"\tfrac34"),
    ("1,234,567", "1234567"),
    ("x = 5", "5"),
    (r"3\frac{1}{2}", "3.5"),
    (r"5\text{ cm}", "5"),
    (r"12\%", "12"),
    ("12 percent", r"12\%"),
    ("1 234 567.5", "1234567.5"),
    ("€7.50", "7.5"),
    ("0,25", "1/4"),
    ("0,111", "0.111"),
    ("1 000 4/9", "9004/9"),
    (r"90^\circ", "90"),
    (r"\$7.50", "7.5"),
    (r"\left(1,\,2\right)", "(1, 2)"),
    (r"\text{Monday}", "Monday"),
    ("-1/3", r"\frac{-1}{3}"),
    ("10^{-3}", "0.001"),
    ("2^{10}", "1024"),
    (r"\{1, 2\}", r"\{1,2\}"),
    (r"(-\infty, \frac{1}{2}]", r"(-\infty,0.5]"),
    (r"2\cdot 3 \pi", r"6\pi"),
    (r"\sqrt{8}", r"2\sqrt2"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"\sqrt[3]{8}", "2"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\sin^2 x + \cos^2 x", "1"),
    (r"\log_2 8", "3"),
    (r"e^{x} e", "e^{x+1}"),
    ("sqrt(2)/2", r"\frac{\sqrt{2}}{2}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    ("18", r"18\,\text{cm}"),
    ("18", r"18~\text{cm}"),
    ("18", r"18\;\mathrm{cm}"),
    ("18", r"18\,\text{cm}^2"),
    (r"\frac{5}{2}", "2 1/2"),
    (r"\frac{5}{2}", r"2 \frac{1}{2}"),
    ("-2 1/2", "-2.5"),
    (r"(-\infty,\infty)", r"(-\infty,+\infty)"),
    (r"x \in [-2,7]", "[-2,7]"),
    ("4.2e3", "4200"),
    ("100", "1e2"),
    ("1e-3", "0.001"),
    (r"\binom{5}{2}", "10"),
    ("2x+3y=6", "3y+2x=6"),
    (r"\{1, 2\}", r"\{2, 1\}"),
    (r"\frac{1}{3}", r"\frac{2}{6}"),
    ("7", "7.0"),
    (r"1{,}234", "1234"),
]
DIFFERENT = [
    ("34", "3 4"),
    ("21/2", "2 1/2"),
    ("x=5", "y=5"),
    (r"-\infty", r"+\infty"),
    ("(0,1)", "(0,1]"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    ("0.333", "1/3"),
    ("1,234", "1234.5"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "(1,2,3)"),
    ("no", "on"),
    ("11 6/6", "12"),
    ("Monday", "Tuesday"),
    ("x", "y"),
    ("x^2", "2x"),
    (r"\sqrt{2}", "1.414"),
    ("5", ""),
    ("1/0", "2/0"),
    ("x_1", "x_2"),
    (r"\infty", r"-\infty"),
    ("__import__('os').system('true')", "0"),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_same_value(left: str, right: str) -> None:
    assert equivalent(left, right)
    assert equivalent(right, left)


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_another_value(left: str, right: str) -> None:
    assert not equivalent(left, right)
    assert not equivalent(right, left)


@pytest.mark.parametrize(("left", "right"), [("1/3", "0.333"), ("12", "13"), ("no", "on"), ("Monday", "12")])
def test_numbers_and_words_need_no_other_process(left: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: object, **__: object) -> bool:
        raise AssertionError("math-verify was asked")

    monkeypatch.setattr(equivalence.WORKER, "equal", called)
    equivalent.cache_clear()
    assert not equivalent(left, right)


@given(
    st.fractions(max_denominator=10_000),
    st.sampled_from(["{a}/{b}", r"\frac{{{a}}}{{{b}}}", r"\dfrac{{ {a} }}{{ {b} }}"]),
)
@settings(max_examples=200)
def test_fractions_are_exact(value: Fraction, form: str) -> None:
    written = form.format(a=abs(value.numerator), b=value.denominator)
    assert number(plain(f"-{written}" if value < 0 else written)) == value


@given(st.text(alphabet="0123456789xyei+-*/^_(){}[]|,.\\ sqrtfacpin$=~", max_size=60))
@settings(max_examples=500)
def test_any_text_is_made_plain_and_once_is_enough(text: str) -> None:
    number(plain(text))
    assert isinstance(plain(text), str)


def test_very_long_answers_are_compared_as_they_are() -> None:
    long = "1+" * 5000 + "1"
    assert equivalent(long, f"${long}$")
    assert not equivalent(long, "5001")


HARD = ("(x+y+z+w)^{300}", "(w+x+y+z)^{300}+x^{2}")


def test_math_verify_is_stopped_at_the_limit_off_the_main_thread_and_works_again() -> None:
    worker, outcome = Worker(), []

    def ask() -> None:
        try:
            worker.equal(*HARD, time_limit_seconds=0.3)
        except UndecidedError as error:
            outcome.append(str(error))
        outcome.append(str(worker.equal("x+x", "2x")))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(timeout=PATIENCE_SECONDS)
    worker.close()
    assert outcome == ["math-verify could not decide in 0.3 s", "True"]


def test_close_leaves_no_process() -> None:
    worker = Worker()
    assert worker.equal("x", "x")
    process = worker._process
    assert process is not None
    worker.close()
    assert process.poll() is not None


def test_the_process_ends_by_itself_when_its_owner_is_gone() -> None:
    worker = Worker()
    assert worker.equal("x", "x")
    process = worker._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.returncode == 0
    worker.close()


def test_an_undecided_row_is_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    def undecided(*_: object, **__: object) -> bool:
        raise UndecidedError("math-verify could not decide in 3 s")

    monkeypatch.setattr(equivalence.WORKER, "equal", undecided)
    result = score("12345 x + x", r"final answer is: $\boxed{12346 x}$")
    assert result == {
        "score": None,
        "parsed_answer": "12346 x",
        "unscored": "math-verify could not decide in 3 s",
    }


def test_own_regexes() -> None:
    params = RegexParserScoringFnParams(parsing_regexes=[r"#### (.*)"])
    row = {"expected_answer": "6 * 7 is 42\n#### 42", "generated_answer": "#### 42.0"}
    assert MathResponse().score(row, params) == {"score": 1.0, "parsed_answer": "42.0"}


@pytest.mark.parametrize(
    ("expected", "generated", "score"),
    [
        ("x. Altogether 72.\n#### 72", "The answer is 72.", 1.0),
        ("72", "72", 1.0),
        ("72", "$72$", 1.0),
        ("72", "#### 72", 1.0),
        ("42", "The answer is approximately 42.", 1.0),
        ("42", r"\boxed 42", 1.0),
        ("1,2", r"\boxed{1} and \boxed{2}", 1.0),
        ("2", r"\boxed{1} and \boxed{2}", 0.0),
        (r"\text{Yes}", r"\boxed{\text{yes}}", 1.0),
        (r"\text{No solution}", r"\boxed{\text{no solution}}", 1.0),
        ("odd", "The answer is Odd.", 1.0),
        (r"\infty", r"\boxed{infinity}", 1.0),
        ("18", r"\boxed{18\$}", 1.0),
        (r"\approx 12", r"\boxed{12}", 1.0),
        ("12", r"\boxed{\approx 12}", 1.0),
        ("101_2", r"\boxed{101_3}", 0.0),
        ("101_2", r"\boxed{101_{2}}", 1.0),
        ("1234_5", r"\boxed{1234}", 0.0),
        ("10_2", r"\boxed{10}", 0.0),
        (r"7:00\text{ p.m.}", r"\boxed{7:00\text{ a.m.}}", 0.0),
        (r"7:00\text{ p.m.}", r"\boxed{7:00 pm}", 1.0),
        ("2024-01-05", r"\boxed{2018}", 0.0),
        ("1/5/2024", r"\boxed{1/10/1012}", 0.0),
        (r"18\text{ cm}", r"\boxed{18\text{ m}}", 0.0),
        (r"18\text{ cm}", r"\boxed{18}", 1.0),
        ("18", r"\boxed{18\text{ cm}}", 1.0),
        (r"10\text{ apples}", r"\boxed{10\text{ oranges}}", 0.0),
        (r"10\text{ apples}", r"\boxed{10\text{ apple}}", 1.0),
        (r"5\%", r"\boxed{\$5}", 0.0),
        (r"5^\circ", r"\boxed{5\%}", 0.0),
        (r"5\%", r"\boxed{5}", 1.0),
        (r"5\text{ million}", r"\boxed{5}", 0.0),
        (r"5\text{ million}", r"\boxed{5000000}", 1.0),
        (r"2\text{ dozen}", r"\boxed{2}", 0.0),
        ("(3,4)", r"\boxed{\{3,4\}}", 0.0),
        ("A", r"\boxed{a}", 0.0),
        ("n", r"\boxed{N}", 0.0),
        ("A", r"\boxed{A}", 1.0),
        ("18", r"\boxed{\$18}", 1.0),
        ("$18", "The answer is 18 dollars.", 1.0),
        ("x\ny", "The answer is 3", None),
        (r"$28\%$", "The answer is $28$ percent", 1.0),
    ],
)
def test_what_a_teacher_says_of_further_answers(expected: str, generated: str, score: float | None) -> None:
    assert MathResponse().prepare()({"expected_answer": expected, "generated_answer": generated})["score"] == score
