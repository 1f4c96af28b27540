"""What stops a command of the CLI: one message that says what to do next."""


class CommandError(Exception):
    pass
