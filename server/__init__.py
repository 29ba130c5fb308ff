"""The coordinator: rounds, reports and the Flower ServerApp; knows no data and no task."""
