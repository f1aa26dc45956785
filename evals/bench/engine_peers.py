"""The same prompts through other packages; run by an interpreter that has one of them, so it imports nothing of ours."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time


def prompts(n: int) -> list[str]:
    """Return `n` different prompts of the length of ours."""
    return [
        f"Write one new customer message, number {i}. " + "Real example: my parcel is late. " * 15 for i in range(n)
    ]


class _Bytes:
    """A stand-in for a tokenizer."""

    def encode(self, text: str, **_: object) -> list[int]:
        """Return a number for each byte."""
        return list(text.encode())


def curator(url: str, n: int, parallel: int) -> float:
    """bespokelabs-curator: its LLM over a list of prompts, its own cache folder new."""
    os.environ |= {"CURATOR_CACHE_DIR": tempfile.mkdtemp(), "CURATOR_DISABLE_CACHE": "0", "TELEMETRY_ENABLED": "false"}
    import tiktoken

    # It counts tokens to keep rate limits; its tokenizer would be fetched from the network. Bytes count faster.
    tiktoken.get_encoding = tiktoken.encoding_for_model = lambda *_: _Bytes()  # type: ignore[assignment]
    from bespokelabs import curator as package

    llm = package.LLM(
        model_name="bench",
        backend="openai",
        backend_params={
            "base_url": url,
            "api_key": "none",
            "max_concurrent_requests": parallel,
            "max_requests_per_minute": 1_000_000,
            "max_tokens_per_minute": 1_000_000_000,
        },
    )
    started = time.perf_counter()
    answers = llm(prompts(n))
    seconds = time.perf_counter() - started
    rows = getattr(answers, "dataset", answers)
    assert len(rows) == n, len(rows)
    return seconds


def distilabel(url: str, n: int, parallel: int) -> float:
    """Run distilabel's TextGeneration in a pipeline whose batches are as large as what goes in parallel."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="bench", cache_dir=tempfile.mkdtemp()) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": text} for text in prompts(n)], batch_size=parallel)
        write = TextGeneration(llm=OpenAILLM(model="bench", base_url=url, api_key="none"), input_batch_size=parallel)
        load >> write
    started = time.perf_counter()
    answers = pipeline.run(use_cache=False)
    seconds = time.perf_counter() - started
    assert len(answers["default"]["train"]) == n
    return seconds


if __name__ == "__main__":
    peer, url, n, parallel = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    seconds = {"curator": curator, "distilabel": distilabel}[peer](url, n, parallel)
    cpu = sum(os.times()[:4])
    print("RESULT " + json.dumps({"seconds": seconds, "cpu_seconds": cpu}), flush=True)
