from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from synalign_agent.llm.structured import ReplyProblem, instruct, parse_reply
from synalign_agent.prompting.render import Message
from synalign_agent.schemas import AttributeValues, GeneratedTexts, LabelJudgement, ProposedDimensions

GOOD = '{"texts": ["one", "two"]}'


def parse(content: str | None, finish: str | None = "stop", refusal: str | None = None) -> BaseModel | ReplyProblem:
    return parse_reply(content, finish, refusal, GeneratedTexts)


def reason(content: str | None, finish: str | None = "stop", refusal: str | None = None) -> str:
    found = parse(content, finish, refusal)
    assert isinstance(found, ReplyProblem)
    return found.reason


@pytest.mark.parametrize("finish", ["stop", None, "eos", "tool_calls"])
def test_a_valid_reply_is_data_whatever_ended_it(finish: str | None) -> None:
    assert parse(GOOD, finish) == GeneratedTexts(texts=["one", "two"])


@pytest.mark.parametrize(
    ("content", "finish", "refusal", "expected"),
    [
        (None, "stop", "I cannot help with that", "refused"),
        (GOOD, "stop", "I cannot help with that", "refused"),
        (GOOD, "length", "no", "refused"),
        (None, "content_filter", None, "refused"),
        (GOOD, "content_filter", None, "refused"),
        (GOOD, "length", None, "length_cut"),
        ('{"texts": ["on', "length", None, "length_cut"),
        (None, "length", None, "length_cut"),
        (None, "stop", None, "empty_reply"),
        ("", "stop", "", "empty_reply"),
        (" \n\t", "stop", None, "empty_reply"),
        ('{"texts": ["on', "stop", None, "malformed"),
        ("Sure! " + GOOD, "stop", None, "malformed"),
        (GOOD + " Anything else?", "stop", None, "malformed"),
        (GOOD * 2, "stop", None, "malformed"),
        ("{'texts': ['one']}", "stop", None, "malformed"),
        ("{}", "stop", None, "off_schema"),
        ("[]", "stop", None, "off_schema"),
        ("null", "stop", None, "off_schema"),
        ('["one"]', "stop", None, "off_schema"),
        ('{"texts": []}', "stop", None, "off_schema"),
        ('{"texts": "one"}', "stop", None, "off_schema"),
        ('{"texts": ["one", 2]}', "stop", None, "off_schema"),
        ('{"texts": ["one", null]}', "stop", None, "off_schema"),
        ('{"texts": [NaN]}', "stop", None, "off_schema"),
        ('{"Texts": ["one"]}', "stop", None, "off_schema"),
    ],
)
def test_every_reason(content: str | None, finish: str, refusal: str | None, expected: str) -> None:
    assert reason(content, finish, refusal) == expected


def test_the_detail_says_where() -> None:
    assert parse('{"texts": ["one", 2]}') == ReplyProblem("off_schema", "texts.1: Input should be a valid string")
    assert parse("{]") == ReplyProblem("malformed", "Expecting property name enclosed in double quotes at character 1")
    assert parse(None, "stop", "Sorry, no") == ReplyProblem("refused", "Sorry, no")


@pytest.mark.parametrize(
    "fenced",
    [
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```",
        f"  \n```json\n{GOOD}```\n\n",
        f"```json\r\n{GOOD}\r\n```",
        f"```json\n{json.dumps(json.loads(GOOD), indent=2)}\n```",
    ],
)
def test_a_fence_around_the_json_is_tolerated(fenced: str) -> None:
    assert parse(fenced) == GeneratedTexts(texts=["one", "two"])


@pytest.mark.parametrize("fenced", [f"Here:\n```json\n{GOOD}\n```", f"```json\n{GOOD}", f"```json\n{GOOD}\n```\nDone."])
def test_text_around_a_fence_is_not(fenced: str) -> None:
    assert reason(fenced) == "malformed"


def test_a_fence_inside_a_text_stays() -> None:
    texts = ["run\n```\nls\n```", "```json\n{}\n```"]
    assert parse(json.dumps({"texts": texts})) == GeneratedTexts(texts=texts)
    assert parse(f"```json\n{json.dumps({'texts': texts})}\n```") == GeneratedTexts(texts=texts)


def test_extra_keys_are_left_out() -> None:
    assert parse('{"reasoning": "hm", "texts": ["one"], "n": 1}') == GeneratedTexts(texts=["one"])
    judged = parse_reply('{"label": "a", "why": {"x": 1}}', "stop", None, LabelJudgement)
    assert judged == LabelJudgement(label="a")


def test_a_cut_reply_that_happens_to_parse_is_refused() -> None:
    cut = '{"texts": ["one", "tw"]}'
    assert isinstance(parse(cut, "stop"), GeneratedTexts)
    assert reason(cut, "length") == "length_cut"


@pytest.mark.parametrize(
    "content",
    [
        '{"texts": [' + "1" * 5000 + "]}",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"texts": [' + "[" * 5000 + "]" * 5000 + "]}",
        "\ufeff" + GOOD,
        "\x00",
        '{"texts": ["a\nb"]}',
    ],
    ids=["endless number", "deep arrays", "deep objects", "deep and closed", "byte order mark", "nul", "raw line feed"],
)
def test_what_a_model_in_a_loop_writes_is_a_problem_not_a_crash(content: str) -> None:
    assert reason(content) in ("malformed", "off_schema")


@pytest.mark.parametrize(
    ("content", "schema"),
    [
        ('{"texts": ["fine", "cut emoji \\ud83d"]}', GeneratedTexts),
        ('{"tone": "\\ude00"}', AttributeValues),
        ('{"\\ude00": "calm"}', AttributeValues),
        ('{"label": "\\ud83d"}', LabelJudgement),
        ('{"dimensions": [{"name": "\\ud83d", "description": "d"}]}', ProposedDimensions),
    ],
)
def test_lone_surrogates_never_reach_the_stores(content: str, schema: type[BaseModel]) -> None:
    found = parse_reply(content, "stop", None, schema)
    if not isinstance(found, ReplyProblem):
        json.dumps(found.model_dump(), ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    ("content", "schema", "expected"),
    [
        ('{"tone": "calm", "topic": "bills"}', AttributeValues, {"tone": "calm", "topic": "bills"}),
        ('{"label": "a"}', LabelJudgement, {"label": "a"}),
        (
            '{"dimensions": [{"name": "Tone of Voice", "description": "mood"}]}',
            ProposedDimensions,
            {"dimensions": [{"name": "tone_of_voice", "description": "mood"}]},
        ),
    ],
)
def test_every_schema_is_read(content: str, schema: type[BaseModel], expected: Any) -> None:
    found = parse_reply(content, "stop", None, schema)
    assert isinstance(found, schema) and found.model_dump() == expected


@pytest.mark.parametrize(
    "content",
    [
        "Sure! " + GOOD,
        GOOD + " Anything else?",
        f"Here:\n```json\n{GOOD}\n```\nDone.",
        '<think>{"texts": 1} no, {"a": 2}</think>' + GOOD,
        "Use {braces} like this: " + GOOD,
        '{"texts": ["draft"]} is better as ' + GOOD,
    ],
)
def test_a_lenient_reader_finds_the_last_valid_object(content: str) -> None:
    assert parse_reply(content, "stop", None, GeneratedTexts, lenient=True) == GeneratedTexts(texts=["one", "two"])


@pytest.mark.parametrize("content", ["no braces", "{", "{" * 5000, '{"texts": []}', '{"texts": ["on', '{"a": 1}' * 200])
def test_a_lenient_reader_invents_nothing(content: str) -> None:
    found = parse_reply(content, "stop", None, GeneratedTexts, lenient=True)
    assert isinstance(found, ReplyProblem) and found == parse_reply(content, "stop", None, GeneratedTexts)


def test_a_lenient_reader_takes_no_cut_or_refused_reply() -> None:
    assert isinstance(parse_reply(GOOD, "length", None, GeneratedTexts, lenient=True), ReplyProblem)
    assert isinstance(parse_reply(GOOD, "stop", "no", GeneratedTexts, lenient=True), ReplyProblem)


def test_the_schema_is_written_behind_the_system_message_or_becomes_one() -> None:
    system, user = Message("system", "Be brief."), Message("user", "Write.")
    [head, rest] = instruct([system, user], '{"type": "object"}')
    assert (
        head.role == "system"
        and head.content.startswith("Be brief.\n\n")
        and head.content.endswith('{"type": "object"}')
    )
    assert rest == user
    assert [message.role for message in instruct([user], "{}")] == ["system", "user"]
