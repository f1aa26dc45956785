"""What a run shows of itself while it goes on: events for observers, spans, log lines. Off by default, imported when used."""
