#!/bin/sh
# Transcribes on Modal's GPUs. `modal token new` makes the token; HF_TOKEN, if it is set, becomes a Modal secret for gated models.
#
#     examples/modal.sh talk.mp3
set -eu
if [ -n "${HF_TOKEN:-}" ]; then
    modal secret create --force huggingface HF_TOKEN="$HF_TOKEN"
    export STENO_MODAL__HF_SECRET=huggingface
fi
steno modal deploy
steno modal warm
steno transcribe --compute modal "$@"
steno modal status
