"""Pure tensor functions: what training minimises."""
