"""`./quickstart --kafka`: a stream scored with no broker to install."""

import os
import subprocess

from streaming import ROOT


def test_the_demo_scores_every_record_and_leaves_by_itself():
    done = subprocess.run([ROOT / "quickstart", "--kafka"], capture_output=True, text=True, env=os.environ, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "401 records" in done.stdout and done.stdout.endswith("drained\n")
    assert done.stdout.count("dead letter") == 1
