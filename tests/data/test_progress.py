import io
import sys

from kerasdet.data import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_no_bar_where_nobody_looks(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(progress.track("abc", "Reading")) == ["a", "b", "c"]
    assert sys.stderr.getvalue() == ""


def test_a_bar_on_a_terminal_only_after_a_while(monkeypatch):
    for patience, expected in ((-1.0, True), (60.0, False)):
        monkeypatch.setattr(progress, "_PATIENCE", patience)
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert list(progress.track(iter("abc"), "Reading", total=3)) == ["a", "b", "c"]
        assert ("Reading" in sys.stderr.getvalue()) == expected
