"""The speech engine: audio in, typed results out. Knows nothing of Prefect, Modal, HTTP or S3."""
