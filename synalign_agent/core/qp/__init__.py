"""The quadratic programs behind the weights: exact, from few kernel columns."""
