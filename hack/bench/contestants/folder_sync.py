"""Copies folders to S3 as they are named on stdin, as a sidecar would; answers `done`."""

from __future__ import annotations

import sys
from pathlib import Path

import boto3


def main() -> None:
    client = boto3.client("s3")
    for line in sys.stdin:
        folder, key = line.rstrip("\n").split("\t")
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                name = f"{key}/{file.relative_to(folder)}"
                client.upload_file(str(file), sys.argv[1], name)
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
