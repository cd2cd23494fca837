"""The command line, `steno`. Nothing here may import Prefect, torch or pydantic before a command needs it."""
