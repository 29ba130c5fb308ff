"""What privacy costs in one training step: ``python benchmarks/step.py --json``."""

from wardround.study.bench.step import main

if __name__ == "__main__":
    main()
