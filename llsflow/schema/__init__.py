"""Records named as in the API specification; YAML nodes and HTTP bodies alike."""
