"""Sweeps that have to be refused: by name, what is laid over a right spec, what is said, and the
spec of the object that it would replace."""

from typing import Any

Object = dict[str, Any]

FLOAT: Object = {"min": 0.1, "max": 1}
INT: Object = {"min": 1, "max": 8}
ASHA: Object = {"asha": {"minSteps": 10, "maxSteps": 100}}
TWO: Object = {"objectives": [{"metric": "loss"}, {"metric": "latency"}]}
PBT: Object = {"algorithm": {"name": "pbt", "pbt": {"stepsPerGeneration": 10}}}
CHANGED = "parameters, objectives, algorithm, repeats and seed can't change"
COMPARED = "rules that compare trials on the way can't go with repeats"
SEVERAL = "with several objectives no trial is better than another on the way"


def parameter(**fields: Any) -> Object:
    return {"parameters": [{"name": "x", **fields}]}


TABLE: dict[str, tuple[Object, str, Object | None]] = {
    "no-range": (parameter(), "must validate one and only one schema (oneOf)", None),
    "two-ranges": (
        parameter(float=FLOAT, int=INT),
        "must validate one and only one schema (oneOf)",
        None,
    ),
    "float-min-above-max": (
        parameter(float={"min": 2, "max": 1}),
        "spec.parameters[0].float.min: Invalid value: min must not be larger than max",
        None,
    ),
    "float-log-of-zero": (
        parameter(float={"min": 0, "max": 1, "log": True}),
        "with log, min must be larger than 0",
        None,
    ),
    "float-log-and-step": (
        parameter(float={**FLOAT, "log": True, "step": 0.1}),
        "step can't go with log: remove one",
        None,
    ),
    "float-step-of-zero": (
        parameter(float={**FLOAT, "step": 0}),
        "step must be larger than 0",
        None,
    ),
    "float-in-words": (
        parameter(float={"min": "low", "max": 1}),
        'in body must be of type number: "string"',
        None,
    ),
    "int-min-above-max": (
        parameter(int={"min": 2, "max": 1}),
        "spec.parameters[0].int.min: Invalid value: min must not be larger than max",
        None,
    ),
    "int-log-of-zero": (
        parameter(int={"min": 0, "max": 1, "log": True}),
        "with log, min must be larger than 0",
        None,
    ),
    "int-log-and-step": (
        parameter(int={**INT, "log": True, "step": 2}),
        "step can't go with log: remove one",
        None,
    ),
    "no-choice": (parameter(choice=[]), "should have at least 1 items", None),
    "same-name-twice": (
        {"parameters": [{"name": "x", "int": INT}, {"name": "x", "float": FLOAT}]},
        'Duplicate value: {"name":"x"}',
        None,
    ),
    "depends-on-itself": (
        parameter(int=INT, when={"parameter": "x", "values": [1]}),
        "a parameter can't depend on itself",
        None,
    ),
    "unknown-algorithm": (
        {"algorithm": {"name": "bayes"}},
        'spec.algorithm.name: Unsupported value: "bayes": supported values: "tpe", "random"',
        None,
    ),
    "pbt-without-settings": (
        {"algorithm": {"name": "pbt"}},
        "pbt settings belong to name: pbt",
        None,
    ),
    "cmaes-for-two": (
        {**TWO, "algorithm": {"name": "cmaes"}},
        "cmaes and pbt know one objective only",
        None,
    ),
    "median-for-two": ({**TWO, "stopping": {"median": {}}}, SEVERAL, None),
    "pbt-and-stopping": (
        {**PBT, "stopping": {"patience": {"steps": 5}}},
        "pbt stops trials by itself: remove stopping",
        None,
    ),
    "model-of-two": (
        {**TWO, "model": {"name": "m"}},
        "with several objectives there is no best trial",
        None,
    ),
    "asha-and-repeats": ({"stopping": ASHA, "repeats": {"count": 2}}, COMPARED, None),
    "asha-and-median": (
        {"stopping": {**ASHA, "median": {}}},
        "set at most one of median, successiveHalving, asha and hyperband",
        None,
    ),
    "asha-upside-down": (
        {"stopping": {"asha": {"minSteps": 100, "maxSteps": 10}}},
        "minSteps must not be larger than maxSteps",
        None,
    ),
    "hyperband-upside-down": (
        {"stopping": {"hyperband": {"minSteps": 100, "maxSteps": 10}}},
        "minSteps must not be larger than maxSteps",
        None,
    ),
    "halving-upside-down": (
        {"stopping": {"successiveHalving": {"minSteps": 100, "maxSteps": 10}}},
        "minSteps must not be larger than maxSteps",
        None,
    ),
    "threshold-of-nothing": (
        {"stopping": {"threshold": {}}},
        "a threshold needs min or max",
        None,
    ),
    "threshold-upside-down": (
        {"stopping": {"threshold": {"min": 2, "max": 1}}},
        "min must be below max",
        None,
    ),
    "no-template": ({"template": None}, "spec.template: Required value", None),
    "space-changed": (parameter(int=INT), CHANGED, {}),
    "seed-added": ({"seed": 5}, CHANGED, {}),
    "long-name-of-a-parameter": (
        {"parameters": [{"name": "x" * 64, "int": INT}]},
        "Too long: may not be more than 63 bytes",
        None,
    ),
}
