"""The graphs as a LangGraph server runs them: for clients that are not trusted, on handles that end with the run."""
