"""The compiled core's bindings, as far as types go; native/bindings.cpp says what they take."""

from typing import Any

class Plan:
    def __init__(self, *fields: Any) -> None: ...

def __getattr__(name: str) -> Any: ...
