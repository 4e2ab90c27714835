"""Small real trainings for search algorithms: scikit-learn on its own data sets, cross-validated.

What is minimized is the error on held-out parts; who searches with the same seed is judged on the
same parts. A training takes milliseconds, and is exactly repeated by its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import mean_squared_error, roc_auc_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from bench.functions import FUNCTIONS, Params, Problem, floats
from headway_api.sweep import IntRange, SearchParameter, When

FOLDS = 3
ROWS = 300
"""At most, of a data set: more would show no more about a search, and take longer."""
DIVERGED = 1.0
"""Error of a model whose answers are no numbers; one that guesses has 0.5."""

Measure = Callable[[Any, Any, Any], float]
"""Error of a fitted model on held-out rows and their labels."""
LOADERS: dict[str, Callable[..., Any]] = {
    "digits": load_digits,
    "breast-cancer": load_breast_cancer,
    "diabetes": load_diabetes,
}


@cache
def _rows(name: str) -> tuple[Any, Any]:
    data, labels = LOADERS[name](return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(data))[:ROWS]
    return StandardScaler().fit_transform(data[chosen]), labels[chosen]


def _error(name: str, model: Any, measure: Measure, seed: int) -> float:
    """Mean error over the folds, which are drawn from the seed."""
    data, labels = _rows(name)
    found = []
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(data):
        with np.errstate(all="ignore"):  # what diverges is looked at
            model.fit(data[train], labels[train])
        found.append(measure(model, data[test], labels[test]))
    return float(np.mean(found))


def _wrong(model: Any, data: Any, labels: Any) -> float:
    return float(np.mean(model.predict(data) != labels))


# --- the models ---------------------------------------------------------------------------------


def svm(params: Params, seed: int) -> tuple[float, ...]:
    """A support vector machine that reads digits: share of wrong answers."""
    names = {"C": "c", "gamma": "gamma", "kernel": "kernel", "degree": "degree"}
    given = {to: params[name] for to, name in names.items() if name in params}
    return (_error("digits", SVC(**given), _wrong, seed),)


def _svm() -> Problem:
    parameters = [
        floats("c", 1e-3, 1e3, log=True),
        floats("gamma", 1e-6, 1.0, log=True),
        SearchParameter(name="kernel", choice=["rbf", "poly", "sigmoid"]),
        SearchParameter(
            name="degree",
            int_=IntRange(min=2, max=5),
            when=When(parameter="kernel", values=["poly"]),
        ),
    ]
    return Problem("svm-digits", parameters, svm)


def linear(params: Params, seed: int) -> tuple[float, ...]:
    """A linear classifier by gradient descent, breast cancer: 1 - area under the ROC curve."""
    model = SGDClassifier(**params, max_iter=5, tol=None, random_state=seed)

    def measure(fitted: Any, data: Any, labels: Any) -> float:
        scores = fitted.decision_function(data)
        return 1 - float(roc_auc_score(labels, scores)) if np.isfinite(scores).all() else DIVERGED

    return (_error("breast-cancer", model, measure, seed),)


def _linear() -> Problem:
    parameters = [
        SearchParameter(name="loss", choice=["hinge", "log_loss", "modified_huber"]),
        SearchParameter(name="penalty", choice=["l2", "l1", "elasticnet"]),
        floats("l1_ratio", 0.0, 1.0, when=When(parameter="penalty", values=["elasticnet"])),
        floats("alpha", 1e-7, 1.0, log=True),
        SearchParameter(name="learning_rate", choice=["constant", "invscaling", "adaptive"]),
        floats("eta0", 1e-5, 10.0, log=True),
        floats("power_t", 0.1, 1.0, when=When(parameter="learning_rate", values=["invscaling"])),
    ]
    return Problem("linear-breast-cancer", parameters, linear)


def boosting(params: Params, seed: int) -> tuple[float, ...]:
    """Boosted trees that foretell the course of diabetes: squared error by the labels' variance."""
    model = GradientBoostingRegressor(**params, random_state=seed)
    spread = float(np.var(_rows("diabetes")[1]))

    def measure(fitted: Any, data: Any, labels: Any) -> float:
        return float(mean_squared_error(labels, fitted.predict(data))) / spread

    return (_error("diabetes", model, measure, seed),)


def _boosting() -> Problem:
    parameters = [
        floats("learning_rate", 1e-3, 1.0, log=True),
        SearchParameter(name="n_estimators", int_=IntRange(min=5, max=25)),
        SearchParameter(name="max_depth", int_=IntRange(min=1, max=3)),
        floats("subsample", 0.3, 1.0, step=0.1),
        SearchParameter(name="min_samples_leaf", int_=IntRange(min=1, max=64, log=True)),
    ]
    return Problem("boosting-diabetes", parameters, boosting)


def small_tree(params: Params, seed: int) -> tuple[float, ...]:
    """A decision tree that reads digits, and is to be small: wrong answers, hundreds of leaves."""
    model, leaves = DecisionTreeClassifier(**params, random_state=seed), []

    def measure(fitted: Any, data: Any, labels: Any) -> float:
        leaves.append(fitted.get_n_leaves() / 100)
        return _wrong(fitted, data, labels)

    return _error("digits", model, measure, seed), float(np.mean(leaves))


def _small_tree() -> Problem:
    parameters = [
        SearchParameter(name="criterion", choice=["gini", "entropy"]),
        SearchParameter(name="max_depth", int_=IntRange(min=1, max=20)),
        SearchParameter(name="min_samples_leaf", int_=IntRange(min=1, max=64, log=True)),
        floats("ccp_alpha", 1e-5, 0.1, log=True),
        floats("max_features", 0.1, 1.0),
    ]
    return Problem("small-tree-digits", parameters, small_tree, objectives=2, reference=(1.0, 1.0))


TRAININGS = {each.name: each for each in (_svm(), _linear(), _boosting(), _small_tree())}
PROBLEMS = FUNCTIONS | TRAININGS
