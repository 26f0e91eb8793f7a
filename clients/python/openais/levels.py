"""Levels of the specifications: which one a handle asks for, which are served (SAI-Overview)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from openais.errors import VersionError

_FORM: Final = re.compile(r"([A-Z])\.(\d{1,3})(?:\.(\d{1,3}))?")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """SaVersionT."""

    release: str  # one letter
    major: int
    minor: int

    def __str__(self) -> str:
        """Return it as it is written, like ``B.02.03``."""
        return f"{self.release}.{self.major:02}.{self.minor:02}"


def negotiate(call: str, asked: str, served: Version) -> int:
    """Return the major version of a handle that asks for a level like ``B.02`` or ``B.02.03``.

    The minor version is ignored. What is served from the first major version on.

    Raises:
        VersionError: not served; its ``detail`` is the `Version` that is.
    """
    form = _FORM.fullmatch(asked)
    if form is not None and form[1] == served.release and 1 <= int(form[2]) <= served.major:
        return int(form[2])
    error = VersionError(call, f'level "{asked}"; served: up to {served}')
    error.detail = served
    raise error
