"""What must not appear in the tree."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_source_roots_are_no_packages() -> None:
    """`operator/__init__.py` would hide the standard library's `operator` from everybody."""
    for root in ("crds", "operator", "trainer-image"):
        assert not (ROOT / root / "__init__.py").exists()
