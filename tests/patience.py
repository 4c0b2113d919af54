"""How long a test waits for what must come: a machine may be slow, and what never comes ends all the same."""

PATIENCE_SECONDS = 1800.0
