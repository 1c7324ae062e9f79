"""The page's libraries. `python -m tests.page.vendor` puts the newest of the registry into crm/page/vendor (by npm).

They lie there as in node_modules, byte for byte: `<package>/<path in the package>`. versions.json says which they are.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[2] / "crm" / "page" / "vendor"
RECORD = VENDOR / "versions.json"
FILES = {  # of each package, what the page loads; its licence comes along
    "preact": ["dist/preact.mjs", "hooks/dist/hooks.mjs"],
    "htm": ["dist/htm.mjs"],
    "@preact/signals": ["dist/signals.mjs"],
    "@preact/signals-core": ["dist/signals-core.mjs"],
    "uplot": ["dist/uPlot.iife.min.js", "dist/uPlot.min.css"],  # its ES module is three times as large
}


def record() -> dict[str, Any]:
    """Of each package: version, license, integrity (of the registry's archive), and the SHA-256 of each file."""
    kept: dict[str, Any] = json.loads(RECORD.read_text())
    return kept


def hashes(folder: Path) -> dict[str, str]:
    """Of all files below it, by their paths."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fetch(folder: Path, versions: dict[str, str]) -> dict[str, Any]:
    """Puts the files of these versions into the folder, as the registry has them, and returns their record."""
    wanted = [f"{package}@{version}" for package, version in versions.items()]
    with tempfile.TemporaryDirectory() as archives:
        command = ["npm", "pack", "--json", "--pack-destination", archives, *wanted]  # it checks the integrity
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"npm pack: {result.stderr}")
        fetched = {}
        for packed in json.loads(result.stdout):
            package = packed["name"]
            with tarfile.open(Path(archives) / packed["filename"]) as archive:
                about = json.load(_member(archive, "package.json"))
                for name in [*FILES[package], "LICENSE"]:
                    path = folder / package / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(_member(archive, name).read())
            fetched[package] = {
                "version": packed["version"],
                "license": about["license"],
                "integrity": packed["integrity"],
                "files": hashes(folder / package),
            }
    return {package: fetched[package] for package in versions}


def _member(archive: tarfile.TarFile, name: str) -> Any:
    return archive.extractfile(f"package/{name}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as fresh:
        newest = fetch(Path(fresh), dict.fromkeys(FILES, "latest"))
        shutil.rmtree(VENDOR, ignore_errors=True)
        shutil.copytree(fresh, VENDOR)
    RECORD.write_text(json.dumps(newest, indent=2) + "\n")
