"""One training loop for every model, and the folds around it."""
