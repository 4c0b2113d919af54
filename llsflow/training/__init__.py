"""Training with Lightning: batches, the supervised module, checkpoints that resume exactly.

Nothing here is imported by the command line before a step runs.
"""
