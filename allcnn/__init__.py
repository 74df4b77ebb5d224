"""The science: All-CNN-C networks, their training, and the similarity of their representations."""
