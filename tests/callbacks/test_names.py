"""What `asyncfit.callbacks` says of names that it does not have."""

from __future__ import annotations

import pytest

from asyncfit import callbacks


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("Callback", "subclass af.Callback"),
        ("History", "fit returns it"),
        ("ProgbarLogger", "ProgressBar"),
        ("CallbackList", "a list"),
    ],
)
def test_kerass_names_that_are_not_here_are_answered(name: str, way: str) -> None:
    assert not hasattr(callbacks, name)
    with pytest.raises(AttributeError, match=f"has no attribute '{name}': .*{way}"):
        getattr(callbacks, name)
    with pytest.raises(ImportError, match=f"has no attribute '{name}': .*{way}"):
        exec(f"from asyncfit.callbacks import {name}")


def test_other_names_are_not_there_as_ever() -> None:
    with pytest.raises(AttributeError, match=r"^module 'asyncfit\.callbacks' has no attribute 'Nothing'$"):
        getattr(callbacks, "Nothing")  # noqa: B009  # type checkers know better
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from asyncfit.callbacks import Nothing")
    exec("from asyncfit.callbacks import schedules")
