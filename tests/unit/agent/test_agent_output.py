"""Output of several processes in one log: whole lines, nothing lost, nothing mixed."""

from __future__ import annotations

import random

import pytest

from headway.agent.workers import Lines


def test_a_line_is_shown_when_it_is_whole() -> None:
    """An unbuffered `print` writes its text and its newline one after the other."""
    lines = Lines(b"[1] ")
    assert lines.feed(b"step 5") == b""
    assert lines.feed(b"\nstep") == b"[1] step 5\n"
    assert lines.feed(b" 6\n") == b"[1] step 6\n"


def test_the_beginning_of_a_line_can_be_shown_and_goes_on_unprefixed() -> None:
    lines = Lines(b"[1] ")
    lines.feed(b"loading")
    assert lines.rest() == b"[1] loading"
    assert lines.feed(b" done\nnext\n") == b" done\n[1] next\n"
    assert lines.rest() == b""


def test_a_progress_bar_moves() -> None:
    assert Lines(b"").feed(b"\r10%\r20%\r") == b"\r10%\r20%\r"


def test_a_line_without_end_is_not_held_for_ever() -> None:
    lines = Lines(b"[0] ")
    endless = b"x" * 70_000
    assert lines.feed(endless) == b"[0] " + endless
    assert lines.feed(b"y\n") == b"y\n"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("prefix", [b"", b"[3] "])
def test_however_it_is_cut_the_same_comes_out(seed: int, prefix: bytes) -> None:
    chance = random.Random(seed)
    text = b"".join(bytes([chance.choice(b"ab\n")]) for _ in range(300))
    lines, shown, at = Lines(prefix), b"", 0
    while at < len(text):
        size = chance.randint(1, 40)
        shown += lines.feed(text[at : at + size])
        at += size
    shown += lines.rest()
    expected = text.split(b"\n")
    assert [line.removeprefix(prefix) for line in shown.split(b"\n")] == expected
    assert all(line.startswith(prefix) for line in shown.split(b"\n") if line)
