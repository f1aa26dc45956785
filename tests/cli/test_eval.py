"""`synalign eval`: what it finds in a checkout, and what it says where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import synalign_agent

Cli = Callable[..., tuple[int, str, str]]
_IS_CHECKOUT = (Path(synalign_agent.__file__).parents[1] / "evals" / "commands.py").is_file()
in_checkout = pytest.mark.skipif(not _IS_CHECKOUT, reason="the evals are not part of the source distribution")


def save(folder: Path, values: list[float]) -> Path:
    from evals.results import EvalResult

    result = EvalResult("alignment", {}, {"tiny": "d"}, list(range(len(values))))
    for seed, value in enumerate(values):
        result.add({"method": "kernel"}, "mmd2", seed, value)
    return result.save(folder)


def test_without_a_checkout_it_says_where_the_evals_are(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(synalign_agent, "__file__", str(tmp_path / "site" / "synalign_agent" / "__init__.py"))
    code, _, error = cli("eval", "alignment")
    assert code == 2
    assert "clone the repository" in error and "pip install --editable '.[eval]'" in error


@in_checkout
def test_help_lists_the_evals_with_their_questions(cli: Cli) -> None:
    code, out, _ = cli("eval", "--help")
    assert code == 0
    assert "synalign eval" in out and "compare" in out and "alignment" in out


@in_checkout
def test_missing_data_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    code, _, error = cli("eval", "alignment", "--quick", "--data", str(tmp_path / "none"))
    assert code == 2 and "--data" in error and "SYNALIGN_EVAL_DATA" in error
    code, _, error = cli("eval", "alignment", "--quick", "--full")
    assert code == 2 and "exclude" in error


@in_checkout
def test_compare_prints_what_moved(cli: Cli, tmp_path: Path) -> None:
    before, after = save(tmp_path / "a", [0.5, 0.6, 0.7]), save(tmp_path / "b", [0.41, 0.5, 0.59])
    code, out, _ = cli("eval", "compare", str(before), str(after))
    assert code == 0 and "3 paired" in out and "1 of 1 figures moved" in out
    code, out, _ = cli("eval", "compare", str(before), str(after), "--json")
    found = json.loads(out)
    assert found["moved"][0]["difference"]["mean"] == pytest.approx(-0.1)
    code, _, error = cli("eval", "compare", str(before), str(tmp_path / "none.json"))
    assert code == 2 and "no such file" in error
