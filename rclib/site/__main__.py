"""`python -m rclib.site`: build the gallery."""

import sys

from rclib.site.build import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
