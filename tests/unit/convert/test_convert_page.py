"""docs/how-to/migrate.md shows what `headway convert` makes."""

import re
from pathlib import Path

from headway.convert.documents import convert, output

PAGE = (Path(__file__).parents[3] / "docs/how-to/migrate.md").read_text()


def test_each_manifest_in_the_page_is_followed_by_what_it_becomes() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    pairs = list(zip(blocks[::2], blocks[1::2], (("a100",), ()), strict=True))
    assert len(pairs) == 2
    for before, after, pools in pairs:
        assert output(convert(before, pools)) == after
