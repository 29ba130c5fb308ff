"""The Flower ServerApp: the one place where the coordinator meets Flower's process model."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp


def make_server_app(run: Callable[[Grid], None]) -> ServerApp:
    """A ServerApp whose main function is ``run`` on the grid Flower provides."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid)

    return app
