"""Benchmarks: real rows that score are in nothing else, and every draw is stratified and nested."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("evals.datasets", reason="the evals are not part of the source distribution")

from evals.datasets import data_folder, load_benchmark, load_benchmarks, sample_rows, smaller, split_ref
from synalign_agent.errors import InputError


def append(path: Path, *rows: object) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_a_folder_is_read_in_file_order(data_dir: Path) -> None:
    found = load_benchmark("tiny", data_dir)
    assert found.label_names == ("sport", "trade")
    assert (len(found.ref), len(found.test), len(found.pool)) == (80, 80, 480)
    assert found.ref.generators is None and found.pool.generators is not None
    assert found.pool.generators.tolist().count("model-3") == 240
    assert found.ref.labels[:40].tolist() == [0] * 40


def test_test_rows_are_nowhere_else(data_dir: Path) -> None:
    before = load_benchmark("tiny", data_dir)
    tested = before.test.texts[0]
    append(data_dir / "tiny" / "ref.jsonl", {"text": tested.upper(), "label": "sport"})
    append(data_dir / "tiny" / "pool.jsonl", {"text": f" {tested.upper()}", "label": "sport", "generator": "x"})
    append(data_dir / "tiny" / "pool.jsonl", {"text": before.ref.texts[3].upper(), "label": "sport", "generator": "x"})
    after = load_benchmark("tiny", data_dir)
    assert after.digest == before.digest


def test_the_digest_is_of_all_rows(data_dir: Path) -> None:
    before = load_benchmark("tiny", data_dir).digest
    append(data_dir / "tiny" / "pool.jsonl", {"text": "one more", "label": "trade", "generator": "x"})
    assert load_benchmark("tiny", data_dir).digest != before


def test_compressed_files_and_public_datasets_are_the_same_rows(data_dir: Path, tmp_path: Path) -> None:
    import datasets

    expected = load_benchmark("tiny", data_dir)
    packed = tmp_path / "packed" / "tiny"
    packed.mkdir(parents=True)
    for path in (data_dir / "tiny").iterdir():
        with gzip.open(packed / f"{path.name}.gz", "wt", encoding="utf-8") as file:
            file.write(path.read_text(encoding="utf-8"))
    assert load_benchmark("tiny", packed.parent).digest == expected.digest

    splits = {
        split: datasets.Dataset.from_list(
            [
                json.loads(line)
                for line in (data_dir / "tiny" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
            ]
        )
        for split, part in (("train", "ref"), ("test", "test"))
    }
    datasets.DatasetDict({**splits, "other": splits["test"]}).save_to_disk(tmp_path / "hub")
    name = f"hf:{tmp_path / 'hub'}"
    assert len(load_benchmark(name, tmp_path, with_pool=False).pool) == 0
    with pytest.raises(InputError, match=r"no pool\.jsonl"):
        load_benchmark(name, tmp_path)
    with pytest.raises(InputError, match=r"@SPLIT.*nowhere"):
        load_benchmark(f"{name}@nowhere", with_pool=False)
    folder = tmp_path / load_benchmark(name, with_pool=False).folder_name
    shutil.copytree(data_dir / "tiny", folder)
    public, of_other_split = load_benchmarks([name, f"{name}@other"], tmp_path)
    assert public.digest == of_other_split.digest == expected.digest


def test_errors_say_which_file_and_row(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNALIGN_EVAL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere: no such folder.*--data"):
        data_folder()
    with pytest.raises(InputError, match=r"no ref\.jsonl.*benchmarks in .*: tiny; choose with --set datasets=NAME"):
        load_benchmark("other", data_dir)
    append(data_dir / "tiny" / "pool.jsonl", {"label": "sport"})
    with pytest.raises(InputError, match=r"pool\.jsonl: row 481: expected an object"):
        load_benchmark("tiny", data_dir)
    shutil.copy(data_dir / "tiny" / "test.jsonl", data_dir / "tiny" / "pool.jsonl")
    append(data_dir / "tiny" / "pool.jsonl", {"text": "a", "label": "weather"})
    with pytest.raises(InputError, match="weather"):
        load_benchmark("tiny", data_dir)
    (data_dir / "tiny" / "pool.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"pool\.jsonl: row 1: not readable"):
        load_benchmark("tiny", data_dir)


def test_validation_rows_are_cut_from_every_label(data_dir: Path) -> None:
    benchmark = load_benchmark("tiny", data_dir)
    fit, validation = split_ref(benchmark, seed=4, fraction=0.25)
    assert np.bincount(validation.labels).tolist() == [10, 10]
    assert sorted(fit.texts + validation.texts) == sorted(benchmark.ref.texts)
    assert split_ref(benchmark, seed=5, fraction=0.25)[1].texts != validation.texts


def test_samples_are_nested_and_have_every_kind_in_proportion(data_dir: Path) -> None:
    pool = load_benchmark("tiny", data_dir).pool
    few, more = sample_rows(pool, 48, seed=0), sample_rows(pool, 96, seed=0)
    assert set(few.tolist()) < set(more.tolist()) and len(more) == 96
    drawn = pool.take(more)
    assert drawn.generators is not None
    _, counts = np.unique([drawn.labels.astype(str), drawn.generators], axis=1, return_counts=True)
    assert counts.tolist() == [24] * 4
    assert sample_rows(pool, None, seed=0).tolist() == sample_rows(pool, 10**6, seed=0).tolist() == list(range(480))


def test_a_smaller_benchmark_is_another_one(data_dir: Path) -> None:
    benchmark = load_benchmark("tiny", data_dir)
    small = smaller(benchmark, ref=10, pool=20)
    assert (len(small.ref), len(small.test), len(small.pool)) == (10, 80, 20)
    assert small.digest != benchmark.digest and smaller(benchmark).digest == benchmark.digest
