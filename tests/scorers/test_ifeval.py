"""IFEval: each instruction with texts that follow it and texts that do not, and what cannot be scored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.scorers import SCORERS, score_rows
from llsflow.scorers.ifeval import INSTRUCTIONS
from llsflow.scorers.ifeval.language import language_of
from llsflow.scorers.ifeval.text import count_capital_words, count_sentences, count_words

SCORER = SCORERS["basic::ifeval"]

# id -> cases of: arguments, a text that follows, a text that does not
CASES: dict[str, list[tuple[dict[str, Any], str, str]]] = {
    "keywords:existence": [
        ({"keywords": ["dog", "Cat"]}, "A doghouse, a CAT.", "A dog."),
        ({"keywords": ["a.b"]}, "It is a.b here", "It is axb here"),
    ],
    "keywords:frequency": [
        ({"keyword": "dog", "frequency": 2, "relation": "at least"}, "Dog, hotdog", "dog"),
        ({"keyword": "dog", "frequency": 2, "relation": "less than"}, "dog", "dog dog"),
        ({"keyword": "c++", "frequency": 1.0, "relation": "at least"}, "C++!", "ccc"),
    ],
    "keywords:forbidden_words": [
        ({"forbidden_words": ["cat", "C++"]}, "category, concatenate", "The Cat."),
        ({"forbidden_words": ["C++"]}, "C", "in c++ only"),
    ],
    "keywords:letter_frequency": [
        ({"letter": "E", "let_frequency": 3, "let_relation": "at least"}, "Eerie", "be"),
        ({"letter": "e", "let_frequency": 1, "let_relation": "less than"}, "xyz", "E"),
    ],
    "language:response_language": [
        ({"language": "de"}, "Ich gehe sonntags sehr gern in den Park.", "I like to go to the park on Sundays."),
        ({"language": "hi"}, "मुझे रविवार को पार्क जाना बहुत पसंद है।", "मला रविवारी उद्यानात जायला खूप आवडते."),
        ({"language": "zh-cn"}, "我很喜欢星期天和朋友去公园。", "日曜日に友達と公園に行くのが大好きです。"),
        ({"language": "fr"}, "12 + 12 = 24", "Twelve and twelve is twenty-four."),
    ],
    "length_constraints:number_sentences": [
        ({"num_sentences": 2, "relation": "at least"}, "Dr. Who ran. He won!", "Dr. Who ran to the U.S. Army"),
        ({"num_sentences": 2, "relation": "less than"}, "It costs 3.5 or so", "One. Two."),
    ],
    "length_constraints:number_paragraphs": [
        ({"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
        ({"num_paragraphs": 2}, "***\none *** two ***", "one *** *** two"),
    ],
    "length_constraints:number_words": [
        ({"num_words": 3, "relation": "at least"}, "one two-three", "one two"),
        ({"num_words": 3, "relation": "less than"}, "one, two", "don't do"),
    ],
    "length_constraints:nth_paragraph_first_word": [
        ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Now"}, "a\n\n'now, b", "a\n\nNowhere"),
        ({"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "a"}, "a b\nc", "a b\n\nc"),
        ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "b"}, "a\n\nb", "a\n\n \n\nb"),
    ],
    "detectable_content:number_placeholders": [({"num_placeholders": 2}, "[name] at [place]", "[name\n]")],
    "detectable_content:postscript": [
        ({"postscript_marker": "P.S."}, "Bye.\np. s. Write.", "Bye. PS: write."),
        ({"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. Write.", "Bye.\nP.S. Write."),
        ({"postscript_marker": "N.B."}, "n.b. this", "NxBx this"),
    ],
    "detectable_format:number_bullet_lists": [
        ({"num_bullets": 2}, "* one\n  * two", "* one\n* two\n* three"),
        ({"num_bullets": 2}, "- one\n* two", "** one\n* two"),
    ],
    "detectable_format:constrained_response": [({}, "My answer is no. Really.", "My answer is No.")],
    "detectable_format:number_highlighted_sections": [
        ({"num_highlights": 2}, "*one* and **two**", "*one* and ** **"),
        ({"num_highlights": 1}, "* a*", "*a\n*"),
    ],
    "detectable_format:multiple_sections": [
        ({"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1\na\nSECTION2\nb", "Section 1\na\nSECTION 2\nb"),
    ],
    "detectable_format:json_format": [
        ({}, '```json\n{"a": [1, 2]}\n```', '{"a": 1} is it'),
        ({}, " 5 ", "[" * 100_000),
    ],
    "detectable_format:title": [({}, "<<Poem of joy>>\nO joy", "<< >>\n<<Poem\n>>")],
    "combination:two_responses": [
        ({}, "one ****** two", "one ****** one"),
        ({}, "******one****** two", "one ****** ****** two"),
    ],
    "combination:repeat_prompt": [
        ({"prompt_to_repeat": "Write a poem. "}, "  write a poem.\nO joy", "Sure! Write a poem. O joy"),
    ],
    "startend:end_checker": [({"end_phrase": "That is all."}, '"So. that is ALL."', "That is all. Bye.")],
    "startend:quotation": [({}, ' "all" ', '"')],
    "change_case:capital_word_frequency": [
        ({"capital_frequency": 2, "capital_relation": "at least"}, "I am LOUD", "AND/OR so"),
        ({"capital_frequency": 2, "capital_relation": "less than"}, "WELL-KNOWN it is", "YES, NO"),
    ],
    "change_case:english_capital": [
        ({}, "HELLO WORLD, HOW ARE YOU TODAY?", "HELLO WORLD, HOW ARE you TODAY?"),
        ({}, "HELLO WORLD", "HOLA MUNDO, ¿CÓMO ESTÁS?"),  # a rare language takes the first, where all are allowed
        ({}, "WHAT A FINE DAY IT IS.", "WAS FÜR EIN SCHÖNER TAG ES IST, NICHT WAHR?"),
    ],
    "change_case:english_lowercase": [
        ({}, "what a fine day it is.", "What a fine day it is."),
        ({}, "how are you today?", "comment allez-vous aujourd'hui, mes amis ?"),
    ],
    "punctuation:no_comma": [({}, "one; two", "one, two")],
}


def row(answer: Any, *instructions: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "prompt": "p",
        "instruction_id_list": [name for name, _ in instructions],
        "kwargs": [arguments for _, arguments in instructions],
        "generated_answer": answer,
    }


def test_every_instruction_of_the_paper_has_cases() -> None:
    assert len(INSTRUCTIONS) == 25
    assert list(CASES) == list(INSTRUCTIONS)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_what_follows_and_what_does_not(name: str, case: tuple[dict[str, Any], str, str]) -> None:
    arguments, follows, breaks = case
    # a data set of one table has every argument in every row, null where it is not the instruction's
    filled = {**arguments, **dict.fromkeys({"num_words", "keywords", "language"} - arguments.keys())}
    assert SCORER.score(row(follows, (name, filled))) == {
        "score": 1.0,
        "weight": 1.0,
        "followed": [name],
        "not_followed": [],
    }
    assert SCORER.score(row(breaks, (name, filled)))["score"] == 0.0


def test_the_weighted_average_is_the_share_of_all_instructions() -> None:
    comma: tuple[str, dict[str, Any]] = ("punctuation:no_comma", {})
    title: tuple[str, dict[str, Any]] = ("detectable_format:title", {})
    rows = [row("<<a, b>>", comma, title), row("x", comma), row(" \n", comma), row("a", ("nope", {}))]
    result = score_rows(rows, "basic::ifeval")
    assert result.score_rows[0] == {
        "score": 0.5,
        "weight": 2.0,
        "followed": ["detectable_format:title"],
        "not_followed": ["punctuation:no_comma"],
    }
    assert [one["score"] for one in result.score_rows] == [0.5, 1.0, 0.0, None], "white space follows nothing"
    inner = result.aggregated_results["weighted_average"]
    # two of the four instructions that can be scored
    assert (inner["weighted_average"], inner["num_unscored"]) == (0.5, 1)


def test_columns_of_a_csv_file_are_json() -> None:
    plain = row("a", ("keywords:existence", {"keywords": ["a"]}))
    assert SCORER.score({**plain, **{name: json.dumps(plain[name]) for name in SCORER.columns}})["score"] == 1.0


WORDS = "length_constraints:number_words"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"instruction_id_list": None}, "instruction_id_list is absent or null"),
        ({"instruction_id_list": [], "kwargs": []}, "no list of instructions"),
        ({"instruction_id_list": "x"}, "instruction_id_list is the text 'x', which is no JSON"),
        (
            {"instruction_id_list": ["length_constraints:number_wrods"]},
            "is no instruction: known are keywords:existence",
        ),
        ({"kwargs": []}, "kwargs is no list of 1 records"),
        ({"kwargs": [5]}, "kwargs[0] is no record"),
        ({"kwargs": [{"num_words": 3}]}, f"{WORDS} takes num_words, relation: found num_words"),
        ({"kwargs": [{"num_words": 3, "relation": "at least", "x": 1}]}, "found num_words, relation, x"),
        (
            {"kwargs": [{"num_words": "3", "relation": "at least"}]},
            "num_words is '3': an integer of at least 0 is needed",
        ),
        ({"kwargs": [{"num_words": 2.5, "relation": "at least"}]}, "an integer of at least 0"),
        ({"kwargs": [{"num_words": float("nan"), "relation": "at least"}]}, "num_words is 'nan'"),
        ({"kwargs": [{"num_words": float("inf"), "relation": "at least"}]}, "num_words is 'inf'"),
        ({"kwargs": [{"num_words": True, "relation": "at least"}]}, "an integer of at least 0"),
        ({"kwargs": [{"num_words": 3, "relation": "at most"}]}, "allowed are less than, at least"),
        ({"generated_answer": None}, "generated_answer is absent or null"),
    ],
)
def test_what_cannot_be_scored_says_why(change: dict[str, Any], told: str) -> None:
    good = row("a b c", (WORDS, {"num_words": 3, "relation": "at least"}))
    assert SCORER.score(good)["score"] == 1.0
    result = SCORER.score({**good, **change})
    assert result["score"] is None
    assert told in result["unscored"]


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("language:response_language", {"language": "klingon"}, "known are af, ar"),
        ("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}, "one letter"),
        ("keywords:existence", {"keywords": "dog"}, "a list of texts is needed"),
        ("keywords:existence", {"keywords": ["dog", 5]}, "a text is needed"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 1, "nth_paragraph": 0, "first_word": "a"},
            "counts from 1",
        ),
        ("punctuation:no_comma", {"x": 1}, "takes no arguments: found x"),
    ],
)
def test_wrong_arguments_are_told(name: str, arguments: dict[str, Any], told: str) -> None:
    assert told in SCORER.score(row("a", (name, arguments)))["unscored"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("...", 0),
        ("One", 1),
        ("One. Two", 2),
        ("One.Two", 1),
        ("i like it. it is good.", 2),
        ("Really? yes! Fine.", 3),
        ("Wait... what is it? No.", 2),
        ("Wait... What is it?", 2),
        ('"What?" he asked. "Go!" She went.', 3),
        ("Mr. and Mrs. Smith met Dr. J. R. Jones, i.e. me. It rained.", 2),
        ("We met at 5 p.m. on Jan. 5. It rained, etc. Then it stopped.", 3),
        ("Pi is 3.14 or so. See example.com for more.", 2),
        ("1. Apples are red.\n2. Pears are green.", 2),
        ("A title\n\nA text without a stop", 1),
        ("我喜欢公园。你呢？很好！", 3),
        ("मुझे पसंद है। तुम्हें?", 2),
        ("So did I. You too.", 2),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences


@pytest.mark.parametrize(
    ("text", "words", "capitals"),
    [("", 0, 0), ("one two", 2, 0), ("DON'T stop", 3, 1), ("The U.S. IS here", 5, 2), ("YES,NO", 2, 2), ("1 A", 2, 1)],
)
def test_words(text: str, words: int, capitals: int) -> None:
    assert (count_words(text), count_capital_words(text)) == (words, capitals)


SAMPLES = {
    "en": "I WOULD LIKE TO GO TO THE PARK AND SEE THE TREES.",
    "es": "Me gusta mucho ir al parque con mis amigos.",
    "pt": "Eu gosto muito de ir ao parque com os meus amigos.",
    "ar": "أحب الذهاب إلى الحديقة مع أصدقائي",
    "ru": "Мне очень нравится ходить в парк с друзьями.",
    "uk": "Мені дуже подобається ходити в парк із друзями.",
    "bg": "Много обичам да ходя в парка с приятелите си.",
    "ko": "나는 친구들과 공원에 가는 것을 좋아합니다.",
    "fa": "من خیلی دوست دارم با دوستانم به پارک بروم",
    "ur": "مجھے اپنے دوستوں کے ساتھ پارک جانا بہت پسند ہے",
    "ne": "मलाई साथीहरूसँग पार्क जान धेरै मन पर्छ।",
    "sw": "Ninapenda sana kwenda bustanini na marafiki zangu.",
    "fi": "Pidän kovasti puistossa käymisestä ystävieni kanssa.",
    "pa": "ਮੈਨੂੰ ਆਪਣੇ ਦੋਸਤਾਂ ਨਾਲ ਪਾਰਕ ਜਾਣਾ ਬਹੁਤ ਪਸੰਦ ਹੈ।",
}


@pytest.mark.parametrize("code", SAMPLES)
def test_languages(code: str) -> None:
    assert language_of(SAMPLES[code]) == code
    assert language_of(SAMPLES[code]) == code, "the same text, the same language"


def test_a_text_without_letters_has_no_language() -> None:
    assert language_of("12 + 12 = 24 !") is None


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_no_text_takes_long(name: str) -> None:
    """A model that loops writes these; a regex that backtracks would need hours."""
    arguments = CASES[name][0][0]
    for piece in ("[", "<<", "*", "**a", ".", 'a."', "a.b", "- ", "'", "\n\n", "SECTION", "1. ", "P. "):
        SCORER.score(row(piece * 20_000, (name, arguments)))


@given(st.text(max_size=60), st.sampled_from(sorted(INSTRUCTIONS)))
def test_every_text_has_a_score(answer: str, name: str) -> None:
    result = SCORER.score(row(answer, (name, CASES[name][0][0])))
    assert result["score"] in (0.0, 1.0)
    assert result["followed"] + result["not_followed"] == [name]


@given(st.text(alphabet="aB .!?\n'\"…", max_size=60))
def test_less_than_is_the_contrary_of_at_least(answer: str) -> None:
    if not answer.strip():
        return
    for name in ("length_constraints:number_sentences", "length_constraints:number_words"):
        key = name.rpartition(":")[2].replace("number", "num")
        scores = [
            SCORER.score(row(answer, (name, {key: 2, "relation": relation})))["score"]
            for relation in ("less than", "at least")
        ]
        assert sum(scores) == 1.0
