"""`headway-operator`: one replica of the operator in a cluster."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import uvloop

from headway_operator.app import serve
from headway_operator.configuration import Configuration, ConfigurationError
from headway_operator.logs import set_up_logging


def main() -> NoReturn:
    """Run until told to stop; the process ends here."""
    try:
        configuration = Configuration.from_environ(os.environ)
    except ConfigurationError as error:
        sys.exit(f"headway-operator: {error}")
    set_up_logging(configuration.log_level, configuration.log_format)
    uvloop.run(serve(configuration))
    raise AssertionError("serve() ends the process")


if __name__ == "__main__":
    main()
