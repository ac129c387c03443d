"""Missing libraries are named with the command that installs them."""

from __future__ import annotations

import pytest

from asyncfit import extras


def test_what_is_there_is_imported() -> None:
    extras.require("json", extra="any", what="This")
    assert extras.load("json.decoder", extra="any", what="This").JSONDecoder


@pytest.mark.parametrize("module", ["no_such_library", "no_such_library.inside", "json.no_such_part"])
def test_what_is_missing_is_named_with_the_install_command(module: str) -> None:
    for ask in (extras.require, extras.load):
        with pytest.raises(ImportError, match=r"ProgressBar needs \w+, which.*pip install 'asyncfit\[progress\]'"):
            ask(module, extra="progress", what="ProgressBar")
