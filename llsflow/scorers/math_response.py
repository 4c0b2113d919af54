r"""basic::regex_parser_math_response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llsflow.scorers.base import NO_ANSWER, Params, ScoreRow, answers, unscored
from llsflow.scorers.mathtext import is_value
from llsflow.scorers.parsing import Parser, RegexScorer, RegexTimeoutError

# the braces inside the box are balanced; the greedy start makes the last one count
_BOXED = r"\\boxed\s*\{(?P<answer>(?:[^{}]++|\{(?&answer)\})*+)\}"
# between the words and the box: "is", a colon, emphasis of Markdown, and what opens a formula
FINAL_ANSWER = r"(?s:.*)(?i:final\s+answer)(?:\s|\*|_|:|\$|\\[(\[]|(?i:\bis\b)|(?i:\bthe\b))*" + _BOXED
ANY_BOX = r"(?s:.*)" + _BOXED
# up to the end of the line or of the sentence; a decimal point ends none, and a box that is cut off is no answer
STATED = (
    r"(?s:.*)(?i:final\s+answer|\banswer\s+is|\banswer\s*[*_]*:)(?:\s|[*_:]|(?i:\bis\b))*"
    r"(?P<answer>(?![^\n]*\\boxed)\S[^\n]*?)[*_]*\.?[*_]*(?=\s*(?:\n|$)|(?<=\.)[*_]*\s)"
)


HASHES = r"(?s:.*)(?m:^)[ \t]*####[ \t]*(?P<answer>\S[^\n]*?)[ \t]*(?=\n|$)"
"""As GSM8K ends its solutions (Cobbe et al. 2021, arXiv:2110.14168)."""

_BARE_BOX = re.compile(r"\\boxed[ \t]+([^\s{}$\\]+?)(?=[.,;:]?(?:[\s$\\]|$))")
_TWO_BOXES = re.compile(
    r"\\boxed\s*\{([^{}]*)\}\s*(?:\$|\\[)\]])?\s*(?:,\s*and|,|and|\\text\{\s*and\s*\})\s*(?:\$|\\[(\[])?\s*"
    r"\\boxed\s*\{([^{}]*)\}"
)
_SEVERAL = (
    "the expected answer has several lines, and none of them states it: write the value, a box, or #### and the value"
)


def _joined(text: str) -> str:
    """Return a text with braces around what is boxed, and boxes that one sentence lists as one."""
    text, found = _BARE_BOX.sub(r"\\boxed{\1}", text), 1
    while found:
        text, found = _TWO_BOXES.subn(r"\\boxed{\1, \2}", text)
    return text


class MathResponse(RegexScorer):
    r"""1.0 when the generated final answer equals the expected one in value; else 0.0.

    Reads the last `final answer is: $\boxed{…}$` of the text; without one its last `\boxed{…}`; without a box a line
    `#### …`, or what follows the last "final answer", "answer is" or "answer:", up to the end of the line or sentence.
    A text that is nothing but a value is the answer. LaTeX, fractions, decimals, roots, tuples, sets, matrices and
    intervals are compared by value: `\frac{1}{2}` is `0.5`. The expected answer may be the bare value or a worked
    solution that ends in a box or in `#### …`. `parsed_answer` is what was read, null when nothing was.

    Source: Lewkowycz et al. 2022 (Minerva, arXiv:2206.14858) for the form of the final answer; math-verify
    (github.com/huggingface/Math-Verify) for the values.
    """

    id = "basic::regex_parser_math_response"
    library = "math-verify"
    default_regexes = (FINAL_ANSWER, ANY_BOX, HASHES, STATED)

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        from llsflow.scorers.equivalence import UndecidedError, equivalent

        parse = Parser(self.regexes(params))
        parse_expected = Parser((*self.regexes(params), ANY_BOX, HASHES))

        def score(row: Mapping[str, Any]) -> dict[str, Any]:
            pair = answers(row)
            if pair is None:
                return unscored(NO_ANSWER, parsed_answer=None)
            parsed = None
            try:
                parsed = parse(_joined(pair[1]))
                if parsed is None and is_value(pair[1]):
                    parsed = pair[1].strip()
                expected = parse_expected(_joined(pair[0]))
                if expected is None and "\n" in pair[0].strip():
                    return unscored(_SEVERAL, parsed_answer=parsed)
                same = parsed is not None and equivalent(pair[0] if expected is None else expected, parsed)
            except (RegexTimeoutError, UndecidedError) as error:
                return unscored(str(error), parsed_answer=parsed)
            return {"score": 1.0 if same else 0.0, "parsed_answer": parsed}

        return score
