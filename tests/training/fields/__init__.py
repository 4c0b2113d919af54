"""A case for each field of the spec's training schemas: the table of docs/training.md is the list of them.

A case shows what a field does to a real training (or to what is prepared or loaded for one), or the sentence with which
it is refused.
"""
