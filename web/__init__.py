"""Read-only pages: a door with a token, a skeleton, charts, live updates. Knows no hospital."""
