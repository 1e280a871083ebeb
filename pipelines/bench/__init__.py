"""Load on a gateway, on a model folder and on other engines, and what came of it."""
