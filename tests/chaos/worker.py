"""One process that runs a session, and may kill itself (signal 9) at a point that was drawn beforehand.

python tests/chaos/worker.py '{"runs_dir", "thread_id", "config" or null, "kill": {"node", "nth", "when", "delay"} or null}'
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import HashEncoder

from synalign_agent import graph, wiring
from synalign_agent.config import SessionConfig
from synalign_agent.errors import SynAlignError
from synalign_agent.session import Session

NODES = ("explore", "propose_dimensions", "summarize_attributes", "generate", "screen", "align", "finish")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_soon(delay: float) -> None:
    threading.Thread(target=lambda: (time.sleep(delay), die()), daemon=True).start()


def arm(kill: dict[str, Any]) -> None:
    """Have the process die in, or at the end of, the nth run of a node: its writes are made, its checkpoint is not."""
    original, seen = getattr(graph, kill["node"]), Counter[str]()

    def entered() -> bool:
        seen["n"] += 1
        if seen["n"] == kill["nth"] and kill["when"] == "inside":
            die_soon(kill["delay"])
        return seen["n"] == kill["nth"] and kill["when"] == "after"

    async def async_node(task: Any, deps: Any) -> Any:
        last = entered()
        result = await original(task, deps)
        if last:
            die()
        return result

    def sync_node(state: Any, deps: Any) -> Any:
        last = entered()
        result = original(state, deps)
        if last:
            die()
        return result

    setattr(graph, kill["node"], async_node if asyncio.iscoroutinefunction(original) else sync_node)


def main(job: dict[str, Any]) -> int:
    wiring.make_encoder = lambda *_: HashEncoder()
    if job["kill"]:
        arm(job["kill"])
    try:
        if job["config"]:
            session = Session.create(SessionConfig.parse(job["config"]), thread_id=job["thread_id"])
        else:
            session = Session.open(job["thread_id"], runs_dir=job["runs_dir"])
        with session:
            json.dump(session.run(), sys.stdout)
    except SynAlignError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
