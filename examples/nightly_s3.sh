#!/bin/sh
# Transcribes every night what is new in a bucket. Credentials come from the usual AWS chain (~/.aws, AWS_PROFILE, a role).
#
#     BUCKET=my-bucket examples/nightly_s3.sh
#
# A recording that was done with the same options is skipped; a failed one is in the batch's table, and can be retried.
set -eu
export STENO_STORE="s3://$BUCKET/steno"                       # artifacts, shared by all workers
export STENO_DEPLOY__NIGHTLY_SOURCE="s3://$BUCKET/incoming"
export STENO_DEPLOY__NIGHTLY_OUTPUT="s3://$BUCKET/transcripts"
export STENO_DEPLOY__NIGHTLY_CRON="${CRON:-0 2 * * *}"
export STENO_DEPLOY__NIGHTLY_OPTIONS='{"formats": ["json", "srt"]}'
exec steno up "$@"
