from __future__ import annotations

import resource
import subprocess
import sys


def test_the_limit_is_raised_to_what_the_system_allows() -> None:
    code = (
        "import resource\n"
        "from api.open_files import allow_many_connections\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "allow_many_connections()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(shown) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
