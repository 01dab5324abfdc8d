"""scikit-learn's own checks of estimators, on sequences given as 2-D arrays [B, T]; those that do not apply say why."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from carousel import CarouselError, Classifier, Tagger, TrainConfig

QUICK = TrainConfig(
    steps=80, hidden_size=8, least_steps=20, warmup=5, batch_size=16, width=0, learning_rate=0.02, refit=False
)
TABLE = "a pandas table has roles, and names of columns that are text; it is no plain array here"
FAIL = {
    "check_dtype_object": "what is no number is a DataError (a ValueError), not a TypeError",
    "check_supervised_y_2d": "a column [B, 1] of labels is taken without a warning",
    "check_classifier_data_not_an_array": TABLE,
    "check_regressor_data_not_an_array": TABLE,
}


def expected(estimator: Any) -> dict[str, str]:
    return FAIL


with warnings.catch_warnings():  # inheriting from BaseEstimator would import scikit-learn with every model
    warnings.filterwarnings("ignore", message="Estimator Classifier does not inherit from `sklearn.base.BaseEstimator`")
    checks = parametrize_with_checks(
        [Classifier(config=QUICK), Classifier(kind="regression", config=QUICK)], expected_failed_checks=expected
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@checks
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", [Classifier, Tagger])
def test_parameters_are_stored_cloned_and_set(kind):
    model = kind("y", id="who", static=("age",), seeds=3, config=QUICK)
    again = clone(model)
    assert again is not model
    assert again.get_params() == model.get_params()
    assert again.set_params(seeds=2).seeds == 2
    assert model.seeds == 3
    assert "seeds=3" in repr(model)
    with pytest.raises(ValueError, match="has no parameter 'sides'"):
        model.set_params(sides=2)
    with pytest.raises(NotFittedError, match=f"this {kind.__name__} is not fitted yet"):
        model.predict([np.zeros((3, 1))])
    with pytest.raises(CarouselError, match="not fitted"):
        model.save("never.safetensors")


def test_cross_validation_of_scikit_learn():
    rng = np.random.default_rng(5)
    y = np.arange(40) % 2
    x = rng.normal(size=(40, 7, 2)) + y[:, None, None]
    assert cross_val_score(Classifier(config=QUICK), x, y, cv=3).min() > 0.6
