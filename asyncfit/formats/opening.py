"""Opens files that are to be read, which may be anything."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from asyncfit.errors import BadFile

__all__ = ["opened"]


@contextmanager
def opened(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """The regular file at `path`, unbuffered; `what` it should be, for errors ("model").

    Raises:
        FileNotFoundError: there is no such file.
        BadFile: it cannot be read, or what is read inside cannot; the message names the file.
    """
    name = os.fspath(path)
    try:
        if stat.S_ISDIR((found := os.stat(name)).st_mode):
            raise BadFile(f"{name} is a directory; a {what} is read from a .h5 file")
        if not stat.S_ISREG(found.st_mode):  # a pipe would make us wait, /dev/zero would never end
            raise BadFile(f"{name} is not a regular file")
        with open(name, "rb", buffering=0) as file:
            yield file
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"there is no such {what} file", name) from None
    except OSError as error:
        raise BadFile(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(f"{name!r} is no path: {error}") from error
