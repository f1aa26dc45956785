from __future__ import annotations

import re
from pathlib import Path

import pytest

from synalign_agent.errors import ConfigError
from synalign_agent.prompting.catalog import PROMPT_USES, SUFFIX, PromptCatalog, load_template, packaged_prompts_dir
from synalign_agent.prompting.render import render

FRONT = "name: judge_label\nversion: 2.0.0\ninputs: [task, text]\noutput_schema: LabelJudgement\n"
BODY = "<!-- role: user -->\n{{ task }}: {{ text }}\n"


def write(folder: Path, *, front: str = FRONT, body: str = BODY, name: str = "judge_label") -> Path:
    path = folder / f"{name}{SUFFIX}"
    path.write_bytes(f"---\n{front}---\n{body}".encode())
    return path


def refuse(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_template(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_packaged_prompts_load() -> None:
    catalog = PromptCatalog.load()
    assert set(catalog.templates) == set(PROMPT_USES)
    for name in PROMPT_USES:
        template = catalog[name]
        assert template.name == name and template.version[0].isdigit()
        assert Path(template.source).parent == packaged_prompts_dir()


def test_a_good_file_gives_its_front_matter(tmp_path: Path) -> None:
    template = load_template(write(tmp_path))
    assert (template.name, template.version, template.output_schema) == ("judge_label", "2.0.0", "LabelJudgement")
    assert template.inputs == {"task", "text"} and template.body == BODY


def test_an_undeclared_variable_is_named(tmp_path: Path) -> None:
    message = refuse(write(tmp_path, body=BODY + "{% for x in rows %}{{ x + more }}{% endfor %}"))
    assert "uses more, rows without declaring" in message


def test_an_unused_variable_is_named(tmp_path: Path) -> None:
    assert "declares text under inputs but never uses it" in refuse(
        write(tmp_path, body="<!-- role: user -->\n{{ task }}")
    )


@pytest.mark.parametrize("missing", ["name", "version", "inputs", "output_schema"])
def test_every_line_of_the_front_matter_is_needed(tmp_path: Path, missing: str) -> None:
    lines = [line for line in FRONT.splitlines(keepends=True) if not line.startswith(f"{missing}:")]
    assert missing in refuse(write(tmp_path, front="".join(lines)))


@pytest.mark.parametrize(
    "content",
    [
        BODY,
        "",
        "---\n",
        f"---\n{FRONT}{BODY}",
        f"---\n---\n{BODY}",
        f"---\njust words\n---\n{BODY}",
        f"---\n- a\n---\n{BODY}",
        f"---\nname: [\n---\n{BODY}",
        f"---\n{FRONT.replace('[task, text]', '5')}---\n{BODY}",
        f"---\n{FRONT.replace('[task, text]', '')}---\n{BODY}",
        f"---\n{FRONT.replace('[task, text]', '[task, text, 5]')}---\n{BODY}",
        f"---\n{FRONT.replace('[task, text]', '[task, text, {a: 1}]')}---\n{BODY}",
    ],
)
def test_a_file_without_usable_front_matter_is_refused(tmp_path: Path, content: str) -> None:
    path = write(tmp_path)
    path.write_text(content, encoding="utf-8")
    refuse(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() + "café".encode("cp1252"))
    refuse(path)


def test_the_name_must_be_that_of_the_file(tmp_path: Path) -> None:
    assert "'judge'" in refuse(write(tmp_path, front=FRONT.replace("judge_label", "judge")))


@pytest.mark.parametrize("schema", ["Judgment", "GeneratedTexts"])
def test_the_schema_must_be_the_one_that_replies_are_read_as(tmp_path: Path, schema: str) -> None:
    message = refuse(write(tmp_path, front=FRONT.replace("LabelJudgement", schema)))
    assert repr(schema) in message and "read as LabelJudgement" in message


def test_an_input_that_the_prompt_is_not_given_is_named_with_those_that_it_is(tmp_path: Path) -> None:
    front = FRONT.replace("[task, text]", "[task, text, contrast]")
    message = refuse(write(tmp_path, front=front, body=BODY + "{{ contrast }}"))
    assert "inputs: no contrast; it is given examples, task, text" in message


@pytest.mark.parametrize("broken", ["{% if task %}", "{{ text", "{{ text | nosuchfilter }}", "{% endfor %}"])
def test_a_syntax_error_is_named_with_its_line(tmp_path: Path, broken: str) -> None:
    assert "line 3" in refuse(write(tmp_path, body=f"<!-- role: user -->\n{{{{ task }}}}{{{{ text }}}}\n{broken}"))


def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path)
    unix = load_template(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_template(path) == unix
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_template(path).body == unix.body


def test_version_and_hash_follow_the_file(tmp_path: Path) -> None:
    before = load_template(write(tmp_path))
    body = load_template(write(tmp_path, body=BODY + "!"))
    version = load_template(write(tmp_path, front=FRONT.replace("2.0.0", "2.0.1")))
    assert (body.version, version.version) == ("2.0.0", "2.0.1")
    assert len({before.sha256, body.sha256, version.sha256}) == 3
    assert load_template(write(tmp_path)).sha256 == before.sha256 and len(before.sha256) == 64


def test_a_users_file_wins_over_the_packaged(tmp_path: Path) -> None:
    path = write(tmp_path)
    catalog = PromptCatalog.load(str(tmp_path))
    assert (catalog["judge_label"].version, catalog["judge_label"].source) == ("2.0.0", str(path))
    assert catalog["generate_samples"] == PromptCatalog.load()["generate_samples"]


def test_a_users_broken_file_is_refused_when_the_catalog_loads(tmp_path: Path) -> None:
    path = write(tmp_path, body=BODY + "{{ nothing }}")
    with pytest.raises(ConfigError, match="nothing") as caught:
        PromptCatalog.load(str(tmp_path))
    assert str(path) in str(caught.value)


def test_a_file_of_unknown_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, name="judge_labels")
    with pytest.raises(
        ConfigError, match=r"judge_labels\.md\.j2: no prompt of that name; known: .*judge_label"
    ) as caught:
        PromptCatalog.load(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prompts_dir"):
        PromptCatalog.load(str(tmp_path / "none"))


def test_other_files_in_a_users_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("notes", encoding="utf-8")
    assert PromptCatalog.load(str(tmp_path)) == PromptCatalog.load()


def test_the_prompt_that_came_after_1_0_0_renders_the_same_without_guidance_and_says_whom_it_continues(
    tmp_path: Path,
) -> None:
    shipped = PromptCatalog.load()["generate_samples"]
    text = Path(shipped.source).read_text(encoding="utf-8")
    first, _block, last = re.split(r"(?s)(\{% if guidance %\}\n.*?Write none like those\.\n\{% endif %\}\n)", text)
    text = re.sub(r"(?m)^(# Without guidance|continues:).*\n", "", first + last)
    text = text.replace("version: 1.1.0", "version: 1.0.0").replace(", guidance]", "]")
    (tmp_path / "generate_samples.md.j2").write_text(text, encoding="utf-8")
    before = load_template(tmp_path / "generate_samples.md.j2")
    assert shipped.continues == {before.sha256}
    values = {
        "task": "t", "label": "l", "attributes": {"tone": "dry"}, "demonstrations": [["a"], ["b"]], "n": 2, "words": (1, 2),
    }  # fmt: skip
    for layout in ("none", "prompt", "chat"):
        old, new = values | {"layout": layout}, values | {"layout": layout, "guidance": []}
        assert render(shipped, new) == render(before, old)
        guided = render(shipped, new | {"guidance": ["sounds like an advert"]})
        assert "- sounds like an advert" in guided[0].content and guided[1:] == render(before, old)[1:]
