"""Models: described without loading, built, loaded, saved, and asked in this process."""
