"""The models: their catalogue, their cards, their states, and BentoML's model store."""
