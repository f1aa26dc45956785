"""Results come back as they were saved, missing values carry reasons, and intervals are over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("evals.results", reason="the evals are not part of the source distribution")

from evals.compare import change_table, compare, compare_files, summary
from evals.intervals import mean_interval
from evals.output import markdown_table, missing_tables
from evals.results import EvalResult, Measurement, matching, over_seeds, paired_difference, start
from synalign_agent.errors import InputError


@dataclass(frozen=True)
class Asked:
    sizes: tuple[int, ...] = (1, 2)


def result(shift: float = 0.0, *, n_seeds: int = 5, digest: str = "d", noise: int = 0) -> EvalResult:
    """Two methods; `shift` moves the second only."""
    made = start("probe", Asked(), {"tiny": digest}, range(n_seeds))
    for seed in range(n_seeds):
        luck = np.random.default_rng(seed).normal()
        own = np.random.default_rng([seed, noise]).normal(scale=0.01)
        for method, value in (("a", 1.0 + luck), ("b", 2.0 + luck + own + shift)):
            made.add({"method": method, "k": 5}, "accuracy", seed, np.float64(value))
    made.add({"method": "c", "k": 5}, "accuracy", 0, None, "no rows")
    return made


def test_a_saved_result_comes_back(tmp_path: Path) -> None:
    made = result()
    back = EvalResult.load(made.save(tmp_path))
    assert back == made and back.fingerprint == made.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["probe.json"]


def test_the_fingerprint_is_of_settings_and_data() -> None:
    made = result()
    assert result(9.0, n_seeds=2).fingerprint == made.fingerprint != result(digest="other").fingerprint


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not readable"), ('{"format": 99}', "format 1"), ("[]", "format 1")]
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        EvalResult.load(tmp_path / "x.json")
    with pytest.raises(InputError, match="no such file"):
        EvalResult.load(tmp_path / "y.json")


def test_gaps_need_reasons_and_numbers_are_finite() -> None:
    with pytest.raises(ValueError, match="reason"):
        Measurement({}, "x", 0, None)
    with pytest.raises(ValueError, match="nan"):
        Measurement({}, "x", 0, float("nan"))


def test_the_interval_of_few_seeds_is_students() -> None:
    # t(0.975, 4 degrees) = 2.7764; the standard deviation of 1..5 is 1.5811.
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.method) == (3.0, "t")
    assert found.high == pytest.approx(3.0 + 2.7764 * 1.5811 / 5**0.5, abs=1e-3)
    assert mean_interval([2.0]).low is None and not mean_interval([2.0]).excludes_zero


def test_the_interval_of_many_seeds_is_a_bootstrap() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = mean_interval(values.tolist())
    assert found.method == "bootstrap"
    half = 1.96 * values.std() / 20.0
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_means_are_over_seeds_and_gaps_are_told_with_their_reasons() -> None:
    of_a = matching(result().measurements, "accuracy", {"method": "a"})
    found = over_seeds(of_a)
    assert found is not None and found.n == 5
    assert over_seeds([*of_a, *of_a]) == found  # two values of a seed are no two seeds
    assert over_seeds(matching(result().measurements, "accuracy", {"method": "c"})) is None
    assert markdown_table(missing_tables(result())[0])[-1] == "| accuracy | no rows | 1 |"
    assert not missing_tables(start("probe", Asked(), {}, [0]))


def test_pairs_cancel_what_seeds_share() -> None:
    entries = result().measurements
    a, b = (matching(entries, "accuracy", {"method": method}) for method in "ab")
    paired = paired_difference(b, a)
    assert paired is not None and paired.low is not None
    assert paired.low > 0.9 and paired.mean == pytest.approx(1.0, abs=0.02)
    alone = mean_interval([entry.value for entry in b if entry.value is not None])
    assert alone.high is not None and paired.high is not None
    assert paired.high - paired.mean < (alone.high - alone.mean) / 10
    assert paired_difference(a, [Measurement({}, "accuracy", 77, 1.0)]) is None


def test_compare_finds_what_moved_and_nothing_else(tmp_path: Path) -> None:
    found = compare(result(), result(0.2, noise=1))
    assert [change.condition["method"] for change in found.moved] == ["b"]
    assert found.moved[0].is_paired and found.moved[0].difference.mean == pytest.approx(0.2, abs=0.02)
    assert not compare(result(), result()).moved
    before, after = tmp_path / "before", tmp_path / "after"
    result().save(before)
    result(0.2).save(after)
    lines = markdown_table(change_table(compare_files(before, after)))
    assert "| k 5, method b | accuracy |" in lines[-1]
    with pytest.raises(InputError, match="none"):
        compare_files(before, tmp_path)


def test_compare_of_other_data_or_seeds_is_not_paired() -> None:
    other = compare(result(), result(0.2, digest="other"))
    assert not other.moved and not other.changes[0].is_paired
    assert any("data differ" in line for line in summary(other))
    assert compare(result(), result(9.0, digest="other")).moved  # far beyond the spread of the seeds
    assert not compare(result(), result(n_seeds=3)).changes[0].is_paired
    single = compare(result(n_seeds=1), result(9.0, n_seeds=1))
    assert not single.moved and single.n_unknown == 2
    with pytest.raises(InputError, match="two evals"):
        compare(result(), start("other", Asked(), {}, [0]))
