from __future__ import annotations

import pytest

from synalign_agent.gates.debris import check_debris


@pytest.mark.parametrize("text", ["]}user. You can add a sentence", "}  # one more example", "] ]  #50 .", "  ]done"])
def test_what_is_left_of_json_is_no_beginning_of_a_text(text: str) -> None:
    verdict = check_debris(text, is_usual=False)
    assert verdict is not None and verdict.reason == "json_debris"
    assert check_debris(text, is_usual=True) is None


@pytest.mark.parametrize("text", ["[SOLVED] my parcel", "{name} is late", "all good :]", "", "a } b", ") at last"])
def test_other_brackets_are_text(text: str) -> None:
    assert check_debris(text, is_usual=False) is None
