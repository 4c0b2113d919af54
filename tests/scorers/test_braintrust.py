"""braintrust::*: scores worked out by hand, what the judge is asked and when, and what is refused before."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llsflow.data.conversation import Conversation
from llsflow.errors import ConfigError, DataError
from llsflow.evals import evaluate, evaluate_each
from llsflow.schema.scoring import BasicScoringFnParams, LLMAsJudgeScoringFnParams, ScoringResult
from llsflow.scorers import SCORERS, check_params, known_ids, score_rows
from llsflow.scorers.braintrust import METRICS
from llsflow.scorers.braintrust.bridge import arguments, strict
from llsflow.scorers.judge import TRIES, Judge

LIKENESS = ["braintrust::answer-relevancy", "braintrust::answer-similarity", "braintrust::context-entity-recall"]
"""Those that compare vectors."""
OFFERED = [
    "braintrust::factuality",
    "braintrust::answer-correctness",
    "braintrust::faithfulness",
    "braintrust::context-precision",
    "braintrust::context-recall",
    "braintrust::context-relevancy",
]
PARAMS = LLMAsJudgeScoringFnParams(judge_model="wise")
WITH_VECTORS = LLMAsJudgeScoringFnParams(judge_model="wise", embedding_model="vectors")
ROW: dict[str, Any] = {
    "input_query": "Which is the capital?",
    "expected_answer": "Paris it is",
    "generated_answer": "It is Paris",
    "context": "Paris is the capital. Lyon is not.",
}
Say = Callable[[str, int], Any]
"""A prompt and which try it is -> the reply."""


class Wise:
    """A judge that keeps what it was asked, and by which thread."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.asked: list[tuple[str, dict[int, str], int]] = []
        self.threads: set[int] = set()
        self.vectors: dict[str, list[float]] = {}
        self.embedded: list[tuple[str, dict[int, str]]] = []

    def __call__(self, model: str, prompts: Mapping[int, str], number: int) -> dict[int, Any]:
        self.asked.append((model, dict(prompts), number))
        self.threads.add(threading.get_ident())
        return {place: self.say(prompt, number) for place, prompt in prompts.items()}

    def embed(self, model: str, texts: Mapping[int, str]) -> dict[int, Any]:
        self.embedded.append((model, dict(texts)))
        return {place: self.vectors.get(text, ValueError("too long")) for place, text in texts.items()}

    @property
    def tries(self) -> list[tuple[list[int], int]]:
        return [(list(prompts), number) for _, prompts, number in self.asked]


def calls(prompt: str) -> str:
    """Return the name of the function that a prompt asks to call."""
    return prompt.rpartition("Call `")[2].partition("`")[0]


def replies(**by_function: Any) -> Wise:
    """Return a judge that answers each function with its parameters, as JSON."""
    return Wise(lambda prompt, number: json.dumps(by_function[calls(prompt)]))


def scored(scorer: str, judge: Wise, *rows: Mapping[str, Any]) -> ScoringResult:
    return score_rows(rows or [ROW], scorer, WITH_VECTORS if scorer in LIKENESS else PARAMS, judge)


def verdict(statement: str, value: int) -> dict[str, Any]:
    return {"statement": statement, "verdict": value, "reason": "so it is"}


def attributed(statement: str, value: int) -> dict[str, Any]:
    return {"statement": statement, "attributed": value, "reason": "so it is"}


def test_all_of_them_are_listed() -> None:
    ids = [metric.id for metric in METRICS]
    assert sorted(ids) == sorted([*OFFERED, *LIKENESS])
    assert set(ids) <= set(known_ids())
    assert all(isinstance(SCORERS[name], Judge) for name in ids)


@pytest.mark.parametrize(("choice", "score"), [("A", 0.4), ("B", 0.6), ("C", 1.0), ("D", 0.0), ("E", 1.0)])
def test_factuality_is_what_the_choice_is_worth(choice: str, score: float) -> None:
    judge = replies(select_choice={"reasons": "both say Paris", "choice": choice})
    result = scored("braintrust::factuality", judge)
    (row,) = result.score_rows
    assert row["score"] == score
    assert row["metadata"] == {"choice": choice, "rationale": "both say Paris"}
    assert json.loads(row["judge_feedback"])["choice"] == choice
    assert result.aggregated_results["average"]["average"] == score
    ((model, prompts, number),) = judge.asked
    assert (model, number) == ("wise", 0)
    for text in ("[Question]: Which is the capital?", "[Expert]: Paris it is", "[Submission]: It is Paris", "(E) "):
        assert text in prompts[0]
    assert '"enum": ["A", "B", "C", "D", "E"]' in prompts[0]


def test_answer_correctness_is_the_f1_alone() -> None:
    # tp / (tp + (fp + fn) / 2) = 2 / (2 + (1 + 3) / 2)
    counted = {"TP": ["a", "b"], "FP": ["c"], "FN": ["d", "e", "f"]}
    (row,) = scored("braintrust::answer-correctness", replies(classify_statements=counted)).score_rows
    assert row["score"] == 0.5
    assert row["metadata"] == {"factuality": counted, "factuality_score": 0.5}


def test_faithfulness_is_the_share_of_statements_that_hold() -> None:
    held = [verdict("a", 1), verdict("b", 1), verdict("c", 0), verdict("d", 1)]
    judge = replies(extract_statements={"statements": ["a", "b", "c", "d"]}, judge_statements={"faithfulness": held})
    (row,) = scored("braintrust::faithfulness", judge).score_rows
    assert row["score"] == 0.75
    assert row["metadata"]["faithfulness"] == held
    assert json.loads(row["judge_feedback"]) == {"faithfulness": held}
    assert [calls(prompts[0]) for _, prompts, _ in judge.asked] == ["extract_statements", "judge_statements"]


@pytest.mark.parametrize("value", [0, 1])
def test_context_precision_is_the_verdict(value: int) -> None:
    judge = replies(verify={"reason": "it names it", "verdict": value})
    (row,) = scored("braintrust::context-precision", judge).score_rows
    assert (row["score"], type(row["score"])) == (value, float)
    assert row["metadata"] == {"precision": {"reason": "it names it", "verdict": value}}


def test_context_recall_is_the_share_of_statements_that_come_from_it() -> None:
    statements = [attributed("a", 1), attributed("b", 0), attributed("c", 0)]
    judge = replies(extract_statements={"statements": statements})
    assert scored("braintrust::context-recall", judge).score_rows[0]["score"] == pytest.approx(1 / 3)


def test_context_relevancy_is_the_share_of_characters() -> None:
    kept = "Paris is the capital."
    judge = replies(extract_sentences={"sentences": [{"sentence": kept, "reasons": ["it says which"]}]})
    row = scored("braintrust::context-relevancy", judge).score_rows[0]
    assert row["score"] == pytest.approx(len(kept) / len(ROW["context"]))


@pytest.mark.parametrize("context", [["one", "two {{x}} <b>"], '["one", "two {{x}} <b>"]'])
@pytest.mark.parametrize("scorer", [name for name in OFFERED if "context" in SCORERS[name].columns])
def test_a_list_of_texts_is_read_one_below_the_other(scorer: str, context: Any) -> None:
    judge = Wise(lambda prompt, number: '["a"]' if calls(prompt) == "extract_statements" else ValueError("gone"))
    scored(scorer, judge, {**ROW, "context": context})
    assert any("one\ntwo {{x}} <b>" in prompts[0] for _, prompts, _ in judge.asked)


def test_a_text_in_brackets_is_a_text() -> None:
    judge = replies(verify={"reason": "", "verdict": 1})
    scored("braintrust::context-precision", judge, {**ROW, "context": "[1] Paris"}, {**ROW, "context": "[1, 2]"})
    assert "context: [1] Paris" in judge.asked[0][1][0]
    assert "context: [1, 2]" in judge.asked[0][1][1]


GOOD = {"reasons": "they agree", "choice": "C"}


@pytest.mark.parametrize(
    "reply",
    [
        "no JSON",
        "",
        '{"reasons": "they agree", "choice": "F"}',
        '{"choice": "C"}',
        '{"reasons": "they agree", "choice": "C"',
        '{"reasons": NaN, "choice": "C"}',
        '{"reasons": "\\ud800", "choice": "C"}',
        '["C"]',
        "[" * 100_000,
    ],
)
def test_a_reply_without_usable_json_is_asked_for_again_and_then_shown(reply: str) -> None:
    judge = Wise(lambda prompt, number: reply)
    result = scored("braintrust::factuality", judge)
    assert judge.tries == [([0], 0), ([0], 1), ([0], 2)]
    assert len(judge.asked) == TRIES
    why = "the judge's reply has no JSON that select_choice takes"
    assert result.score_rows == [{"score": None, "judge_feedback": reply, "unscored": why}]
    assert result.aggregated_results["average"]["num_unscored"] == 1


def test_another_try_may_bring_it() -> None:
    judge = Wise(lambda prompt, number: json.dumps(GOOD) if number == 1 else "let me think")
    assert scored("braintrust::factuality", judge).score_rows[0]["score"] == 1.0
    assert judge.tries == [([0], 0), ([0], 1)]
    assert judge.asked[0][1] == judge.asked[1][1]


def test_a_judge_that_fails_for_a_row_is_not_asked_again_for_it() -> None:
    judge = Wise(lambda prompt, number: ValueError("blocked"))
    (row,) = scored("braintrust::factuality", judge).score_rows
    assert row == {"score": None, "judge_feedback": None, "unscored": "the judge did not answer: blocked"}
    assert len(judge.asked) == 1


CHOICE = {"type": "object", "properties": {"choice": {"type": "string", "enum": ["A", "B"]}}}
LISTED = {"type": "object", "properties": {"statements": {"type": "array", "items": {"type": "string"}}}}


@pytest.mark.parametrize(
    ("schema", "reply", "found"),
    [
        (CHOICE, 'I say ```json\n{"choice": "A"}\n``` and mean it {so [there', {"choice": "A"}),
        (CHOICE, 'At first {"choice": "A"}, but no: {"choice": "B"}', {"choice": "B"}),
        (CHOICE, '{"choice": "A"} is of {"type": "object"}', {"choice": "A"}),
        (CHOICE, '{"answer": {"choice": "A"}}', None),
        (CHOICE, '["A"]', None),
        # the examples of autoevals' prompts are bare lists
        (LISTED, '```["a", "b"]```', {"statements": ["a", "b"]}),
        (LISTED, '{"statements": ["a"]}', {"statements": ["a"]}),
        (LISTED, "```[]```", {"statements": []}),
        # what was cut off is no list of what came before
        (LISTED, '["see []", "tru', None),
        (LISTED, '{"statements": ["a"], "more": "tru', None),
        (LISTED, "[1]", None),
    ],
)
def test_what_is_found_in_a_reply(schema: dict[str, Any], reply: str, found: Any) -> None:
    assert arguments(reply, strict(schema)) == found


@pytest.mark.parametrize("value", [2, -1, True, "1", 0.5])
def test_a_verdict_is_0_or_1(value: Any) -> None:
    """Two verdicts of 2 and 0 would count as two that hold."""
    judge = replies(verify={"reason": "", "verdict": value})
    assert scored("braintrust::context-precision", judge).score_rows[0]["score"] is None
    assert len(judge.asked) == TRIES
    listed = replies(extract_statements={"statements": [attributed("a", value), attributed("b", 0)]})
    assert scored("braintrust::context-recall", listed).score_rows[0]["score"] is None


def test_what_autoevals_reads_must_be_there() -> None:
    """Its schema of verdicts requires no property; the arithmetic reads it."""
    judge = replies(extract_statements={"statements": ["a"]}, judge_statements={})
    (row,) = scored("braintrust::faithfulness", judge).score_rows
    assert row["unscored"] == "the judge's reply has no JSON that judge_statements takes"


def test_where_there_is_nothing_to_count_there_is_no_score() -> None:
    nothing = replies(classify_statements={"TP": [], "FP": [], "FN": []})
    (row,) = scored("braintrust::answer-correctness", nothing).score_rows
    assert row["score"] is None
    assert row["unscored"].startswith("there is nothing to count")
    silent = replies(extract_statements={"statements": []}, judge_statements={"faithfulness": []})
    assert scored("braintrust::faithfulness", silent).score_rows[0]["unscored"] == row["unscored"]
    empty = replies(extract_sentences={"sentences": []})
    result = scored("braintrust::context-relevancy", empty, {**ROW, "context": ""}, ROW)
    assert [row["score"] for row in result.score_rows] == [None, 0.0]


def test_a_failure_of_the_library_sinks_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import autoevals

    class Brittle(autoevals.ContextPrecision):  # type: ignore[misc]
        async def eval_async(self, **given: Any) -> Any:
            if given["input"] == "bad":
                raise KeyError("x")
            return await super().eval_async(**given)

    monkeypatch.setattr(autoevals, "ContextPrecision", Brittle)
    judge = replies(verify={"reason": "", "verdict": 1})
    result = scored("braintrust::context-precision", judge, {**ROW, "input_query": "bad"}, ROW)
    assert [row["score"] for row in result.score_rows] == [None, 1.0]
    assert result.score_rows[0]["unscored"] == "autoevals failed: KeyError: 'x'"


def test_many_rows_are_asked_together() -> None:
    """Each by its own replies, in rounds: whoever waits, waits with all the others."""

    def say(prompt: str, number: int) -> Any:
        place = int(prompt.rpartition("answer: row ")[2].split()[0]) if "answer: row " in prompt else -1
        if calls(prompt) == "extract_statements":
            if place % 3 == 1 and number == 0:
                return "hm"
            return ValueError("gone") if place == 5 else json.dumps({"statements": [f"held {place}", "not held"]})
        held = int(prompt.rpartition("'held ")[2].partition("'")[0])
        verdicts = [verdict(f"held {held}", 1)] * (held + 1) + [verdict("not held", 0)]
        return json.dumps({"faithfulness": verdicts})

    judge = Wise(say)
    rows = [{**ROW, "generated_answer": f"row {place}"} for place in range(40)]
    result = scored("braintrust::faithfulness", judge, *rows)
    again = [place for place in range(40) if place % 3 == 1]
    first = [place for place in range(40) if place % 3 != 1 and place != 5]
    assert judge.tries == [(list(range(40)), 0), (first, 0), (again, 1), (again, 0)]
    assert judge.threads == {threading.get_ident()}
    # k + 1 of k + 2 statements of row k hold
    expected = [None if place == 5 else pytest.approx((place + 1) / (place + 2)) for place in range(40)]
    assert [row["score"] for row in result.score_rows] == expected
    assert result.score_rows[5]["unscored"] == "the judge did not answer: gone"
    assert json.loads(result.model_dump_json()) == result.model_dump()


def test_it_scores_where_an_event_loop_runs() -> None:
    async def inside() -> ScoringResult:
        return scored("braintrust::factuality", replies(select_choice=GOOD))

    assert asyncio.run(inside()).score_rows[0]["score"] == 1.0


def test_what_stops_the_asking_stops_the_scoring() -> None:
    def say(prompt: str, number: int) -> Any:
        raise ConnectionError("down")

    with pytest.raises(ConnectionError, match="down"):
        scored("braintrust::factuality", Wise(say), ROW, ROW)


@pytest.mark.parametrize("scorer", OFFERED)
def test_a_row_that_lacks_a_column_is_not_asked(scorer: str) -> None:
    for column in (*SCORERS[scorer].columns, "generated_answer"):
        judge = Wise(lambda prompt, number: pytest.fail("asked"))
        (row,) = scored(scorer, judge, {**ROW, column: None}).score_rows
        assert row == {"score": None, "judge_feedback": None, "unscored": f"{column} is absent or null"}


@pytest.mark.parametrize("context", [{"a": "b"}, [1], 3, [["a"]]])
def test_a_context_that_is_no_text_is_not_asked(context: Any) -> None:
    judge = Wise(lambda prompt, number: pytest.fail("asked"))
    (row,) = scored("braintrust::faithfulness", judge, {**ROW, "context": context}).score_rows
    assert row["unscored"] == f"context is {json.dumps(context)!r}: a text or a list of texts is needed"


def test_a_row_without_context_is_refused_before_anything_is_answered() -> None:
    rows = [{"question": "Why?", "answer": "so", "context": "c"}, {"question": "Why?", "answer": "so"}]
    name = "braintrust::context-recall"

    def generate(asked: list[Conversation]) -> list[str]:
        pytest.fail("answered")

    with pytest.raises(DataError, match=r"evaluation row 2.*braintrust::context-recall needs context"):
        evaluate(rows, generate, [name], scoring_params={name: PARAMS}, ask=replies())

    def answer(asked: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        assert list(asked) == [0]
        return {0: {"generated_answer": "so"}}

    judge = replies(extract_statements={"statements": [attributed("so", 1)]})
    response = evaluate_each(rows, answer, [name], scoring_params={name: PARAMS}, ask=judge)
    assert [row["score"] for row in response.scores[name].score_rows] == [1.0, None]
    assert "needs context" in response.generations[1]["error"]
    assert "question: Why?\ncontext: c\nanswer: so" in judge.asked[0][1][0]


def cosine(value: float) -> list[float]:
    """Return a vector of length 2 with this cosine to [1, 0]."""
    return [2 * value, 2 * (1 - value**2) ** 0.5]


@pytest.mark.parametrize(("likeness", "score"), [(1.0, 1.0), (0.85, 0.5), (0.7, 0.0), (0.1, 0.0)])
def test_similarity_is_the_cosine_from_seven_tenths_on(likeness: float, score: float) -> None:
    judge = Wise(lambda prompt, number: pytest.fail("asked"))
    judge.vectors = {"Paris": cosine(likeness), "Paris it is": [1.0, 0.0]}
    (row,) = scored("braintrust::answer-similarity", judge, {**ROW, "generated_answer": "Paris"}).score_rows
    assert row["score"] == pytest.approx(score, abs=1e-9)
    assert judge.embedded == [("vectors", {0: "Paris"}), ("vectors", {0: "Paris it is"})]


@pytest.mark.parametrize("noncommittal", [0, 1])
def test_relevancy_is_the_mean_likeness_of_three_questions(noncommittal: int) -> None:
    likeness = iter((1.0, 0.85, 0.7))
    judge = Wise(lambda prompt, number: "")
    judge.vectors = {ROW["input_query"]: [1.0, 0.0]}

    def say(prompt: str, number: int) -> str:
        question = f"question {len(judge.asked)}"
        judge.vectors[question] = cosine(next(likeness))
        return json.dumps({"question": question, "noncommittal": noncommittal})

    judge.say = say
    (row,) = scored("braintrust::answer-relevancy", judge).score_rows
    assert row["score"] == pytest.approx(0.0 if noncommittal else (1.0 + 0.5 + 0.0) / 3, abs=1e-9)


def test_entity_recall_pairs_what_is_alike() -> None:
    by_text = {"Paris it is": ["Paris", "Seine"], ROW["context"]: ["Lutetia", "Lyon"]}

    def say(prompt: str, number: int) -> str:
        return json.dumps({"entities": next(found for text, found in by_text.items() if text in prompt)})

    judge = Wise(say)
    judge.vectors = {"Paris": [1.0, 0.0], "Seine": [0.0, 1.0], "Lutetia": cosine(0.85), "Lyon": [-1.0, 0.0]}
    (row,) = scored("braintrust::context-entity-recall", judge).score_rows
    # Lutetia stands for Paris by half, nothing for the Seine
    assert row["score"] == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize("scorer", LIKENESS)
def test_an_embedding_model_that_fails_for_a_row_leaves_the_others(scorer: str) -> None:
    entities, question = {"entities": ["a thing"]}, {"question": "a thing", "noncommittal": 0}
    judge = replies(extract_entities=entities, generate_question=question)
    (row,) = scored(scorer, judge).score_rows
    assert (row["score"], row["unscored"]) == (None, "the embedding model did not answer: too long")


def test_who_compares_vectors_needs_an_embedding_model_and_nobody_else_takes_one() -> None:
    for scorer in LIKENESS:
        assert check_params(scorer, PARAMS) == [f"{scorer} measures likeness by vectors: set embedding_model"]
        assert check_params(scorer, WITH_VECTORS) == []
    for scorer in (*OFFERED, "llm-as-judge::405b-simpleqa"):
        assert check_params(scorer, WITH_VECTORS) == [f"{scorer} asks no embedding model: remove embedding_model"]


@pytest.mark.parametrize("scorer", OFFERED)
def test_parameters_that_would_not_act_are_refused(scorer: str) -> None:
    assert check_params(scorer, PARAMS) == []
    given = PARAMS.model_copy(update={"prompt_template": "{generated_answer}", "judge_score_regexes": [r"(\d)"]})
    assert check_params(scorer, given) == [
        f"{scorer} asks with the prompts of autoevals: remove prompt_template",
        f"{scorer} computes its score from the judge's JSON: remove judge_score_regexes",
    ]
    needs = f"{scorer} needs parameters of type 'llm_as_judge' with judge_model (found "
    assert check_params(scorer) == [needs + "none)"]
    assert check_params(scorer, BasicScoringFnParams()) == [needs + "type 'basic')"]


def test_without_the_extra_they_are_listed_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "autoevals" else find(name))
    assert set(OFFERED) <= set(known_ids())
    for scorer in OFFERED:
        (why,) = check_params(scorer, PARAMS)
        assert why == f"{scorer} needs autoevals, which is not installed: pip install 'llsflow[braintrust]'"
    with pytest.raises(ConfigError, match=r"pip install 'llsflow\[braintrust\]'"):
        scored("braintrust::factuality", replies())


def test_the_library_is_loaded_when_it_is_used_and_no_client_of_a_hosted_service_is() -> None:
    program = (
        "import sys; import llsflow.scorers as s; assert 'autoevals' not in sys.modules\n"
        "sys.modules['openai'] = None; sys.modules['braintrust'] = None\n"
        "from llsflow.schema.scoring import LLMAsJudgeScoringFnParams as P\n"
        'ask = lambda model, prompts, number: {p: \'{"reasons": "", "choice": "B"}\' for p in prompts}\n'
        f"made = s.score_rows([{ROW!r}], 'braintrust::factuality', P(judge_model='wise'), ask)\n"
        "assert made.score_rows[0]['score'] == 0.6, made"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
