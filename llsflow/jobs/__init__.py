"""Jobs: a posted body becomes a plan, is stored, handed to a worker, watched, and picked up again after a crash."""
