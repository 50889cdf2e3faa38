"""What serving needs of a model: the catalogue, its card, and BentoML's model store."""
