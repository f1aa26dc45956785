"""`python -m synalign_agent` is `synalign`."""

from synalign_agent.cli.app import main

if __name__ == "__main__":
    main()
