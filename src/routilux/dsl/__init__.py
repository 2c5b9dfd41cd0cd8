"""Flows as documents: YAML 1.2 or JSON in, the same bytes out.

``load``, ``loads_yaml``, ``loads_json`` and ``from_dict`` make a flow or raise :class:`DslError` with all
problems; ``save``, ``dumps_yaml``, ``dumps_json`` and ``to_dict`` write one. All take ``registry=`` and
``allow_imports=``. PyYAML is imported when YAML is first read.
"""

from routilux.dsl.documents import (
    dumps_json,
    dumps_yaml,
    from_dict,
    load,
    loads_json,
    loads_yaml,
    save,
    to_dict,
)
from routilux.dsl.problems import DslError, Problem
from routilux.dsl.registry import ObjectFactory, RoutineRegistry, RoutineType
from routilux.dsl.schema import schema

__all__ = [
    "DslError",
    "ObjectFactory",
    "Problem",
    "RoutineRegistry",
    "RoutineType",
    "dumps_json",
    "dumps_yaml",
    "from_dict",
    "load",
    "loads_json",
    "loads_yaml",
    "save",
    "schema",
    "to_dict",
]
