"""The vocabulary and the search loop: standard library and numpy only."""
