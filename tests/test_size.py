"""The package does not grow beyond the ceilings of tools/size.py."""

import pytest

from tools import size


@pytest.fixture(autouse=True)
def only_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["size.py", "--check"])


def test_every_file_belongs_to_a_room_and_none_has_grown_past_its_ceiling(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, said = size.main(), capsys.readouterr().out
    assert code == 0 and "in no room" not in said, said


def test_a_room_that_has_grown_is_named_with_its_ceiling(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(size.CEILINGS, "core", 1234)
    assert size.main() == 1
    assert ", over the ceiling of 1,234 in tools/size.py\n" in capsys.readouterr().out
