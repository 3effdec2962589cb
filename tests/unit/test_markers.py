"""The files by which neighbours learn whether the driver serves: exact formats, safe order."""

from pathlib import Path

import pytest

from driverctr import markers
from driverctr.errors import Code, DriverError


def content(run_dir: Path) -> dict[str, str]:
    """Every file below the folder."""
    return {str(p.relative_to(run_dir)): p.read_text() for p in run_dir.rglob("*") if p.is_file()}


def test_formats_are_those_of_the_reference(tmp_path: Path) -> None:
    markers.write_daemons_status(tmp_path, ready=True)
    markers.write_ready(tmp_path, gds=False, gdrcopy=True, rdma=False)
    markers.write_digest(tmp_path, "2166136261")
    assert content(tmp_path) == {
        "validations/.driver-daemons-status": "Ready\n",
        "validations/.driver-ctr-ready": (
            "GDRCOPY_ENABLED: true\nGDS_ENABLED: false\nGPU_DIRECT_RDMA_ENABLED: false\n"
        ),
        "nvidia-driver.state": "2166136261\n",
    }
    markers.write_daemons_status(tmp_path, ready=False)
    assert (tmp_path / markers.DAEMONS).read_text() == "NotReady\n"


@pytest.mark.parametrize(("digest", "left"), [(True, {}), (False, {"nvidia-driver.state": "1\n"})])
def test_withdraw_leaves_the_digest_at_stop_only(tmp_path: Path, digest: bool, left: dict[str, str]) -> None:
    markers.write_daemons_status(tmp_path, ready=True)
    markers.write_ready(tmp_path, gds=True, gdrcopy=True, rdma=True)
    markers.write_digest(tmp_path, "1")
    for _ in range(2):
        markers.withdraw(tmp_path, digest=digest)
        assert content(tmp_path) == left


def test_a_failed_kernel_check_takes_the_containers_marker_only(tmp_path: Path) -> None:
    markers.write_daemons_status(tmp_path, ready=True)
    markers.write_ready(tmp_path, gds=True, gdrcopy=True, rdma=True)
    markers.withdraw_container(tmp_path)
    assert content(tmp_path) == {markers.DAEMONS: "Ready\n"}


def test_without_an_operator_there_is_no_digest(tmp_path: Path) -> None:
    markers.write_digest(tmp_path, "1")
    markers.write_digest(tmp_path, "")
    assert content(tmp_path) == {}


def test_a_folder_in_the_place_of_a_marker_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / markers.CONTAINER).mkdir(parents=True)
    with pytest.raises(DriverError, match=r"\.driver-ctr-ready") as caught:
        markers.withdraw(tmp_path, digest=True)
    assert caught.value.code is Code.NODE_FILE
    with pytest.raises(DriverError, match=r"\.driver-ctr-ready"):
        markers.write_ready(tmp_path, gds=True, gdrcopy=True, rdma=True)
