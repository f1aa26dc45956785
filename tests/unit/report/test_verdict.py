"""The verdict in a sentence: which labels are within noise of real data, and what is wrong with the others."""

import pytest

from synalign_agent.report.verdict import verdict, within_noise, worth

NEAR = {"aligned": 0.004, "floor": 0.003, "floor_quantile": 0.004}
FAR = {"aligned": 0.009, "floor": 0.003, "floor_quantile": 0.004}
UNKNOWN = dict.fromkeys(NEAR)


def _summary(mmd2, **labels):
    rows = {name: {"n_selected": n, "n_requested": 10, "mmd2": found} for name, (n, found) in labels.items()}
    return {"n_selected": sum(n for n, _ in labels.values()), "mmd2": mmd2, "per_label": rows}


def test_the_border_belongs_to_noise():
    assert within_noise(NEAR) is True
    assert within_noise(FAR) is False
    assert within_noise(UNKNOWN) is None
    assert within_noise({}) is None


def test_labels_that_are_all_within_noise():
    assert verdict(_summary(NEAR, a=(10, NEAR), b=(10, NEAR))) == "Within noise of real data for 2 of 2 labels."


def test_labels_that_lack_rows_or_have_a_gap_are_under_covered():
    summary = _summary(NEAR, a=(10, NEAR), short=(4, FAR), gap=(10, FAR), far=(10, FAR), empty=(0, UNKNOWN))
    assert verdict(summary, [{"label": "gap"}]) == (
        "Within noise of real data for 1 of 5 labels; “short”, “gap” and “empty” are under-covered, “far” is farther than noise."
    )


def test_labels_that_nothing_was_asked_of_are_left_out():
    summary = _summary(NEAR, a=(10, NEAR), b=(10, NEAR), unwanted=(0, UNKNOWN))
    summary["per_label"]["unwanted"]["n_requested"] = 0
    assert verdict(summary) == "Within noise of real data for 2 of 2 labels."


def test_what_is_true_of_the_labels_may_not_be_true_of_all_together():
    sentence = verdict(_summary(FAR, a=(10, NEAR), b=(10, NEAR)))
    assert sentence.endswith("All together are farther than noise: 3.0 times what as many real rows score.")


def test_many_labels_are_not_all_named():
    summary = _summary(NEAR, **{f"l{number}": (10, FAR) for number in range(6)})
    assert "“l0”, “l1”, “l2” and 3 more are farther than noise" in verdict(summary)


@pytest.mark.parametrize(
    ("mmd2", "words"),
    [
        (NEAR, "Within noise of real data."),
        (FAR, "Farther from real data than noise explains: 3.0 times what as many real rows score."),
        (UNKNOWN, "How close the data are to real rows was not measured."),
        (
            {**NEAR, "floor": None, "floor_quantile": None},
            "The data score 0.00400; what real rows score was not measured.",
        ),
    ],
)
def test_data_without_labels(mmd2, words):
    assert verdict(_summary(mmd2, all=(10, mmd2))) == words


def test_nothing_selected():
    assert (
        verdict(_summary(UNKNOWN, a=(0, UNKNOWN)))
        == "No rows were selected, so there is nothing to compare with the real data."
    )
    assert worth(_summary(UNKNOWN)) is None
