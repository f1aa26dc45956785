"""Planted copies are copies, runs of words are counted right, and the copying eval reacts to copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("evals.copying", reason="the evals are not part of the source distribution")
from evals import copying
from evals.output import markdown
from evals.planted_copies import CHANGES, change
from evals.results import EvalResult, matching
from evals.scorers.word_runs import longest_shared_runs
from synalign_agent.gates.copy_check import words_of

TEXT = "Oil rose. The Fed kept rates at 2.5 percent!"
SETTINGS = copying.Settings(datasets=("tiny",), n_selected=40, n_planted=20, n_seeds=2)


@pytest.fixture(scope="module")
def result(shared_data_dir: Path, word_encoder: Any) -> EvalResult:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("evals.embeddings.default_encoder", lambda: word_encoder)
        return copying.run(SETTINGS, lambda what, done, total: None, shared_data_dir)


def naive_run(text: str, others: list[str]) -> int:
    words, best = words_of(text), 0
    found = [" ".join(["", *words_of(other), ""]) for other in others]
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            if any(" ".join(["", *words[start:stop], ""]) in other for other in found):
                best = max(best, stop - start)
    return best


def test_shared_runs_are_those_of_a_naive_search() -> None:
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(list("abc"), rng.integers(0, 12))) for _ in range(60)]
    texts, others = rows[:30], rows[30:]
    assert longest_shared_runs(texts, others).tolist() == [naive_run(text, others) for text in texts]
    assert longest_shared_runs(["one two"], []).tolist() == [0]
    assert longest_shared_runs(["b c", ""], ["a b", "c d"]).tolist() == [1, 0]  # No run goes on into the next text.


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_the_one_that_it_is_named_for(kind: str) -> None:
    changed = change(kind, TEXT, ["Zinc fell. Nobody knows."], np.random.default_rng(1))
    words, before = words_of(changed), words_of(TEXT)
    assert (changed == TEXT) == (kind == "exact")
    if kind in ("case folded", "other punctuation"):
        assert words == (before if kind == "case folded" else words_of(TEXT.replace(".", " ")))
    elif kind == "a word replaced":
        assert len(words) == len(before) and sum(a != b for a, b in zip(words, before, strict=True)) == 1
    elif kind == "two words swapped":
        assert sorted(words) == sorted(before) and sum(a != b for a, b in zip(words, before, strict=True)) == 2
    elif kind == "a sentence inserted":
        assert "Zinc fell." in changed and len(words) == len(before) + 2


def test_the_scores_react_to_copies(result: EvalResult) -> None:
    def mean(metric: str, **where: str) -> float:
        return float(np.mean([entry.value for entry in matching(result.measurements, metric, where)]))

    assert mean("closer_to_shown", method="copies_10_percent") > mean("closer_to_shown", method="random")
    assert mean("shared_words_shown_p99", method="copies_10_percent") > mean("shared_words_hidden_p99", method="random")
    assert mean("recall", copy="exact", gate="words") == 1.0
    assert mean("recall", copy="exact", gate="any") >= mean("recall", copy="a word replaced", gate="words")


def test_tables_targets_and_figure(result: EvalResult) -> None:
    text = markdown(copying, result)
    assert "real test row, new to the gates" in text and "random, a tenth of it copies" in text
    wanted = {name: is_met for name, is_met, _ in copying.targets(result)}
    assert wanted["tiny: the gates catch 95% of copies, exact"] is True
    assert len(copying.figure(result).axes) == 1
