"""Choose J, L and the penalty of a linear classifier by cross-validation on 1,000 built-in images. Needs scikit-learn.

    python examples/sklearn_grid.py

Two processes share the work. The test images are seen once, by the pipeline that the search chose.
"""
import time

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from scat_zoo.sklearn import ScatteringFeatures
from scat_zoo.train import data

GRID = {'features__J': [2, 3], 'features__L': [4, 8], 'classifier__alpha': [30., 100.]}


def arrays(dataset):
    """All images (n, 28, 28), bytes, and their classes (n,)."""
    images, classes = zip(*dataset)
    return np.stack([np.asarray(image) for image in images]), np.array(classes)


def main():
    sample = data.load('sample', val_fraction=0)                # cross-validation needs no validation images
    x_train, y_train = arrays(sample.train)
    x_test, y_test = arrays(sample.test)

    pipeline = Pipeline([('features', ScatteringFeatures()), ('classifier', RidgeClassifier())])
    start = time.perf_counter()
    search = GridSearchCV(pipeline, GRID, cv=3, n_jobs=2).fit(x_train, y_train)
    results = search.cv_results_
    for params, mean in zip(results['params'], results['mean_test_score']):
        print(', '.join(f'{name.split("__")[1]}={value:g}' for name, value in params.items()),
              f'{100 * mean:.1f} % in cross-validation', sep=': ')
    chosen = ', '.join(f'{name.split("__")[1]}={value:g}' for name, value in search.best_params_.items())
    print(f'{chosen}: {100 * search.score(x_test, y_test):.2f} % of {len(x_test):,} test images, '
          f'in {time.perf_counter() - start:.0f} seconds')


if __name__ == '__main__':
    main()
