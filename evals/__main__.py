"""`python -m evals`, the same as `synalign eval`."""

from __future__ import annotations

import sys

from evals.commands import app
from synalign_agent.cli.answer import answer_error
from synalign_agent.cli.output import print_error
from synalign_agent.errors import SynAlignError

if __name__ == "__main__":
    try:
        app(prog_name="python -m evals")
    except SynAlignError as error:
        print_error(str(error))
        answer_error(str(error), error.exit_code)
        sys.exit(error.exit_code)
