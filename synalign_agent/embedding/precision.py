"""Which arithmetic an encoder uses: decided by a check on this machine, once, and remembered."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np

from synalign_agent.embedding.base import Vectors

Encode = Callable[[list[str]], Vectors]

PRECISIONS = ("float32", "bfloat16", "onnx")
"""Of these, onnx is float32 in ONNX Runtime."""
LEAST_COSINE = 0.9995
"""What another precision must agree with float32 to, on each of `PROBE_TEXTS`."""
PROBE_TEXTS = [
    "ok",
    "Where is my parcel? It was due on Monday.",
    "The invoice lists the same item twice; please send a corrected one to our accounts department before Friday.",
    "Stocks fell 3.2 % after the central bank kept its rate at 4.75 %.",
    "¿Puedo cambiar la fecha de mi reserva sin pagar otra vez?",
    "the film is slow , talky , and oddly moving",
    "def area(r): return 3.14159 * r ** 2",
    "A team of marine biologists has filmed a squid at a depth of six kilometres, far below the range in which the species "
    "was thought to live. The recording, made by a camera that rests on the sea floor for weeks, shows the animal circling "
    "a bait for almost two minutes before it leaves. Nobody knows yet whether it had strayed or lives there.",
]
_log = logging.getLogger(__name__)


def native_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 natively (AVX-512 BF16 or AMX)."""
    import torch

    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def runs_on_cpu(device: str | None) -> bool:
    """Tell whether this torch device, None for automatic, is the CPU."""
    if device is not None:
        return device.partition(":")[0] == "cpu"
    import torch

    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def onnx_installed() -> bool:
    """Tell whether a model can be exported to ONNX and run."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnx", "onnxscript"))


def choose_precision(model: str, device: str | None, open_encoder: Callable[[str], Encode], memory: Path) -> str:
    """Return the fastest precision whose vectors are those of float32: bfloat16 by hardware, else ONNX Runtime, else float32.

    A precision qualifies if the cosine to float32 is at least `LEAST_COSINE` on every probe text. The outcome is kept in
    `memory` under the model, the processor and the versions it was found with, so that it does not depend on the moment;
    a file that cannot be read or written costs the check again (a few seconds), nothing else.

    Args:
        model: name of the model that changes with its weights.
        device: torch device, None for automatic. Devices other than the CPU keep float32.
        open_encoder: (precision) -> what embeds texts with it; raises if it cannot.
        memory: JSON file of outcomes, shared by all sessions.
    """
    if not runs_on_cpu(device):
        return "float32"
    candidates = ["bfloat16"] if native_bfloat16() else ["onnx"] if onnx_installed() else []
    if not candidates:
        return "float32"
    key = _key(model, candidates)
    known = _read(memory).get(key)
    if known in (*candidates, "float32"):
        return str(known)
    chosen = "float32"
    reference = open_encoder("float32")(PROBE_TEXTS)
    for precision in candidates:
        try:
            cosine = least_cosine(reference, open_encoder(precision)(PROBE_TEXTS))
        except Exception as error:  # an exporter or a runtime may fail in its own ways; float32 always works
            _log.warning("encoder precision %s cannot be used, float32 is: %s", precision, error)
            continue
        _log.info("encoder precision %s: least cosine to float32 %.6f", precision, cosine)
        if cosine >= LEAST_COSINE:
            chosen = precision
            break
        _log.warning("encoder precision %s is not used: least cosine to float32 %.6f", precision, cosine)
    _write(memory, key, chosen)
    return chosen


def least_cosine(one: Vectors, other: Vectors) -> float:
    """Return the least cosine of corresponding rows."""
    cosines = np.einsum("ij,ij->i", one, other) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return float(cosines.min())


def _key(model: str, candidates: list[str]) -> str:
    packages = ["torch", "onnxruntime"] if "onnx" in candidates else ["torch"]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return ", ".join([model, platform.machine(), *candidates, *versions])


def _read(memory: Path) -> dict[str, object]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(memory: Path, key: str, chosen: str) -> None:
    temporary = memory.with_name(f"{memory.name}.{os.getpid()}.tmp")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**_read(memory), key: chosen}, indent=1), encoding="utf-8")
        os.replace(temporary, memory)
    except OSError as error:
        _log.warning("the encoder's precision cannot be remembered (%s): it is checked again next time", error)
