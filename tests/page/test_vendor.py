"""The page's libraries are those of the registry, byte for byte."""

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
