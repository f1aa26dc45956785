"""Attribute shares, lengths, the copy check and the weights, each against numbers worked out by hand."""

import numpy as np
import pytest

from synalign_agent.config import GatesConfig
from synalign_agent.core.alignment import Rows
from synalign_agent.data.real import RealData
from synalign_agent.records import DemonstrationCluster, RealRow
from synalign_agent.report.copies import copy_check
from synalign_agent.report.gate_rates import real_rejection_rates
from synalign_agent.report.lineage import named_real_rows, sample_lineage
from synalign_agent.report.shares import DescribedClusters, attribute_shares, text_lengths
from synalign_agent.report.weights import weight_distribution
from synalign_agent.stores.vectors import VectorStore


def _rows(*places, label=0):
    return Rows(np.array(places, dtype=np.float64), np.full(len(places), label))


def _clusters(*attributes):
    """Make two clusters of label 0 at (0, 0) and (10, 0), each the mean of two rows."""
    X = np.array([[-1.0, 0], [1, 0], [9, 0], [11, 0]])
    clusters = [
        DemonstrationCluster(id="a", round=1, label="l", position=0, seed_id="0", member_ids=("0", "1"), score=None),
        DemonstrationCluster(id="b", round=1, label="l", position=1, seed_id="2", member_ids=("2", "3"), score=None),
    ]
    by_id = dict(zip(("a", "b"), attributes, strict=False))
    return DescribedClusters.of(clusters, by_id, X, {str(row): row for row in range(4)}, {"l": 0})


class TestAttributeShares:
    def test_rows_have_the_attributes_of_the_nearest_cluster(self):
        groups = {
            "real": (_rows((1, 1), (2, 0), (9, 1), (4, 0)), np.full(4, 0.25)),
            "pool": (_rows((0, 0), (10, 0)), np.array([0.2, 0.8])),
            "selected": (_rows((11, 0), (12, 0)), np.array([0.5, 0.5])),
        }
        clusters = _clusters({"tone": "angry"}, {"tone": "calm"})
        (dimension,) = attribute_shares(clusters, groups, {"real": 4, "selected": 2})
        assert dimension["dimension"] == "tone"
        angry, calm = dimension["values"]
        assert (angry["value"], calm["value"]) == ("angry", "calm")
        assert (angry["real"], angry["pool"], angry["selected"]) == pytest.approx((0.75, 0.2, 0.0))
        assert (calm["real"], calm["pool"], calm["selected"]) == pytest.approx((0.25, 0.8, 1.0))
        # Pooled share of "calm": (0.25 * 4 + 1 * 2) / 6 = 0.5.
        assert calm["noise"] == pytest.approx(np.sqrt(0.25 * (1 / 4 + 1 / 2)))
        assert calm["z"] == pytest.approx(0.75 / calm["noise"])

    def test_values_that_differ_in_case_and_spaces_are_one(self):
        groups = {name: (_rows((0, 0), (10, 0)), np.full(2, 0.5)) for name in ("real", "selected")}
        clusters = _clusters({"tone": "Very angry"}, {"tone": "very  ANGRY "})
        (dimension,) = attribute_shares(clusters, groups, {"real": 2, "selected": 2})
        assert [(row["value"], row["real"]) for row in dimension["values"]] == [("Very angry", 1.0)]
        assert dimension["values"][0]["z"] is None

    def test_an_empty_dataset_has_no_shares_and_no_difference(self):
        groups = {
            "real": (_rows((0, 0)), np.ones(1)),
            "selected": (Rows(np.zeros((0, 2)), np.zeros(0, int)), np.zeros(0)),
        }
        (dimension,) = attribute_shares(_clusters({"tone": "a"}, {"tone": "b"}), groups, {"real": 1, "selected": 0})
        assert [(row["real"], row["selected"], row["z"]) for row in dimension["values"]] == [
            (1.0, None, None),
            (0.0, None, None),
        ]

    def test_rows_of_labels_without_a_described_cluster_do_not_count(self):
        both = Rows(np.array([[0.0, 0], [0, 0]]), np.array([0, 1]))
        groups = {name: (both, np.full(2, 0.5)) for name in ("real", "selected")}
        (dimension,) = attribute_shares(_clusters({"tone": "a"}), groups, {"real": 2, "selected": 2})
        assert dimension["values"][0]["real"] == 1.0

    def test_a_group_of_which_no_row_counts_has_no_shares(self):
        groups = {"real": (_rows((0, 0)), np.ones(1)), "selected": (_rows((0, 0), label=1), np.ones(1))}
        (dimension,) = attribute_shares(_clusters({"tone": "a"}), groups, {"real": 1, "selected": 1})
        (row,) = dimension["values"]
        assert (row["real"], row["selected"], row["noise"], row["z"]) == (1.0, None, None, None)

    def test_without_attributes_there_are_none(self):
        assert attribute_shares(_clusters(), {"real": (_rows((0, 0)), np.ones(1))}, {"real": 1, "selected": 1}) == []


def test_text_lengths_are_weighted_quantiles():
    lengths = text_lengths(
        {"real": (["a" * n for n in (30, 10, 20)], np.array([0.05, 0.15, 0.8])), "pool": ([], np.zeros(0))}
    )
    assert lengths == {"real": {"p10": 10.0, "p50": 20.0, "p90": 20.0}, "pool": None}


class TestCopyCheck:
    def test_real_rows_are_compared_with_other_real_rows(self):
        angles = np.array([0.0, 0.1, 0.5, 0.5])
        real = VectorStore("m", 2)
        real.add(list("abcd"), np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32))
        found = copy_check(np.array([0.2, 0.9999]), np.array([3, 1]), real, np.random.default_rng(0))
        expected = [np.cos(0.1), np.cos(0.1), 1.0, 1.0]
        assert found["real"]["n"] == 4 and found["real"]["max"] == pytest.approx(1.0)
        assert found["real"]["median"] == pytest.approx(np.median(expected), abs=1e-6)
        assert found["selected"] == {"n": 4, "median": 0.2, "p95": pytest.approx(0.2 + 0.7999 * 0.85), "max": 0.9999}
        assert found["share_above_real_p95"] == 0.0

    def test_nothing_selected_is_not_measured(self):
        real = VectorStore("m", 2)
        real.add(["a"], np.array([[1.0, 0.0]], dtype=np.float32))
        found = copy_check(np.zeros(0), np.zeros(0, dtype=np.int64), real, np.random.default_rng(0))
        assert (
            found["selected"]["max"] is None and found["real"]["max"] is None and found["share_above_real_p95"] is None
        )


class TestRealRejectionRates:
    @staticmethod
    def _real(held_out):
        texts = ["a b c d e f", "a c e g i k", "b d f h j l", "c d e f g h", "x", "go go go go go go go"]
        angles = np.array([0.0, 0.1, 3.0, 3.1, 0.05, 3.05])
        labels = ["near", "near", "far", "far", "far", "far"]
        rows = [
            RealRow(str(place), text, label, "holdout" if place in held_out else "reference")
            for place, (text, label) in enumerate(zip(texts, labels, strict=True))
        ]
        X = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
        store = VectorStore("m", 2)
        store.add([row.id for row in rows], X)
        return RealData(rows, X), store

    def test_asks_the_gates_about_held_out_rows(self):
        config = GatesConfig.model_validate({"label_check": {"neighbours": 2}, "length": {"min_characters": 3}})
        rates = real_rejection_rates(config, *self._real({4, 5}), np.random.default_rng(0))
        # One of two rows is too short and lies among rows of the other label; the other one repeats itself.
        assert rates == {"too_short": 0.5, "too_long": 0.0, "repetitive": 0.5, "label_mismatch": 0.5}

    def test_without_held_out_rows_nothing_is_measured(self):
        assert real_rejection_rates(GatesConfig(), *self._real(set()), np.random.default_rng(0)) == {}


class TestWeights:
    def test_equal_weights_have_the_ess_of_the_pool(self):
        found = weight_distribution(np.full(8, 1 / 8))
        assert (found["n"], found["n_zero"], found["largest"]) == (8, 0, pytest.approx(1.0))
        assert (found["ess"], found["ess_share"]) == pytest.approx((8.0, 1.0))
        assert sum(found["histogram"]["counts"]) == 8

    def test_rows_without_weight_are_counted_apart(self):
        found = weight_distribution(np.array([0.5, 0.25, 0.25, 0.0]))
        assert (found["n_zero"], found["largest"]) == (1, pytest.approx(2.0))
        assert found["ess"] == pytest.approx(1 / 0.375)
        assert sum(found["histogram"]["counts"]) == 3 and len(found["histogram"]["edges"]) == 17

    @pytest.mark.parametrize("weights", [np.zeros(0), np.zeros(3)])
    def test_nothing_weighed_is_not_measured(self, weights):
        assert weight_distribution(weights) == {
            "n": len(weights), **dict.fromkeys(("n_zero", "largest", "ess", "ess_share", "histogram")),
        }  # fmt: skip


def test_lineage_names_each_real_text_once_and_shows_what_was_edited():
    row = {
        "sample_id": "s", "text": "x" * 700, "label": "l", "round": 2, "weight": 0.1, "copies": 1,
        "attributes": [{"name": "tone", "value": "dry"}], "demonstration_ids": ["a", "b"], "nearest_real_id": "a",
        "nearest_similarity": 0.5, "prompt": "p", "prompt_version": "1", "prompt_sha256": "f" * 64, "model": "m", "seed": 3,
        "edited_from": "old",
    }  # fmt: skip
    assert named_real_rows([row]) == {"a", "b"}
    found = sample_lineage(
        [row, {**row, "sample_id": "t", "edited_from": None}], {"a": "A", "b": "B"}, rewritten={"old": "was"}
    )
    assert found["real"] == {"a": "A", "b": "B"}
    assert len(found["samples"]["s"]["text"]) == 600 and found["samples"]["s"]["text"].endswith("…")
    assert found["samples"]["s"]["prompt"] == "p 1 (ffffffffffff)"
    assert (found["samples"]["s"]["edited_from"], found["samples"]["t"]["edited_from"]) == ("was", None)
