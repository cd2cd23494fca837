"""The OpenAI-compatible door: `/v1/audio/transcriptions`, `/v1/audio/translations`, `/v1/models`.

What comes in is a job like any other; only the form, the answers and the errors are OpenAI's. The field names are those of
the official client (`openai/types/audio`), with which it is tested.
"""
