"""A headless Chromium for tests of pages: a system package, such as Debian's `chromium-headless-shell`, driven by Playwright."""

from __future__ import annotations

import os
import shutil

REASON = (
    "no Chromium on this machine: install the Debian package `chromium-headless-shell`, or put chromium on the PATH"
)
_PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


def must_run() -> bool:
    """Tell whether a missing Chromium is a failure: continuous integration (`.ci/run`) does not skip."""
    return os.environ.get("SYNALIGN_REQUIRE_CHROMIUM") == "1"
