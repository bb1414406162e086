"""``python -m examples.systems``."""

from examples.systems import main

main()
