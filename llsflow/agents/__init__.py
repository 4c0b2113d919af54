"""Agents: turns of inference and tools, told event by event and kept step by step."""
