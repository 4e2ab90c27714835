"""Where the commands of a shell script are, as far as a launcher has to be found in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SHELLS = {"sh", "bash", "dash", "ash", "zsh"}
_CLOSING = {"(": ")", "{": "}"}


@dataclass(frozen=True)
class Word:
    """A word of a script.

    Attributes:
        text: Without quotes; expansions stay as they are written.
        start: Where it begins in the script.
        end: Where it ends.
    """

    text: str
    start: int
    end: int


@dataclass
class _Reader:
    """One walk through a script."""

    script: str
    at: int = 0
    commands: list[list[Word]] = field(default_factory=lambda: [[]])
    documents: list[str] = field(default_factory=list)
    """Ends of the here-documents that begin on the next line."""

    def run(self) -> None:
        while self.at < len(self.script):
            char = self.script[self.at]
            if self.script.startswith("\\\n", self.at):
                self.at += 2
            elif char in " \t":
                self.at += 1
            elif char == "#":
                end = self.script.find("\n", self.at)
                self.at = len(self.script) if end < 0 else end
            elif char in ";&|()\n" and not self.script.startswith("&>", self.at):
                self.at += 1
                self.commands.append([])
                if char == "\n":
                    self._skip_documents()
            else:
                self._word()

    def _word(self) -> None:
        start, text = self.at, ""
        while self.at < len(self.script):
            char = self.script[self.at]
            redirected = char == "&" and (not text or text[-1] in "<>")
            if char in " \t\n;|()&" and not redirected:
                break
            text += self._piece(char)
        words = self.commands[-1]
        words.append(Word(text, start, self.at))
        # `<< END` or `<<END`; `<<< text` is none.
        before = words[-2].text if len(words) > 1 else ""
        if re.fullmatch(r"\d*<<-?", before):
            self.documents.append(text)
        elif found := re.fullmatch(r"\d*<<-?([^<-].*)", text):
            self.documents.append(found[1])

    def _skip_documents(self) -> None:
        for end in self.documents:
            found = re.compile(rf"^\s*{re.escape(end)}$", re.MULTILINE).search(self.script, self.at)
            self.at = found.end() if found else len(self.script)
        self.documents.clear()

    def _piece(self, char: str) -> str:
        """Steps over what begins here and returns what it stands for."""
        start = self.at
        following = self.script[start + 1 : start + 2]
        if char == "\\":
            self.at += 2
            return "" if following == "\n" else following
        if char == "'":
            return self._until("'", start + 1)
        if char == '"':
            return self._double()
        if char == "`":
            return f"`{self._until('`', start + 1)}`"
        if char == "$" and following in _CLOSING:
            return self._nested(following)
        self.at += 1
        return char

    def _until(self, quote: str, start: int) -> str:
        end = self.script.find(quote, start)
        end = len(self.script) if end < 0 else end
        self.at = end + 1
        return self.script[start:end]

    def _double(self) -> str:
        text, self.at = "", self.at + 1
        while self.at < len(self.script) and self.script[self.at] != '"':
            char, following = self.script[self.at], self.script[self.at + 1 : self.at + 2]
            if char == "\\" and following and following in '"\\$`\n':
                self.at += 2
                text += "" if following == "\n" else following
            elif char == "$" and following in _CLOSING:
                text += self._nested(following)
            else:
                self.at += 1
                text += char
        self.at += 1
        return text

    def _nested(self, opening: str) -> str:
        """An expansion in brackets, as it is written."""
        start, depth = self.at, 0
        while self.at < len(self.script):
            char = self.script[self.at]
            self.at += 1
            depth += (char == opening) - (char == _CLOSING[opening])
            if depth == 0 and char == _CLOSING[opening]:
                break
        return self.script[start : self.at]


def commands(script: str) -> list[list[Word]]:
    """The simple commands of a script, each with its words; those without words are left out.

    A reader of what manifests have, not a shell: keywords are words. Here-documents are left out.
    """
    reader = _Reader(script)
    reader.run()
    return [words for words in reader.commands if words]
