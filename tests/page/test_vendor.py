"""The page's libraries are those of the registry, byte for byte."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.effort import IS_RELEASE
from tests.page import vendor


@pytest.mark.seconds(10 if IS_RELEASE else 0)
def test_the_vendored_files_are_those_of_the_record_and_in_a_release_run_of_the_registry(tmp_path: Path) -> None:
    record = vendor.record()
    recorded = {f"{package}/{name}": sha for package, one in record.items() for name, sha in one["files"].items()}
    found = vendor.hashes(vendor.VENDOR)
    del found[vendor.RECORD.name]
    assert found == recorded
    assert {package: set(one["files"]) for package, one in record.items()} == {
        package: {*names, "LICENSE"} for package, names in vendor.FILES.items()
    }
    if IS_RELEASE:  # else a change could not be tested without a network
        assert vendor.fetch(tmp_path, {package: one["version"] for package, one in record.items()}) == record


def test_the_page_finds_each_library_by_its_name() -> None:
    """By an import map, which stands in the page and which its policy must therefore know."""
    page = vendor.VENDOR.parent
    index = (page / "index.html").read_text()
    [text] = re.findall(r'<script type="importmap">(.*?)</script>', index, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}'" in index
    imports = json.loads(text)["imports"]
    for address in imports.values():
        assert (page / address.removeprefix("./static/")).is_file(), address
    modules = [path for path in page.rglob("*") if path.suffix in (".js", ".mjs") and "uplot" not in path.parts]
    named = {name for path in modules for name in re.findall(r'\bfrom ?"([^"]+)"', path.read_text())}
    assert {name for name in named if not name.startswith(".")} == set(imports)
