"""`python -m bench [NAME…]`"""

import sys

from local.staging import ROOT, stage

# So that our functions and of-builder can be imported, as in the tests.
sys.path[:0] = [str(stage()), str(ROOT / "of-builder")]

from .cli import main  # noqa: E402

main(prog_name="python -m bench")
