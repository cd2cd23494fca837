"""A server that speaks Modal's protocol."""

from .client import ModalServer as ModalServer
