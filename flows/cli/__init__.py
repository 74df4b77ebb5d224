"""The ``allcnn`` command line."""
