"""A page to try predictors out: images, a webcam and films, with explanations."""
