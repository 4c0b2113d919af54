"""Shields: what looks at what comes in and what goes out."""
