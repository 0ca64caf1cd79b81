"""Run configs that ship with the package."""
