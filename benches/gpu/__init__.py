"""The suite for a bare GPU machine: what `tools/gpu-check` packs here and runs there."""
