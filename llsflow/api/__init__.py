"""The HTTP layer: one file per resource of the specification, listed in `app.RESOURCES`."""
