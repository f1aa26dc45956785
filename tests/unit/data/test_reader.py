from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from synalign_agent.config import DataConfig
from synalign_agent.data.reader import RawRows, example_path, read_rows
from synalign_agent.errors import InputError
from synalign_agent.records import UNLABELLED

ROWS = [
    {"text": "where is my parcel", "label": "delivery"},
    {"text": "the café closed, 5 € lost", "label": "billing"},
    {"text": "it never came", "label": "delivery"},
    {"text": "charged twice", "label": "billing"},
]
TEXTS = [row["text"] for row in ROWS]
LABELS = [row["label"] for row in ROWS]


@pytest.fixture(autouse=True)
def quiet_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `datasets` away from the user's cache and from the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def jsonl(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def read(path: Path | str, **fields: Any) -> RawRows:
    return read_rows(DataConfig(path=str(path), **fields))


def read_jsonl(folder: Path, rows: Sequence[Mapping[str, Any]], **fields: Any) -> RawRows:
    return read(write(folder / "rows.jsonl", jsonl(rows)), **fields)


def refuse(path: Path | str, match: str = ".", **fields: Any) -> str:
    """Return the message of the InputError that reading ends in."""
    with pytest.raises(InputError, match=match) as caught:
        read(path, **fields)
    return str(caught.value)


def save_csv(path: Path, sep: str = ",") -> Path:
    pd.DataFrame(ROWS).to_csv(path, sep=sep, index=False)
    return path


def save_parquet(path: Path) -> Path:
    pd.DataFrame(ROWS).to_parquet(path, index=False)
    return path


def save_folder(path: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(path))
    return path


def save_folder_of_splits(path: Path) -> Path:
    other = datasets.Dataset.from_list([{"text": "other", "label": "other"}] * 2)
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS), "test": other}).save_to_disk(str(path))
    return path


def save_jsonl_folder(path: Path) -> Path:
    path.mkdir()
    write(path / "train.jsonl", jsonl(ROWS))
    return path


SAVERS = {
    "rows.jsonl": lambda path: write(path, jsonl(ROWS)),
    "rows.ndjson": lambda path: write(path, jsonl(ROWS)),
    "ROWS.JSONL": lambda path: write(path, jsonl(ROWS)),
    "rows.csv": save_csv,
    "rows.tsv": lambda path: save_csv(path, sep="\t"),
    "rows.parquet": save_parquet,
    "saved": save_folder,
    "splits": save_folder_of_splits,
    "folder": save_jsonl_folder,
}


@pytest.mark.parametrize("name", SAVERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    found = read(SAVERS[name](tmp_path / name))
    assert (found.texts, found.labels, found.warnings) == (TEXTS, LABELS, [])
    assert name in found.source


def test_format_can_be_named_where_the_ending_says_nothing(tmp_path: Path) -> None:
    assert read(write(tmp_path / "rows.txt", jsonl(ROWS)), format="jsonl").texts == TEXTS
    assert read(save_csv(tmp_path / "rows.dat"), format="csv").texts == TEXTS
    assert read(save_parquet(tmp_path / "rows"), format="parquet").texts == TEXTS


def test_split_of_a_dataset_is_chosen_and_an_unknown_one_refused(tmp_path: Path) -> None:
    folder = save_folder_of_splits(tmp_path / "splits")
    with pytest.raises(InputError, match="one row"):
        read(folder, hf_split="test")  # the two rows are one, so the label has a single row
    assert "nosuch" in refuse(folder, "splits", hf_split="nosuch")


def test_class_labels_become_their_names(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": list("abcd"), "label": [0, 1, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    found = read(tmp_path / "saved")
    assert (found.labels, found.warnings) == (["no", "yes", "no", "yes"], [])


def test_class_label_minus_one_is_a_missing_label(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": list("abcdef"), "label": [0, 1, 0, 1, -1, -1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    found = read(tmp_path / "saved")
    assert found.labels == ["no", "yes", "no", "yes"]
    assert "left out 2 rows without a `label`" in "\n".join(found.warnings)


def test_unreachable_dataset_is_an_input_error() -> None:
    assert "somebody/nothing" in refuse("somebody/nothing", "could not load")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_byte_order_mark_is_no_part_of_the_first_field(tmp_path: Path, name: str) -> None:
    path = SAVERS[name](tmp_path / name)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path).texts == TEXTS


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_other_encodings_are_read_when_named(tmp_path: Path, name: str, encoding: str) -> None:
    path = SAVERS[name](tmp_path / name)
    write(path, path.read_text(encoding="utf-8"), encoding)
    assert read(path, encoding=encoding).texts == TEXTS


def test_wrong_encoding_names_the_row_and_the_option(tmp_path: Path) -> None:
    rows = [{"text": f"row number {n}" + (" café" if n == 40 else ""), "label": "x"} for n in range(1, 60)]
    message = refuse(write(tmp_path / "rows.jsonl", jsonl(rows), "cp1252"), "0xe9 is not utf-8")
    assert "data.encoding" in message and "cp1252" in message
    assert "row 40:" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "rot13", "no-such-encoding", "", "undefined", "a\0b"])
def test_impossible_encoding_is_an_input_error(tmp_path: Path, encoding: str) -> None:
    refuse(write(tmp_path / "rows.jsonl", jsonl(ROWS)), "encoding", encoding=encoding)


@pytest.mark.parametrize("name", ["no.jsonl", "no.csv", "no.parquet", "nofolder/no.tsv"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    assert str(tmp_path / name) in refuse(tmp_path / name, "no such file")


@pytest.mark.parametrize("path", ["~nosuchuser/rows.jsonl", "x" * 5000 + ".jsonl", "a\0b.jsonl", ""])
def test_impossible_path_is_an_input_error(path: str) -> None:
    refuse(path)


def test_folder_with_the_name_of_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    refuse(tmp_path / "rows.jsonl", "rows.jsonl")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet", "saved"])
@pytest.mark.parametrize("option", ["text_column", "label_column"])
def test_missing_column_names_those_that_are_there(tmp_path: Path, name: str, option: str) -> None:
    message = refuse(SAVERS[name](tmp_path / name), "`body`", **{option: "body"})
    assert "'text'" in message and "'label'" in message and f"data.{option}" in message


def test_other_column_names_can_be_given(tmp_path: Path) -> None:
    rows = [{"body": row["text"], "class": row["label"]} for row in ROWS]
    found = read_jsonl(tmp_path, rows, text_column="body", label_column="class")
    assert (found.texts, found.labels) == (TEXTS, LABELS)


def test_empty_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    empty: list[dict[str, Any]] = [{"text": text, "label": "billing"} for text in (None, "", " \n\t")]
    found = read_jsonl(tmp_path, [*ROWS, *empty])
    assert found.texts == TEXTS
    assert len(found.warnings) == 1 and "left out 3 rows with an empty `text`" in found.warnings[0]


def test_white_space_around_texts_and_labels_goes(tmp_path: Path) -> None:
    rows = [{"text": f"  {row['text']}\n", "label": f" {row['label']} "} for row in ROWS]
    found = read_jsonl(tmp_path, rows)
    assert (found.texts, found.labels) == (TEXTS, LABELS)


@pytest.mark.parametrize("value", [5, 1.5, True, ["a"], {"a": 1}])
def test_a_text_that_is_none_is_refused_by_file_row_and_field(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path / "rows.jsonl", jsonl([*ROWS, {"text": value, "label": "billing"}]))
    message = refuse(path, "row 5")
    assert str(path) in message and "`text`" in message and type(value).__name__ in message


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_a_label_that_is_a_container_is_refused(tmp_path: Path, value: Any) -> None:
    message = refuse(write(tmp_path / "rows.jsonl", jsonl([*ROWS, {"text": "t", "label": value}])), "row 5")
    assert "`label`" in message and type(value).__name__ in message


def test_number_labels_become_words_with_a_warning(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in zip("abcdef", [0, 1, 0.0, 1.0, 2.5, 2.5], strict=True)]
    found = read_jsonl(tmp_path, rows)
    assert found.labels == ["0", "1", "0", "1", "2.5", "2.5"]
    assert len(found.warnings) == 1 and "are numbers" in found.warnings[0] and "`label`" in found.warnings[0]


def test_number_labels_of_a_csv_are_warned_about_too(tmp_path: Path) -> None:
    found = read(write(tmp_path / "rows.csv", "text,label\na,0\nb,1\nc,0\nd,1\n"))
    assert found.labels == ["0", "1", "0", "1"]
    assert "are numbers" in "\n".join(found.warnings)


@pytest.mark.parametrize("value", [None, float("nan"), "", "  "])
def test_missing_labels_are_left_out_and_counted(tmp_path: Path, value: Any) -> None:
    found = read_jsonl(tmp_path, [*ROWS, {"text": "t", "label": value}, {"text": "u", "label": value}])
    assert (found.texts, found.labels) == (TEXTS, LABELS)
    assert len(found.warnings) == 1 and "left out 2 rows without a `label`" in found.warnings[0]


def test_missing_labels_of_a_data_frame_are_left_out(tmp_path: Path) -> None:
    pd.DataFrame({"text": list("abcde"), "label": [1.0, 2.0, 1.0, 2.0, float("nan")]}).to_parquet(
        tmp_path / "r.parquet"
    )
    found = read(tmp_path / "r.parquet")
    assert found.labels == ["1", "2", "1", "2"]
    assert "left out 1 rows without" in "\n".join(found.warnings)


def test_exact_duplicates_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read_jsonl(tmp_path, [*ROWS, ROWS[0], {"text": f" {TEXTS[1]}", "label": LABELS[1]}])
    assert found.texts == TEXTS
    assert len(found.warnings) == 1 and "left out 2 exact duplicate rows" in found.warnings[0]


def test_a_text_under_two_labels_is_kept_twice_with_a_warning(tmp_path: Path) -> None:
    found = read_jsonl(tmp_path, [*ROWS, {"text": TEXTS[0], "label": "billing"}])
    assert (found.texts[-1], found.labels[-1]) == (TEXTS[0], "billing")
    assert len(found.warnings) == 1 and "kept 1 texts" in found.warnings[0] and "label" in found.warnings[0]


def test_a_label_with_one_row_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", jsonl([*ROWS, {"text": "t", "label": "lonely"}]))
    message = refuse(path, "only one row")
    assert "'lonely'" in message and "1 of 3" in message and "`label`" in message


def test_many_single_labels_are_not_all_listed(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": f"label {n:02}"} for n in range(30)]
    message = refuse(write(tmp_path / "rows.jsonl", jsonl(rows)), "30 of 30")
    assert "'label 04', ..." in message and "label 05" not in message


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a"',
        "not json",
        '["text", "label"]',
        '"text"',
        "5",
        "null",
        '{"text": "a", "label": ' + "1" * 5000 + "}",
        "[" * 100_000,
    ],
    ids=["cut", "words", "array", "string", "number", "null", "endless number", "deep"],
)
def test_a_broken_json_line_is_named_by_its_row(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "rows.jsonl", jsonl(ROWS) + "\n" + line + "\n" + jsonl(ROWS))
    assert f"{path}: row 6: " in refuse(path)


def test_blank_lines_do_not_matter(tmp_path: Path) -> None:
    assert read(write(tmp_path / "rows.jsonl", "\n" + jsonl(ROWS).replace("\n", "\r\n \r\n"))).texts == TEXTS


def test_unicode_line_separators_do_not_cut_a_json_line(tmp_path: Path) -> None:
    rows = [{"text": "one\u2028two\x85three", "label": "x"}, {"text": "b", "label": "x"}]
    assert read_jsonl(tmp_path, rows).texts[0] == rows[0]["text"]


def test_csv_row_with_too_many_fields_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "text,label\na,x\nhello, world,x\n")
    assert "quote" in refuse(path, "row 3: more fields")


def test_csv_row_with_too_few_fields_has_no_label(tmp_path: Path) -> None:
    found = read(write(tmp_path / "rows.csv", "text,label\na,x\nb,x\nc\n"))
    assert found.texts == ["a", "b"] and "left out 1 rows without a `label`" in found.warnings[0]


def test_csv_keeps_quoted_newlines_and_delimiters(tmp_path: Path) -> None:
    found = read(write(tmp_path / "rows.csv", 'text,label\r\n"one\r\ntwo, ""three""",x\r\nb,x\r\n'))
    assert found.texts == ['one\r\ntwo, "three"', "b"]


def test_csv_field_beyond_the_limit_is_an_input_error(tmp_path: Path) -> None:
    refuse(write(tmp_path / "rows.csv", "text,label\n" + "a" * 200_000 + ",x\n"), "row 2")


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv", "empty.tsv"])
@pytest.mark.parametrize("content", ["", "\n\n", "text,label\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    refuse(write(tmp_path / name, "" if name.endswith("jsonl") else content), "no usable rows")


def test_damaged_parquet_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"text": [f"text {n}" for n in range(500)], "label": ["x"] * 500}).to_parquet(path)
    intact = path.read_bytes()
    path.write_bytes(intact[: len(intact) // 2])
    refuse(path, "Parquet")
    # The footer is whole, a page is not: the error comes while the rows are read.
    path.write_bytes(intact[:4] + bytes(len(intact) // 4) + intact[4 + len(intact) // 4 :])
    refuse(path, "Parquet")


def test_lone_surrogates_never_leave_the_reader(tmp_path: Path) -> None:
    lines = ['{"text": "so sad \\ud83d", "label": "x\\ude00"}', '{"text": "fine \\ud83d\\ude00", "label": "x\\ude00"}']
    found = read(write(tmp_path / "rows.jsonl", "\n".join(lines)))
    assert found.texts == ["so sad ?", "fine 😀"]
    for text in [*found.texts, *found.labels]:
        text.encode("utf-8")


def test_without_a_label_column_all_rows_are_one_group(tmp_path: Path) -> None:
    found = read_jsonl(tmp_path, [{"text": text} for text in "abc"], label_column=None)
    assert (found.texts, found.labels, found.warnings) == (list("abc"), [UNLABELLED] * 3, [])


def test_the_example_is_read_by_its_name() -> None:
    found = read("example:customer_messages")
    assert found.source == "example:customer_messages" and found.warnings == []
    assert len(found.texts) == len(example_path("customer_messages").read_text(encoding="utf-8").splitlines())
    assert len(set(found.labels)) > 1


@pytest.mark.parametrize("name", ["nothing", "", "../examples/nothing"])
def test_an_unknown_example_lists_the_known(name: str) -> None:
    assert "customer_messages" in refuse(f"example:{name}", "no such example")
