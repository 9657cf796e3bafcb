"""A small world with no network: word problems, a tiny base model, a symbolic teacher."""
