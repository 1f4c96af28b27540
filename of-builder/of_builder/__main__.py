"""`python -m of_builder` serves until it is told to stop."""

from .server import main

main()
