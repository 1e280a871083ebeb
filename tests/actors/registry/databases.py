"""A PostgreSQL for as long as tests want one, where its programs are installed."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder with PostgreSQL's server programs."""
    for found in (shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        if found and (Path(found).resolve().parent / "postgres").exists():
            return Path(found).resolve().parent
    return None


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server whose data and socket lie in `folder`; it hears nobody else."""
    where, data = programs(), folder / "data"
    assert where is not None
    more: dict[str, object] = {}
    user = "strata"
    if os.getuid() == 0:  # which PostgreSQL refuses to be
        nobody = pwd.getpwnam("nobody")
        more = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        for above in folder.parents:
            if above.stat().st_uid == 0 and above.is_relative_to("/tmp") and above != Path("/tmp"):
                above.chmod(above.stat().st_mode | 0o711)

    def run(*words: object) -> None:
        line = [str(word) for word in words]
        subprocess.run(line, check=True, capture_output=True, cwd=folder, **more)  # type: ignore[call-overload]

    run(where / "initdb", "-D", data, "-U", user, "-A", "trust", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    run(where / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    try:
        yield f"postgresql://{user}@/postgres?host={folder}"
    finally:
        run(where / "pg_ctl", "-D", data, "-m", "immediate", "stop")
