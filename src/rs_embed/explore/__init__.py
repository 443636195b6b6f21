"""One HTML file that shows embeddings on a map and answers clicks, without a server or a network."""
