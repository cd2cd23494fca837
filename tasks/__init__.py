"""One Prefect task per node of the transcription graph."""
