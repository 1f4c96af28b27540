"""What the functions, of-builder and the command line share.

faas-cli copies this folder into each function (stack.yml, `configuration.copy`), where it is
`function.sdk`; everywhere else it is `sdk`. So the modules import each other relatively.
"""

__version__ = "0.1.0"
