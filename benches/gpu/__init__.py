"""The suite for a bare GPU machine: `tools/gpu-check` packs it here and runs it there."""
