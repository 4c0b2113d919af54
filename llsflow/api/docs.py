"""The page of /docs."""

PAGE = ""
