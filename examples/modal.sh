#!/bin/sh
# Transcribes on Modal's GPUs. `modal token new` creates the token. If HF_TOKEN is set, it is stored as a Modal secret, for gated models.
#
#     examples/modal.sh talk.mp3
set -eu
if [ -n "${HF_TOKEN:-}" ]; then
    steno modal deploy --hub-token
else
    steno modal deploy
fi
steno modal warm
steno transcribe --compute modal "$@"
steno modal status
