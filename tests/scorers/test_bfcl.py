"""BFCL: how calls are read, and which of them are those of the ground truth."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.scorers import SCORERS
from llsflow.scorers.bfcl.calls import Call, UnreadableError, read_calls
from llsflow.scorers.bfcl.literals import UnknownValueError, split, value_of

SCORER = SCORERS["basic::bfcl"]


def function(name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    shown = {key: {"type": value} if isinstance(value, str) else value for key, value in properties.items()}
    return {"name": name, "parameters": {"type": "dict", "properties": shown, "required": list(required)}}


def score(functions: Any, truth: Any, answer: Any, **columns: Any) -> dict[str, Any]:
    row = {"id": "simple_7", "function": functions, "ground_truth": truth, "generated_answer": answer, **columns}
    return SCORER.score(row)


AREA = function("geometry.area", ("base", "height"), base="integer", height="integer", unit="string")
AREA_TRUTH = {"geometry.area": {"base": [10], "height": [5], "unit": ["", "square units", "sq. m"]}}


OPENAI = json.dumps(
    [{"type": "function", "function": {"name": "geometry.area", "arguments": json.dumps({"base": 10, "height": 5})}}]
)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("geometry.area(base=10, height=5)", True),
        ("[geometry.area(height=5, base=10, unit='Square Units')]", True),
        ("```python\n[geometry.area(base=10, height=5)]\n```", True),
        ("geometry.area(base=2 * 5, height=+5)", True),
        ("geometry.area({'base': 10, 'height': 5})", True),
        ("geometry.area(**{'base': 10, 'height': 5})", True),
        ('[{"name": "geometry.area", "arguments": {"base": 10, "height": 5}}]', True),
        ('{"name": "geometry_area", "parameters": {"base": 10, "height": 5, "unit": "SQ M"}}', True),
        ('[{"geometry.area": {"base": 10, "height": 5}}]', True),
        (OPENAI, True),
        ("geometry.area(base=10)", False),  # a required one is missing
        ("geometry.area(base=10, height=5, colour='red')", False),  # one that there is not
        ("geometry.area(base=10, height=6)", False),
        ("geometry.area(base=10.0, height=5)", False),  # a float is no integer
        ("geometry.area(base='10', height=5)", False),
        ("geometry.area(base=True, height=5)", False),
        ("geometry.area(base=10, height=5, unit='feet')", False),
        ("geometry.volume(base=10, height=5)", False),
        ("geometry.area(10, 5)", False),  # values must be named
        ("geometry.area(base=10, height=5), geometry.area(base=10, height=5)", False),
        ("[]", False),
        ("The area is 25.", False),
        ("geometry.area(base=10, height=__import__('os').system('false'))", False),
    ],
)
def test_simple(answer: str, right: bool) -> None:
    result = score([AREA], [AREA_TRUTH], answer)
    assert result["score"] == float(right)
    assert ("error" in result) is not right


@pytest.mark.parametrize("base", [0, 1])
def test_a_boolean_is_no_number(base: int) -> None:
    truth = {"f": {"a": [base]}}
    assert score([function("f", a="integer")], [truth], f"f(a={bool(base)})")["score"] == 0.0
    assert score([function("f", a="boolean")], [{"f": {"a": [bool(base)]}}], f"f(a={base})")["score"] == 0.0
    assert score([function("f", a="float")], [truth], f"f(a={bool(base)})")["score"] == 0.0


LIST_OF = {"type": "array", "items": {"type": "float"}}
RECORDS = {"type": "array", "items": {"type": "dict", "properties": {"n": {"type": "string"}}}}


@pytest.mark.parametrize(
    ("kind", "accepted", "value", "right"),
    [
        ("float", [2.0, 3.5], "2", True),  # an int is a float too
        ("float", [5], "5.0", True),
        ("integer", [5], "5.0", False),
        ("string", ["April 1, 2024"], "'april 1 2024'", True),
        ("string", ["New York, NY"], "'New York'", False),
        ("string", ["it's"], "'it\"s'", True),  # one kind of quotes
        ("boolean", [True], "True", True),
        ("boolean", [True], "'True'", False),
        ("any", [1, "one"], "1", True),
        ("any", [1, "one"], "2", False),
        (LIST_OF, [[1.0, 2.5]], "[1, 2.5]", True),
        (LIST_OF, [[1.0, 2.5]], "[2.5, 1]", False),
        (LIST_OF, [[1.0], [1.0, 2.5]], "[1.0, 2.5]", True),
        (LIST_OF, [[1.0, 2.5]], "(1.0, 2.5)", False),  # a tuple is no list
        ("tuple", [[1, 2]], "(1, 2)", True),
        ("tuple", [[1, 2]], "[1, 2]", True),
        ("array", [["Red", "blue green"]], "['red', 'Blue-Green']", True),
        ("array", [["red"]], "['red', 'blue']", False),
        ("array", [[["a"], ["b"]]], "[['A'], ['B']]", True),
        ("array", [["a"]], "['']", False),
        ("array", [["a"], ""], "[]", True),  # as good as left out
        ("array", [["a"]], "[]", False),
        ("string", ["", False], "False", True),  # a schema that is wrong: the ground truth decides
        ("string", ["", False], "0", False),
        ("integer", [5, ""], "''", False),
        ("dict", [{"n": [20]}], "{'n': 20.0}", True),
        ("dict", [{"min": [1], "max": [5, 6]}], "{'max': 6, 'min': 1}", True),
        ("dict", [{"min": [1], "max": [5, ""]}], "{'min': 1}", True),
        ("dict", [{"min": [1], "max": [5]}], "{'min': 1}", False),
        ("dict", [{"min": [1]}], "{'min': 1, 'max': 2}", False),
        ("dict", [{"min": [1]}], "{'min': True}", False),
        ("dict", [{"a": [{"b": ["C d"]}]}], "{'a': {'b': 'c-D'}}", True),
        ("dict", [{"a": [{"b": ["x"]}]}], "{'a': {'b': 'y'}}", False),
        (RECORDS, [[{"n": ["a"]}, {"n": ["b", "c"]}]], "[{'n': 'A'}, {'n': 'c'}]", True),
        (RECORDS, [[{"n": ["a"]}, {"n": ["b"]}]], "[{'n': 'b'}, {'n': 'a'}]", False),
        ("integer", ["user_age"], "user_age", True),  # a variable, by its name
        ("integer", ["user_age"], "User_Age", False),
        ("string", ["x = 5"], "'X=5'", True),  # without its blanks
        ("string", ["str(5)"], "str(5)", True),
        ("dict", [{"f": [{"a": [1]}]}], "{'f': {'a': 1}}", True),
        ("float", [0.25], "1 / 4", True),
        ("float", [0.25], "1 / 0", False),
        ("integer", [-3], "-3", True),
    ],
)
def test_values(kind: Any, accepted: list[Any], value: str, right: bool) -> None:
    result = score([function("f", v=kind)], [{"f": {"v": accepted}}], f"f(v={value})")
    assert result["score"] == float(right), result


def test_what_may_be_left_out() -> None:
    functions = [function("f", a="integer", b="integer")]
    assert score(functions, [{"f": {"a": [1], "b": [2, ""]}}], "f(a=1)")["score"] == 1.0
    assert "f lacks b" in score(functions, [{"f": {"a": [1], "b": [2]}}], "f(a=1)")["error"]
    assert score([function("f")], [{"f": {}}], "f()")["score"] == 1.0
    # what the function itself needs, and what it does not know, whatever the ground truth says
    needing = [function("f", ("a",), a="integer")]
    assert "f lacks a" in score(needing, [{"f": {"a": [1, ""]}}], "f()")["error"]
    assert "f takes no b" in score(needing, [{"f": {"a": [1], "b": [2, ""]}}], "f(a=1, b=2)")["error"]


def test_one_of_several_functions() -> None:
    functions = [AREA, function("circle.area", ("r",), r="float")]
    assert score(functions, [{"circle.area": {"r": [2.0]}}], "circle.area(r=2)", id="multiple_3")["score"] == 1.0
    told = score(functions, [{"circle.area": {"r": [2.0]}}], "geometry.area(base=1, height=2)", id="multiple_3")
    assert told == {"score": 0.0, "error": "calls geometry.area, where circle.area is right"}


WEATHER = function("weather", ("city",), city="string", days="integer")


@pytest.mark.parametrize("category", ["parallel_1", "live_parallel_multiple_2-1-0"])
def test_calls_in_any_order(category: str) -> None:
    truth = [{"weather": {"city": [city]}} for city in ("Rome", "Oslo")] + [AREA_TRUTH]
    calls = ["weather(city='Oslo')", "geometry.area(base=10, height=5)", "weather(city='Rome')"]
    assert score([WEATHER, AREA], truth, f"[{', '.join(calls)}]", id=category)["score"] == 1.0
    told = score([WEATHER, AREA], truth, f"[{', '.join(calls[:2])}]", id=category)
    assert told["error"] == "2 calls, where 3 are right"
    twice = score([WEATHER, AREA], truth, f"[{calls[0]}, {calls[0]}, {calls[1]}]", id=category)
    assert twice["score"] == 0.0


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_every_order_of_the_right_calls_is_right(seed: int, count: int) -> None:
    """Also where a call fits two of the ground truth's: the first that fits need not be its own."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    cities = [draw.choice("abc") for _ in range(count)]
    truth = [{"weather": {"city": list({city, draw.choice("abc")})}} for city in cities]
    draw.shuffle(cities)
    answer = ", ".join(f"weather(city='{city}')" for city in cities)
    assert score([WEATHER], truth, answer, id="parallel_0")["score"] == 1.0


def test_a_call_that_serves_two_is_given_to_the_one_that_needs_it() -> None:
    truth = [{"weather": {"city": ["Rome", "Oslo"]}}, {"weather": {"city": ["Rome"]}}]
    assert score([WEATHER], truth, "[weather(city='Rome'), weather(city='Oslo')]", id="parallel_0")["score"] == 1.0


@pytest.mark.parametrize(
    ("category", "answer", "right"),
    [
        ("irrelevance_3", "I cannot help with that.", True),
        ("irrelevance_3", "[]", True),
        ("irrelevance_3", "weather(city='Rome')", False),
        ("live_irrelevance_12-0", '[{"name": "weather", "arguments": {}}]', False),
        ("live_relevance_1-0-0", "weather(town='Rome')", True),
        ("live_relevance_1-0-0", "[]", False),
        ("live_relevance_1-0-0", "Which city?", False),
    ],
)
def test_relevance_needs_no_ground_truth(category: str, answer: str, right: bool) -> None:
    row = {"id": category, "function": [WEATHER], "generated_answer": answer}
    assert SCORER.lacks(row) == []
    assert SCORER.score(row)["score"] == float(right)
    assert SCORER.score({"test_category": category, "generated_answer": answer})["score"] == float(right)


def test_json_columns_of_older_data_sets() -> None:
    result = score(json.dumps([AREA]), json.dumps([AREA_TRUTH]), "geometry.area(base=10, height=5)", language="Python")
    assert result["score"] == 1.0
    assert score(AREA, AREA_TRUTH, "geometry.area(base=10, height=5)")["score"] == 1.0
    openai = {"type": "function", "function": AREA}
    assert score([openai], [AREA_TRUTH], "geometry.area(base=10, height=5)", id=None)["score"] == 1.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ground_truth": None}, "ground_truth is absent or null"),
        ({"function": None, "ground_truth": None}, "function, ground_truth are absent or null"),
        ({"generated_answer": None}, "generated_answer is absent or null"),
        ({"function": "nope"}, "function is the text 'nope', which is no JSON"),
        ({"function": [5]}, "what is no description with a name"),
        ({"ground_truth": 5}, "ground_truth is no list of calls"),
        ({"ground_truth": [{"a": {}, "b": {}}]}, "ground_truth holds what is no"),
        ({"ground_truth": [{"volume": {}}]}, "ground_truth calls volume, which function does not describe"),
        ({"language": "Rust"}, "language is 'Rust': known are python, java, javascript"),
        ({"id": "multi_turn_base_1"}, "category multi_turn_base is not compared as syntax trees"),
        ({"test_category": "exec_simple"}, "category exec_simple is not compared"),
    ],
)
def test_rows_that_cannot_be_scored_say_why(change: dict[str, Any], told: str) -> None:
    good = {"id": "simple_1", "function": [AREA], "ground_truth": [AREA_TRUTH], "generated_answer": "f()"}
    assert SCORER.score(good)["score"] == 0.0
    result = SCORER.score({**good, **change})
    assert result["score"] is None
    assert told in result["unscored"]


@pytest.mark.parametrize(
    ("kind", "accepted", "value", "right"),
    [
        ("integer", [5], "5", True),
        ("long", [5], "5L", True),
        ("float", [1.5], "1.5f", True),
        ("double", [2.0], "2", True),
        ("integer", [2], "2.0", False),
        ("boolean", [True], "true", True),
        ("boolean", [True], "True", False),
        ("char", ["c"], "'c'", True),
        ("String", ["some text"], '"Some text"', True),
        ("String", ["userName"], "userName", True),
        ("String", ["a\tb"], r'"a\tb"', True),
        ("Array", [[1, 2]], "new int[]{1, 2}", True),
        ("Array", [["a", "b"]], 'new String[] {"A", "b",}', True),
        ("Array", [[[1], [2]]], "new int[][]{{1}, {2}}", True),
        ("ArrayList", [["a,b", "c"]], 'new ArrayList<>(Arrays.asList("a,b", "c"))', True),
        ("ArrayList", [["a"]], 'List.of("a")', True),
        ("ArrayList", [[1, 2]], "new ArrayList<Integer>() {{ add(1); add(2); }}", True),
        ("ArrayList", [[]], "new ArrayList<>()", True),
        ("ArrayList", [[1]], "new ArrayList<>()", False),
        ("HashMap", [{"k": ["v"], "n": [1]}], 'new HashMap<String, Object>() {{ put("k", "v"); put("n", 1); }}', True),
        ("HashMap", [{"k": [True]}], 'Map.of("k", true)', True),
        ("HashMap", [{}], "new HashMap<>()", True),
        ("any", ["Status.OPEN"], "Status.OPEN", True),
        ("any", ["123"], "123", True),
        ("any", ["null"], "null", True),
        ("Array", ["items"], "items", True),
        ("ArrayList", ["getItems()"], "getItems( )", True),
    ],
)
def test_java(kind: str, accepted: list[Any], value: str, right: bool) -> None:
    functions = [function("Util.run", v={"type": kind, "items": {"type": "any"}})]
    truth = [{"Util.run": {"v": accepted}}]
    for answer in (f"Util.run(v={value})", f"[Util.run(v = {value})];"):
        assert score(functions, truth, answer, id="java_0", language="Java")["score"] == float(right)


@pytest.mark.parametrize(
    ("kind", "accepted", "value", "right"),
    [
        ("integer", [5], "5", True),
        ("Bigint", [5], "5n", True),
        ("float", [-1.5], "-1.5", True),
        ("Boolean", [False], "false", True),
        ("String", ["text"], "'Text'", True),
        ("String", ["text"], "`text`", True),
        ("array", [[1, "two", True]], "[1, 'two', true]", True),
        ("array", [[1, 2]], "new Array(1, 2)", True),
        ("array", [[[1, 2], [3]]], "[[1, 2], [3]]", True),
        ("array", [["a"]], "new Set(['a'])", True),
        ("dict", [{"a": [1], "b": ["x, y"]}], "{a: 1, 'b': \"x, y\"}", True),
        ("dict", [{"a": [{"b": [[1, 2]]}]}], "{a: {b: [1, 2]}}", True),
        ("dict", [{"store": ["store"]}], "{store}", True),
        ("dict", [{"a": [1]}], "new Map([['a', 1]])", True),
        ("dict", [{}], "{}", True),
        ("dict", [{"a": [1]}], "{a: 2}", False),
        ("any", ["handleClick"], "handleClick", True),
    ],
)
def test_javascript(kind: str, accepted: list[Any], value: str, right: bool) -> None:
    functions = [function("run", v={"type": kind})]
    truth = [{"run": {"v": accepted}}]
    assert score(functions, truth, f"[run(v={value})]", test_category="javascript")["score"] == float(right)


def test_json_answers_serve_in_every_language() -> None:
    functions = [function("run", n="integer", a="Array", s="String")]
    truth = [{"run": {"n": [5], "a": [[1, 2]], "s": ["x"]}}]
    for a in ([1, 2], "new int[]{1, 2}"):
        answer = json.dumps([{"name": "run", "arguments": {"n": 5, "a": a, "s": "x"}}])
        assert score(functions, truth, answer, language="Java")["score"] == 1.0


@pytest.mark.parametrize("value", ["new Thread(task)", "a + b", "items.stream().toList()", "`${x}`", "(1, 2)"])
def test_code_that_is_no_literal_is_unscored_not_wrong(value: str) -> None:
    functions = [function("run", v={"type": "ArrayList"})]
    result = score(functions, [{"run": {"v": [["a"]]}}], f"run(v={value})", language="java")
    assert result["score"] is None
    assert "run" not in result["unscored"]
    # but another name, or a number of calls that cannot be right, is wrong all the same
    assert score(functions, [{"run": {"v": [["a"]]}}], f"walk(v={value})", language="java")["score"] == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "f(",
            "f)",
            "f(a=1",
            "f(a='x)",
            "x",
            "5",
            "f(1)",
            "f(*a)",
            "f(**a)",
            "lambda: 0",
            "f(a=1) and more",
            "[[f()]]",
        ),
        *(
            "f(a=1, a=2)",
            '[{"a": 1, "b": 2}]',
            '[{"name": "f", "arguments": [1]}]',
            '[{"name": "f", "arguments": "x"}]',
        ),
        *("[1, 2]", "(" * 5000, "[" * 5000, "-" * 5000 + "1", "f(a=" + "9" * 6000 + ")", "f(" * 4000, "x" * 30_000),
        *("f(a={**b})", "f(a={[1]: 2})", "\0", "f(a=1)\nf(a=2)", "+".join("1" * 4000)),
    ],
)
def test_what_is_no_list_of_calls(text: str) -> None:
    with pytest.raises(UnreadableError, match=r"."):
        read_calls(text, "python")
    with contextlib.suppress(UnreadableError):  # Java and JavaScript leave the values to their types
        assert all(isinstance(call, Call) for call in read_calls(text, "java"))
    for language in ("python", "java", "javascript"):
        assert score([WEATHER], [{"weather": {"city": ["a"]}}], text, language=language)["score"] == 0.0


@given(st.text(max_size=80), st.sampled_from(["python", "java", "javascript"]))
def test_every_text_has_a_score(text: str, language: str) -> None:
    assert score([WEATHER], [{"weather": {"city": ["a"]}}], text, language=language)["score"] == 0.0


@given(st.text(alphabet="ab(){}[]<>.,;:=\"'\\ 1newArrysList", max_size=60), st.sampled_from(["java", "javascript"]))
def test_every_value_is_read_or_refused(text: str, language: str) -> None:
    with contextlib.suppress(ValueError, UnknownValueError):
        json.dumps(value_of(text, language))


JSON = st.recursive(
    st.booleans() | st.integers(-99, 99) | st.text("abc d", min_size=1, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("kxyz", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


def accepting(value: Any) -> Any:
    """What the ground truth has for a value: at each key of a record, a list of accepted ones."""
    if isinstance(value, dict):
        return {key: [accepting(inner)] for key, inner in value.items()}
    return [accepting(inner) for inner in value] if isinstance(value, list) else value


@given(JSON)
def test_the_ground_truth_itself_is_right_in_every_language(value: Any) -> None:
    functions, truth = [function("f", v="any")], [{"f": {"v": [accepting(value)]}}]
    assert score(functions, truth, f"f(v={value!r})")["score"] == 1.0
    assert score(functions, truth, json.dumps([{"name": "f", "arguments": {"v": value}}]))["score"] == 1.0
    assert score(functions, truth, f"f(v={json.dumps(value)})", language="JavaScript")["score"] == 1.0


def test_split_leaves_brackets_and_quotes_whole() -> None:
    assert split('a, f(b, c), "d, \\" e", {g: [h, i]}') == ["a", " f(b, c)", ' "d, \\" e"', " {g: [h, i]}"]
    assert split("  ") == []
    with pytest.raises(ValueError, match="is missing"):
        split("f(a")


@pytest.mark.parametrize("text", ["new A(){{}}" + "(){{}}" * 2500, "[" * 4000 + "]" * 4000, '"' + "\\" * 9999 + '"'])
def test_no_value_takes_long(text: str) -> None:
    for language in ("java", "javascript"):
        with pytest.raises((UnknownValueError, ValueError)):
            value_of(text, language)
