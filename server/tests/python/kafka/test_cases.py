"""Some of what tools/chaos does at length, on some thousand records: what docs/chaos.md says stays true."""

import pytest

from streaming.cases import CASES
from streaming.stage import Stage

SHORT = {"calm": 5_000, "poison": 5_000, "killed": 20_000, "scale": 10_000, "no-output-topic": 5_000}
SHORT |= {"not-writable": 5_000, "drained": 10_000, "broker-restarted": 20_000}
SHORT |= {"topic-remade-shorter": 10_000, "topic-remade-longer": 5_000, "log-truncated": 100_000}
SHORT |= {"storm": 10_000, "zombie": 20_000, "namesake": 8_000, "namesake-late": 8_000}


@pytest.mark.parametrize("case", SHORT)
def test_nothing_is_lost_doubled_or_moved(case, cluster, tmp_path):
    stage = Stage(tmp_path, SHORT[case], 7, cluster, share=0.2)
    try:
        done = CASES[case](stage)
    finally:
        stage.end()
    assert done.verdict, str(done.verdict)
