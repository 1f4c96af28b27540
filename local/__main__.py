"""`python -m local`"""

from .cli import main

main(prog_name="python -m local")
