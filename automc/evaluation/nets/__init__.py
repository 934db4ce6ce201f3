"""The networks of the zoo, in plain torch."""
