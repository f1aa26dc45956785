"""The report's figures: traces, gaps, axes, escaping, and the projection behind the map."""

import json

import numpy as np
import pytest

from synalign_agent.report.figures import mmd2_by_round, weight_histogram
from synalign_agent.report.layout import neighbourhoods, project_2d
from synalign_agent.report.map_figure import MapPoint, map_figure


def _round(number, raw=0.05, aligned=0.02, floor=0.004, target=0.006):
    return {"round": number, "mmd2": {"raw": raw, "aligned": aligned, "floor": floor, "target": target}}


def _point(group="real", text="a text", label="good", detail="holdout", x=0.0, y=1.0):
    return MapPoint(x=x, y=y, group=group, label=label, text=text, detail=detail)


def _trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


class TestMmd2ByRound:
    def test_has_a_line_for_each_distance(self):
        figure = mmd2_by_round([_round(1), _round(2, aligned=0.01)])
        assert [trace.name for trace in figure.data] == [
            "Random choice from the pool", "Aligned", "Real vs real (floor)", "Target",
        ]  # fmt: skip
        assert list(_trace(figure, "Aligned").x) == [1, 2]
        assert list(_trace(figure, "Aligned").y) == [0.02, 0.01]

    def test_what_was_not_measured_is_a_gap(self):
        figure = mmd2_by_round([_round(1), _round(2, aligned=None), _round(3)])
        trace = _trace(figure, "Aligned")
        assert list(trace.y) == [0.02, None, 0.02]
        assert trace.connectgaps is False

    def test_leaves_out_a_line_without_numbers(self):
        figure = mmd2_by_round([_round(1, target=None), _round(2, target=None)])
        assert "Target" not in [trace.name for trace in figure.data]

    def test_is_logarithmic_only_if_all_distances_are_positive(self):
        assert mmd2_by_round([_round(1)]).layout.yaxis.type == "log"
        assert mmd2_by_round([_round(1), _round(2, aligned=-1e-4)]).layout.yaxis.type != "log"
        assert mmd2_by_round([_round(1), _round(2, aligned=0.0)]).layout.yaxis.type != "log"

    @pytest.mark.parametrize(("low", "high"), [(0.004, 0.05), (0.0101, 0.0102), (1e-6, 0.9)])
    def test_log_axis_shows_all_values_and_at_least_two_ticks(self, low, high):
        axis = mmd2_by_round([_round(1, raw=high, aligned=low, floor=low, target=low)]).layout.yaxis
        assert 10 ** axis.range[0] < low <= high < 10 ** axis.range[1]
        assert len(axis.tickvals) >= 2
        assert all(10 ** axis.range[0] <= tick <= 10 ** axis.range[1] for tick in axis.tickvals)

    def test_works_without_rounds_or_numbers(self):
        assert not mmd2_by_round([]).data
        assert not mmd2_by_round([_round(1, None, None, None, None)]).data


class TestProject2d:
    @pytest.fixture
    def real(self):
        rng = np.random.default_rng(0)
        return rng.normal(size=(60, 8)) * [5, 3, 1, 1, 1, 1, 1, 1] + 7

    def test_is_centred_on_the_real_rows_and_ordered_by_variance(self, real):
        projected = project_2d(real, [])[0]
        assert projected.shape == (60, 2)
        np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-12)
        assert projected[:, 0].std() > projected[:, 1].std() > 0

    def test_keeps_the_variance_that_pca_keeps(self, real):
        variances = np.sort(np.linalg.eigvalsh(np.cov(real.T, bias=True)))[::-1]
        np.testing.assert_allclose(project_2d(real, [])[0].var(axis=0), variances[:2])

    def test_applies_the_same_map_to_the_others(self, real):
        first, second, none = project_2d(real, [real[:5], np.empty((0, 8))])
        np.testing.assert_allclose(second, first[:5])
        assert none.shape == (0, 2)

    def test_does_not_depend_on_the_order_of_the_rows(self, real):
        shuffle = np.random.default_rng(1).permutation(len(real))
        np.testing.assert_allclose(project_2d(real[shuffle], [])[0], project_2d(real, [])[0][shuffle], atol=1e-9)

    def test_mirrored_rows_get_the_same_axes(self, real):
        mirrored = 2 * real.mean(axis=0) - real
        np.testing.assert_allclose(project_2d(mirrored, [])[0], -project_2d(real, [])[0], atol=1e-9)

    def test_rows_that_do_not_vary_lie_at_the_origin(self):
        one, other = project_2d(np.ones((1, 4), dtype=np.float32), [np.zeros((2, 4))])
        assert not one.any() and not other.any()
        line = project_2d(np.outer(np.arange(5.0), [1, 2, 3]), [])[0]
        assert line[:, 0].std() > 1 and not line[:, 1].any()

    def test_no_real_rows(self):
        assert [rows.shape for rows in project_2d(np.empty((0, 4)), [np.ones((3, 4))])] == [(0, 2), (3, 2)]


class TestNeighbourhoods:
    def test_keeps_two_kinds_apart_wherever_they_come_from_and_is_the_same_again(self):
        rng = np.random.default_rng(0)
        kinds = [rng.normal(size=(20, 6)) * 0.1 + center for center in (0.0, 5.0)]
        real, others = np.concatenate([kinds[0][:10], kinds[1][:10]]), [np.concatenate([kinds[0][10:], kinds[1][10:]])]
        near, far = neighbourhoods(real, others)
        assert near.shape == far.shape == (20, 2)
        one, other = (np.concatenate([near[part], far[part]]) for part in (slice(10), slice(10, 20)))
        gap = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
        assert gap > 2 * max(np.linalg.norm(part - part.mean(axis=0), axis=1).max() for part in (one, other))
        again = neighbourhoods(real, others)
        assert all((first == second).all() for first, second in zip((near, far), again, strict=True))

    def test_needs_ten_rows_that_differ(self):
        assert neighbourhoods(np.eye(9), []) is None
        assert neighbourhoods(np.ones((20, 3)), [np.ones((5, 3))]) is None
        assert neighbourhoods(np.empty((0, 3)), [np.empty((0, 3))]) is None


def test_weight_histogram_has_a_bar_for_each_bin():
    figure = weight_histogram({"histogram": {"edges": [0.0, 1.0, 2.0], "counts": [3, 4]}})
    assert (list(figure.data[0].x), list(figure.data[0].y)) == ([0.5, 1.5], [3, 4])
    assert not weight_histogram({"histogram": None}).data


class TestMapFigure:
    def test_has_a_trace_and_a_shape_for_each_group(self):
        figure = map_figure([_point("selected"), _point("real"), _point("pool"), _point("real", x=2.0)])
        assert [trace.name for trace in figure.data] == ["Real", "Raw, not selected", "Selected"]
        assert len({trace.marker.symbol for trace in figure.data}) == 3
        assert len({trace.marker.color for trace in figure.data}) == 3
        assert list(_trace(figure, "Real").x) == [0.0, 2.0]

    def test_leaves_out_empty_groups(self):
        assert [trace.name for trace in map_figure([_point("pool")]).data] == ["Raw, not selected"]

    def test_hover_escapes_cuts_and_wraps(self):
        text = "<img src=x onerror=alert(1)> & " + "word " * 100
        (hover,) = map_figure([_point(text=text)]).data[0].hovertext
        assert "<img" not in hover and "&lt;img src=x onerror=alert(1)&gt; &amp; word" in hover
        assert "…" in hover
        body = hover.split("<br>")[1:-1]
        assert len(body) > 2
        assert hover.startswith("<b>Real, good</b>") and hover.endswith("holdout")
        assert hover.count("word") <= 40

    def test_hover_breaks_a_text_without_spaces(self):
        (hover,) = map_figure([_point(text="x" * 150)]).data[0].hovertext
        assert max(map(len, hover.split("<br>"))) <= 60

    def test_hover_without_label_or_detail(self):
        (hover,) = map_figure([_point(label="", detail="", text="a")]).data[0].hovertext
        assert hover == "<b>Real</b><br>a"

    def test_script_does_not_survive_in_the_page(self):
        figure = map_figure([_point(text="<script>alert(1)</script>", label="</script>", detail="<script>")])
        page = figure.to_html(include_plotlyjs=False, full_html=False)
        assert "<script>alert(1)" not in page
        assert page.count("</script>") == 1

    def test_too_many_points_are_refused(self):
        assert len(map_figure([_point()] * 3000).data[0].x) == 3000
        with pytest.raises(ValueError, match="3001 points in group 'real'"):
            map_figure([_point()] * 3001)


@pytest.mark.parametrize("figure", [mmd2_by_round([_round(1)]), map_figure([_point()])])
def test_background_is_transparent(figure):
    layout = json.loads(figure.to_json())["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0, 0, 0, 0)"
