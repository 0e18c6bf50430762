"""Write the documentation page of messages in logs: ``python -m scripts.log_messages``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vtd.logs.page import messages_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "log-messages.md"


def main() -> None:
    """Write the page anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(messages_page())
    print(f"{PAGE.name} written")


if __name__ == "__main__":
    main()
