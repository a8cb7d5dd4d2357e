"""From decoded images to the batch that a network is trained on."""
