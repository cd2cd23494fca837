"""`modal deploy -m infra.modal_app`, whatever is called `infra` in the folder that it is run in."""

from __future__ import annotations

import sys

from modal.__main__ import main

if __name__ == "__main__":
    # Modal puts the working directory before all others unless it is there (`modal/cli/import_refs.py`).
    sys.path.append("")
    sys.argv[1:] = ["deploy", "-m", "infra.modal_app", *sys.argv[1:]]
    main()  # type: ignore[no-untyped-call]
