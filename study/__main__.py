"""``python -m wardround.study`` is the ``wardround`` command."""

from wardround.study.cli import main

main()
