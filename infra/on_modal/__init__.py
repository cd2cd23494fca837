"""Stages as function calls on Modal: what the orchestrator does (`compute`, `calls`, `transfer`) and what runs in containers
(`worker`, `channel`). `infra.modal_app` is the app that is deployed; docs/modal.md is the guide.
"""
