"""The report page: every number is there, nothing in it runs or loads anything, and None is never 0."""

import base64
import copy
import dataclasses
import gzip
import json
import re
from html.parser import HTMLParser

import pytest

from synalign_agent.report.html import render_report
from synalign_agent.report.map_figure import MapPoint

EVIL = "<script>alert(1)</script>"
MISSING = '<span class="missing" role="img" aria-label="not measured" title="not measured">–</span>'


def _summary():
    return {
        "thread_id": "reviews-7f3a", "status": "finished", "stop_reason": "max_rounds",
        "n_requested": 300, "n_selected": 300, "n_pool": 1612,
        "mmd2": {
            "raw": 0.012344, "aligned": 0.0051234, "floor": 0.0021056, "floor_quantile": 0.0025314, "target": 0.0025314,
            "reference": "holdout",
        },
        "n_eq": {"raw": 17.012, "aligned": 40.99}, "ess": 211.437, "p_value": 0.03125,
        "per_label": {
            "negative": {
                "n_requested": 140, "n_selected": 139, "n_pool": 801,
                "mmd2": {"raw": 0.0223, "aligned": 0.0111, "floor": 0.00441, "floor_quantile": 0.00552},
                "n_eq": {"raw": 9.4321, "aligned": 18.7654},
            },
            "positive": {
                "n_requested": 160, "n_selected": 161, "n_pool": 811,
                "mmd2": dict.fromkeys(("raw", "aligned", "floor", "floor_quantile")),
                "n_eq": {"raw": None, "aligned": None},
            },
        },
        "rejections": {"copy_words": 12, "attributes_length_cut": 3, "call_timeout": 41, "odd_reason": 2},
        "calls": {"done": 431, "failed": 7, "repeated": 0, "in_flight_lost": 1},
        "tokens": {"prompt": 123456, "completion": 65432}, "cost_usd": 0.12344, "seconds": 754.4,
        "coverage": {"explored": 0.61234, "random": 0.55, "n_demonstrations": 120},
        "warnings": ["18 real rows are shorter than 3 words"],
    }  # fmt: skip


def _ledger():
    spent = {
        "done": 431, "failed": 7, "in_flight_lost": 1, "cached": 23, "tokens": {"prompt": 121212, "completion": 34343},
        "cost_usd": 0.4321, "seconds": 4000.0,
    }  # fmt: skip
    unknown = {**spent, "tokens": {"prompt": None, "completion": None}, "cost_usd": None}
    gain = {"mmd2_gained": 0.004321, "tokens_per_mmd2": 7654321.0, "cost_usd_per_mmd2": 98.76}
    none = dict.fromkeys(gain)
    return {
        "calls": {"done": 454, "cached": 23, "inherited": 77, "failed_by_class": {"rate_limit": 5, EVIL: 2}},
        "cost_usd": 0.12344,
        "inherited_cost_usd": 0.0765,
        "by_prompt": {"generate_samples": spent, EVIL: unknown},
        "by_node": {"generate": spent},
        "per_accepted_sample": {"calls": 0.2672, "tokens": 96.54, "cost_usd": 0.0002681},
        "by_round": [
            {"round": 1, "calls": 200, "tokens": 80808, "cost_usd": 0.2, **none, "cumulative": none},
            {
                "round": 2, "calls": 231, "tokens": 74747, "cost_usd": 0.23, **gain,
                "cumulative": {**gain, "cost_usd_per_mmd2": 53.1},
            },
        ],
    }  # fmt: skip


def _analysis():
    shares = {"real": 0.25, "pool": 0.3, "selected": 0.5, "noise": 0.03, "z": 8.3}
    described = {"n": 300, "median": 0.41, "p95": 0.62, "max": 0.9151}
    return {
        "n_real": {"rows": 240, "held_out": 48, "labels": 2},
        "gap_map": [
            {
                "label": f"negative {EVIL}", "size": 7, "mass": 0.0833, "synthetic_mass": 0.01, "pool_mass": 0.02,
                "noise": 0.0244, "z": 3.004, "witness": 0.01, "examples": [{"id": "ab", "text": f"it broke {EVIL}"}],
                "command": f"synalign fork '{EVIL}'",
            }
        ],
        "attribute_shares": [
            {
                "dimension": f"tone {EVIL}",
                "values": [{"value": f"value {place} {EVIL}", **shares} for place in range(20)],
            }
        ],
        "text_length": {
            "real": {"p10": 31.0, "p50": 77.0, "p90": 155.0}, "reference": {"p10": 33.0, "p50": 79.0, "p90": 151.0},
            "pool": None, "selected": {"p10": 21.0, "p50": 57.0, "p90": 111.0},
        },
        "copy_check": {"selected": described, "real": {**described, "max": 0.8234}, "share_above_real_p95": 0.0712},
        "real_rejection_rates": {"odd_reason": 0.25},
        "weights": {
            "n": 1612, "n_zero": 1203, "largest": 5.3712, "ess": 211.437, "ess_share": 0.1312,
            "histogram": {"edges": [0.0, 2.5, 5.3712], "counts": [307, 102]},
        },
    }  # fmt: skip


def _lineage():
    sample = {
        "text": EVIL, "label": EVIL, "round": 1, "weight": 0.01, "copies": 1, "attributes": [["tone", EVIL]],
        "demonstrations": ["ab"], "nearest": "ab", "similarity": 0.5, "prompt": "generate 1 (ab)", "model": EVIL, "seed": 3,
        "edited_from": None,
    }  # fmt: skip
    return {"samples": {"s1": sample}, "real": {"ab": EVIL}}


def _arguments():
    mmd2 = {"raw": 0.0123, "aligned": 0.00567, "floor": 0.0021, "floor_quantile": 0.0025, "target": 0.0025}
    return {
        "summary": _summary(),
        "rounds": [
            {"round": 1, "n_pool": 500, "n_selected": 290, "mmd2": {**mmd2, "aligned": 0.0098765}},
            {"round": 2, "n_pool": 1612, "n_selected": 300, "mmd2": mmd2},
        ],
        "points": [
            MapPoint(x=0.5, y=0.25, group="real", label="negative", text="dull", detail="holdout"),
            MapPoint(x=-0.5, y=0.75, group="selected", label="negative", text=EVIL, detail=EVIL),
        ],
        "rejection_examples": {"copy_words": [(EVIL, "shares 9 words"), ("", "no text at all")]},
        "samples": [
            {
                "text": f"sample {place} {EVIL}", "label": "negative", "weight": 0.003,
                "nearest_real_text": "a real row", "nearest_similarity": place / 100,
            }
            for place in range(60)
        ],
        "attributes": [
            {"label": "negative", "attributes": {"tone": "dry & sad"}, "demonstrations": ["a dull film", EVIL]},
        ],
        "config_yaml": f"task: reviews # {EVIL}\n",
        "ledger": _ledger(),
        "task": f"film reviews {EVIL}",
        "analysis": _analysis(),
        "lineage": _lineage(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def page():
    return render_report(**_arguments())


@pytest.fixture(scope="module")
def own(page):
    return _without_scripts(page)


def _without_scripts(page):
    return re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)


def _with_summary(**changes):
    arguments = _arguments()
    arguments["summary"] = {**copy.deepcopy(arguments["summary"]), **changes}
    return _without_scripts(render_report(**arguments))


class _Tags(HTMLParser):
    """Collects start tags, and checks that the tags are balanced."""

    _VOID = frozenset({"meta", "br"})

    def __init__(self):
        super().__init__()
        self.seen, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_values_appear_with_four_digits(own):
    for value in (
        "0.01234", "0.005123", "0.002106", "0.002531", "17.01", "40.99", "211.4", "0.03125", "1,612", "0.02230",
        "18.77", "431", "123,456", "65,432", "$0.1234", "12 min 34 s", "0.6123", "0.009876", "120", "reviews-7f3a",
        "18 real rows are shorter than 3 words", "dry &amp; sad", "a dull film", "shares 9 words", "task: reviews",
    ):  # fmt: skip
        assert value in own, value


def test_overview_says_what_was_asked_what_came_and_what_it_cost(own):
    assert (
        "Within noise of real data for 0 of 2 labels; “negative” is under-covered, “positive” is not measured." in own
    )
    assert "300 rows of" in own and "like 240 real rows of 2 labels" in own
    assert (
        "Aligned data are worth 41 real rows per MMD², raw data 17; real rows at this size would score 0.00211." in own
    )
    assert "$0.1234 for 431 calls, 123,456 prompt and 65,432 completion tokens, 12 min 34 s" in own
    assert "The target of 0.00253 is not met" in own
    assert "The run stopped because the round limit is reached." in own


def test_verdict_when_the_target_is_met():
    mmd2 = {**_summary()["mmd2"], "target": 0.006}
    assert "The target of 0.00600 is met" in _with_summary(mmd2=mmd2, stop_reason="target_reached")


def test_verdict_of_an_unfinished_run_with_too_few_rows():
    own = _with_summary(stop_reason=None, status="interrupted", n_selected=120)
    assert "120 of 300 rows" in own
    assert "The run has not come to its end (status: interrupted)." in own


def test_verdict_when_the_distance_is_not_above_zero():
    mmd2 = {**_summary()["mmd2"], "aligned": -0.0003}
    own = _with_summary(mmd2=mmd2, n_eq={"raw": 17.0, "aligned": None})
    assert "closer to the real rows than MMD² can tell apart (−0.000300), raw data 17;" in own


def test_key_table_puts_the_four_columns_side_by_side(own):
    row = re.search(r'<tr><th scope="row">MMD²</th>(.*?)</tr>', own).group(1)
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == ["0.01234", "0.005123", "0.002106", "0.002531"]
    row = re.search(r'<tr><th scope="row">Worth real rows</th>(.*?)</tr>', own).group(1)
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == ["17.01", "40.99", "300", "82.96"]


def test_none_is_a_dash_and_never_zero(own):
    row = re.search(r'<tr><th scope="row" dir="auto">positive</th>(.*?)</tr>', own).group(1)
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == ["160", "161", "811", *[MISSING] * 7]


def test_a_session_of_which_nothing_is_known_renders():
    nothing = dict.fromkeys(_summary(), None)
    page = render_report(
        summary={**nothing, "thread_id": "new", "warnings": []}, rounds=[], points=[], rejection_examples={},
        samples=[], attributes=[], config_yaml="",
    )  # fmt: skip
    assert "was not measured" in page
    assert page.count(MISSING) > 20
    assert not re.search(r"<d[dt]>\$?0</d", page)
    assert "<script" not in page


def test_numbers_that_are_zero_stay_zero(own):
    assert "<dt>Finished calls repeated</dt><dd>0</dd>" in own


def test_a_sample_never_becomes_markup(page):
    assert EVIL not in page
    assert "alert(1)</script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def _figures(page):
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page).group(1))


def test_plotly_is_there_once_and_figures_are_data(page):
    packed = re.findall(r'<script type="text/plain" id="plotly">([^<]*)</script>', page)
    assert len(packed) == 1
    assert re.search(r"plotly\.js v\d", gzip.decompress(base64.b64decode(packed[0]))[:500].decode())
    figures = _figures(page)
    assert set(figures) == {"figure-rounds", "figure-map", "figure-weights"}
    assert all(f'id="{name}"' in page for name in figures)
    assert len(page) < 2_300_000


def test_neighbourhoods_are_a_tab_of_their_own():
    points = [dataclasses.replace(point, neighbourhood=(1.0, 2.0)) for point in _arguments()["points"]]
    page = render_report(**{**_arguments(), "points": points})
    assert _figures(page)["figure-neighbourhoods"]["data"][0]["x"] == [1.0]
    for control in re.findall(r'role="tab"[^>]*aria-controls="([^"]+)"', page):
        assert f'id="{control}"' in page


def test_texts_in_scripts_stay_texts(page):
    """Whatever a model writes, the only elements that end inside the page's data are its own."""
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    assert len(data) == 2
    assert json.loads(data[1])["samples"]["s1"]["text"] == EVIL
    assert all("<" not in text for text in data)


def test_nothing_is_loaded_from_elsewhere(page, own):
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    for _, attributes in tags.seen:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "http://" not in own and "https://" not in own
    assert "url(" not in own and "@import" not in own
    assert "default-src 'none'" in own


def test_no_button_sends_the_chart_to_a_cloud(page):
    assert "showSendToCloud: false" in page
    assert "plotlyServerURL" not in page


def test_analysis_has_its_reference_beside_it(own):
    for value in (
        "8.3 % of the real rows, 1.0 % of the dataset", "± 2.4 %", "3.004", "± 3.0 %", "and 8 rarer values",
        "0.9151", "0.8234", "7.1 % of the dataset are nearer than 95 % of the real rows", "5.371", "1,203",
    ):  # fmt: skip
        assert value in own, value
    row = re.search(r'<tr><th scope="row">50 %</th>(.*?)</tr>', own).group(1)
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == ["77", "79", MISSING, "57"]


def test_without_analysis_it_says_so():
    own = _without_scripts(render_report(**{**_arguments(), "analysis": None, "lineage": None}))
    assert "Gaps were not looked for" in own
    assert "Nothing was weighed yet" in own
    assert "no shares to compare" in own


def test_tables_have_captions_and_every_link_has_a_target(own):
    assert own.count("<table") == own.count("<caption>") > 3
    targets = set(re.findall(r'id="([^"]+)"', own))
    assert set(re.findall(r'href="#([^"]+)"', own)) <= targets
    assert own.count("<figure>") == own.count("<figcaption>") == 3


def test_copy_check_shows_the_fifty_most_similar_first(own):
    shown = [int(place) for place in re.findall(r'<dd dir="auto">sample (\d+) ', own)]
    assert shown == list(range(59, 9, -1))


def test_rejections_are_counted_and_explained(own):
    rows = re.findall(
        r'<code>(\w+)</code></th><td class="words">(.*?)</td><td>(\d+)</td><td>(.*?)</td><td>(.*?)</td>', own
    )
    assert rows == [
        ("call_timeout", "The call failed: timeout", "41", "2.5 %", MISSING),
        ("copy_words", "Shares a run of words with a real row", "12", "0.7 %", MISSING),
        ("attributes_length_cut", "Attribute summary: reply cut by the token limit", "3", "0.2 %", MISSING),
        ("odd_reason", "Odd reason", "2", "0.1 %", "25.0 %"),
    ]
    assert "(no text)" in own


def test_a_long_rejected_reply_is_cut():
    arguments = _arguments()
    arguments["rejection_examples"] = {"copy_words": [("x" * 2600, "")]}
    assert '… <span class="muted">(2,000 more characters)</span>' in render_report(**arguments)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("reference", "No real rows were held out."),
        ("mixed", "Some labels have no held-out rows."),
        (None, "not known"),
    ],
)
def test_says_what_distances_are_to_unless_held_out(reference, words, own):
    assert words not in own
    assert words in _with_summary(mmd2={**_summary()["mmd2"], "reference": reference})


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0 s"), (3.21, "3.21 s"), (59.99, "1 min 0 s"), (3725, "1 h 2 min"), (None, MISSING)]
)
def test_durations(seconds, words):
    assert f"<dt>Time</dt><dd>{words}</dd>" in _with_summary(seconds=seconds)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1234.567, "1,235"),
        (0.0000123456, "1.235 × 10⁻⁵"),
        (-0.25, "−0.2500"),
        (9.99996, "10.00"),
        (float("inf"), MISSING),
    ],
)
def test_numbers(value, words):
    assert f"<dd>{words}</dd>" in _with_summary(ess=value)


def test_same_arguments_same_page(page):
    assert render_report(**_arguments()) == page


def test_ledger_has_every_number_and_a_dash_for_what_is_not_known(own):
    for value in (
        "Cost by prompt", "Cost by node", "Cost by round", "121,212", "34,343", "$0.4321", "1 h 6 min", "0.2672", "96.54",
        "$0.0002681", "80,808", "0.004321", "rate_limit", "23",
        "7,654", "$0.09876", "$0.05310",  # for a fall of 0.001
    ):  # fmt: skip
        assert value in own, value
    row = own[own.index('<th scope="row">1</th><td>200</td>') :]
    assert row[: row.index("</tr>")].count(MISSING) == 5
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in own


def test_a_fork_says_where_it_comes_from_and_what_was_inherited():
    fork = {
        "parent": f"old {EVIL}",
        "from_round": 3,
        "overrides": {},
        "changes": ["target.mmd2: 1 -> 2"],
        "forked_at": "now",
    }
    page = _with_summary(lineage=[fork, {**fork, "parent": "first", "changes": []}])
    assert (
        "Forked from session old &lt;script&gt;alert(1)&lt;/script&gt; at round 3, changing target.mmd2: 1 -&gt; 2."
        in page
    )
    assert "Forked from session first at round 3, changing nothing in the configuration." in page
    assert "Calls inherited from the parent session</dt><dd>77" in page
    assert "$0.07650" in page
    assert "inherited" not in _with_summary(lineage=[])


def test_a_page_without_a_ledger_has_the_totals():
    arguments = {**_arguments(), "ledger": None}
    page = _without_scripts(render_report(**arguments))
    assert "Calls done" in page
    assert "Cost by prompt" not in page
