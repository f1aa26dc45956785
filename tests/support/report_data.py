"""Arguments of `render_report` for every kind of session, ordinary and odd."""

from __future__ import annotations

import math
import random
from typing import Any

from synalign_agent.report.map_figure import MapPoint
from synalign_agent.report.weights import weight_distribution

EVIL = '<img src=x onerror="window.broken=1"><script>window.broken=1</script></script><!-- ${7*7} {{7*7}} %{x} & \' " \u2028'
ODD_TEXTS = {
    "plain": "the parcel came two days late and the box was wet",
    "evil": EVIL,
    "long": "unbroken" * 2000,
    "right to left": "🎉👩‍👩‍👧‍👦🇩🇪 الطرد وصل متأخرا يومين والعلبة مبللة \u202eabc\u202c",
    "empty": "",
}


def arguments(
    *, n_rounds: int = 4, labels: tuple[str, ...] = ("delivery", "refund"), n_real: int = 200, n_pool: int = 200,
    n_selected: int = 80, text: str = ODD_TEXTS["plain"], reference: str = "holdout", with_attributes: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Return the arguments of a session of that kind; every text, name and value in it is `text`, where it may be one."""
    rng = random.Random(0)
    measured = n_selected > 0
    mmd2 = {"raw": 0.02, "aligned": 0.008, "floor": 0.004, "floor_quantile": 0.006, "target": 0.006}
    mmd2 = mmd2 if measured else dict.fromkeys(mmd2)
    n_eq = {"raw": 17.0, "aligned": 41.0} if measured else {"raw": None, "aligned": None}
    per_label = {
        label: {"n_requested": 40, "n_selected": 40 * measured, "n_pool": 100, "mmd2": mmd2, "n_eq": n_eq}
        for label in labels
    }
    rounds = [
        {
            "round": round, "n_pool": 50 * round, "n_selected": n_selected,
            "mmd2": {**mmd2, "aligned": 0.02 / math.sqrt(round) if measured else None},
        }
        for round in range(1, n_rounds + 1)
    ]  # fmt: skip

    def point(group: str, place: int) -> MapPoint:
        x, y = rng.gauss(0, 1), rng.gauss(0, 1)
        return MapPoint(
            x=x, y=y, group=group, label=labels[place % len(labels)], text=f"{text} {place}", detail="round 1",  # type: ignore[arg-type]
            sample_id="" if group == "real" else f"{group}{place}", neighbourhood=(y, x),
        )  # fmt: skip

    points = [point("real", place) for place in range(n_real)]
    points += [point("pool", place) for place in range(n_pool - n_selected)]
    points += [point("selected", place) for place in range(n_selected)]
    samples = {
        point.sample_id: {
            "text": point.text[:600], "label": point.label, "round": 1, "weight": 0.01, "copies": int(point.group == "selected"),
            "attributes": [[text[:40] or "tone", text]] if with_attributes else [], "demonstrations": ["r1", "gone"],
            "nearest": "r1", "similarity": 0.5, "prompt": "generate_samples 1.1.0 (abc)", "model": text[:30], "seed": 1,
            "edited_from": text or None,
        }
        for point in points
        if point.sample_id
    }  # fmt: skip
    share = {"real": 0.4, "pool": 0.2, "selected": 0.1, "noise": 0.03, "z": -10.0}
    described = {"n": n_selected, **dict.fromkeys(("median", "p95", "max"), 0.5 if measured else None)}
    gap = {
        "label": labels[0], "size": 7, "mass": 0.2, "synthetic_mass": 0.05, "pool_mass": 0.1, "noise": 0.03, "z": 5.0,
        "witness": 0.1, "examples": [{"id": "r1", "text": text}], "command": "synalign fork a --set 'explore.focus=[\"r1\"]'",
    }  # fmt: skip
    lengths = {"p10": 20.0, "p50": 60.0, "p90": 140.0}
    return {
        "summary": {
            "thread_id": "a-session", "status": "finished", "stop_reason": "max_rounds", "n_requested": 80,
            "n_selected": n_selected, "n_pool": n_pool, "mmd2": {**mmd2, "reference": reference}, "n_eq": n_eq, "ess": 61.5,
            "p_value": 0.2, "per_label": per_label, "rejections": {"copy_words": 3, "label_mismatch": 12, "odd_one": 1},
            "calls": {"done": 100, "failed": 2, "repeated": 0, "in_flight_lost": 0},
            "tokens": {"prompt": 30_000, "completion": 9_000}, "cost_usd": 0.12, "seconds": 172.0,
            "coverage": {"explored": 0.6, "random": 0.5, "n_demonstrations": 60}, "warnings": [text[:300] or "none"],
        },
        "rounds": rounds,
        "points": points,
        "rejection_examples": {"copy_words": [(text, "shares 9 words")], "label_mismatch": [(text, text)]},
        "samples": [
            {
                "sample_id": f"selected{place}", "text": text, "label": labels[0], "weight": 0.01, "nearest_real_text": text,
                "nearest_similarity": 0.9 - place / 1000,
            }
            for place in range(min(50, n_selected))
        ],
        "attributes": [
            {"label": labels[0], "attributes": {"tone": text} if with_attributes else {}, "demonstrations": [text, "a row"]}
        ],
        "config_yaml": f"task: reviews\n# {text[:200]}\n",
        "task": text[:120] or "texts",
        "analysis": {
            "n_real": {"rows": n_real, "held_out": 40, "labels": len(labels)},
            "gap_map": [gap] * 2 if n_rounds else None,
            "attribute_shares": [{"dimension": "tone", "values": [{"value": text or "none", **share}] * 15}]
            if with_attributes
            else [],
            "text_length": {"real": lengths, "reference": lengths, "pool": lengths, "selected": lengths if measured else None},
            "copy_check": {"selected": described, "real": {**described, "n": 200}, "share_above_real_p95": None},
            "real_rejection_rates": {"label_mismatch": 0.02},
            "weights": weight_distribution(_weights(n_pool, rng) * measured),
        },
        "lineage": {"samples": samples, "real": {"r1": text}},
    }  # fmt: skip


def _weights(n: int, rng: random.Random) -> Any:
    import numpy as np

    return np.array([max(0.0, rng.gauss(0.5, 1.0)) for _ in range(n)])
