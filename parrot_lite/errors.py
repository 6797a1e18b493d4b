"""The one exception that a user can cause: what is wrong, where, and what to do about it."""


class UserError(Exception):
    """Printed by the command line as one line, without a traceback.

    ``what`` says what is wrong, ``where`` names the file, key or address, ``fix`` says what to do.
    """

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}. {self.fix}" if self.fix else line


class StageChanged(UserError):
    """A stage already has results, but from another recipe or other inputs; carries the difference."""

    def __init__(self, what: str, where: str, fix: str, difference: str) -> None:
        super().__init__(what, where, fix)
        self.difference = difference
